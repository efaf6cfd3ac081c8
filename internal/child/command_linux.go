package child

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Run starts the command and waits until it has ended. All that it has written has been passed on then. The error says
// why it could not be started, or what could not be passed on.
//
// It is written for thousands of short commands a second: the goroutine itself waits, for output and for the end, in
// poll(2), and no other one takes part.
func (c Command) Run(ctx context.Context) (exit Exit, err error) {
	null, err := nullDevice()
	if err != nil {
		return Exit{}, err
	}
	r := running{end: -1, outputs: [2]output{{fd: -1}, {fd: -1}}}
	defer r.close()
	if r.tie, err = newTie(); err != nil {
		return Exit{}, err
	}
	attr := syscall.ProcAttr{Dir: c.Dir, Env: c.Env, Files: []uintptr{null.Fd(), null.Fd(), null.Fd()}, Sys: ownGroup()}
	attr.Sys.PidFD = &r.end
	for i, w := range [...]io.Writer{c.Stdout, c.Stderr} {
		if w == nil {
			continue
		}
		theirs, err := r.outputs[i].open(w)
		if err != nil {
			r.outputs[0].closeTheirs()
			return Exit{}, err
		}
		attr.Files[1+i] = uintptr(theirs)
	}
	r.pid, _, err = syscall.StartProcess(c.Path, c.Args, &attr)
	for i := range r.outputs {
		r.outputs[i].closeTheirs()
	}
	if err != nil {
		return Exit{}, fmt.Errorf("start %s: %w", c.Path, err)
	}
	err = r.tie.to(r.pid)
	if err == nil && r.end < 0 {
		r.end, err = awaitEnd(r.pid)
	}
	if err != nil {
		r.signal(syscall.SIGKILL)
	}
	stop := endWith(ctx, c.Grace, r.signal)
	r.wait()
	stop()
	exit, waitErr := r.reap()
	for _, e := range []error{waitErr, r.outputs[0].err, r.outputs[1].err} {
		if err == nil {
			err = e
		}
	}
	return exit, err
}

// nullDevice is what commands have on standard input.
var nullDevice = sync.OnceValues(func() (*os.File, error) { return os.OpenFile(os.DevNull, os.O_RDWR, 0) })

// running is a command that runs.
type running struct {
	pid     int
	end     int // a descriptor that becomes readable when the process ends
	outputs [2]output
	tie     *tie
	isStuck bool // it does not end although it was killed

	mu     sync.Mutex
	killed bool      // it was sent a signal
	dying  time.Time // when it was sent SIGKILL, or zero
	reaped bool
}

// output is standard output or error of a command.
type output struct {
	fd     int // -1: it has ended
	theirs int // -1: it is closed here
	w      io.Writer
	err    error // of w
}

// open makes a pipe, and returns the end for the command.
func (o *output) open(w io.Writer) (theirs int, err error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return -1, os.NewSyscallError("pipe2", err)
	}
	*o = output{fd: ends[0], theirs: ends[1], w: w}
	return ends[1], nil
}

func (o *output) closeTheirs() {
	if o.w != nil && o.theirs >= 0 {
		unix.Close(o.theirs)
		o.theirs = -1
	}
}

// end is for output that has ended, or is not waited for any more.
func (o *output) end() {
	if o.w != nil && o.fd >= 0 {
		unix.Close(o.fd)
	}
	o.fd = -1
}

// buffers are what output is read into.
var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// copy passes on what there is; a read does not block.
func (o *output) copy() {
	buf := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buf)
	n, err := unix.Read(o.fd, buf[:])
	switch {
	case err == unix.EINTR:
	case n <= 0:
		o.end()
	case o.err == nil: // otherwise it is read all the same, so that the command does not block
		_, o.err = o.w.Write(buf[:n])
	}
}

// signal sends a signal to the group.
func (r *running) signal(sig syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reaped {
		return
	}
	r.killed = true
	if sig == syscall.SIGKILL && r.dying.IsZero() {
		r.dying = time.Now()
	}
	unix.Kill(-r.pid, sig)
}

// wait passes on output until the command has ended, kills what is left of its group then, and waits for the rest of
// the output as long as some comes: a process that has left the group may hold a pipe open.
func (r *running) wait() {
	out, end := &r.outputs, int32(r.end)
	for end >= 0 || out[0].fd >= 0 || out[1].fd >= 0 {
		fds := [3]unix.PollFd{
			{Fd: int32(out[0].fd), Events: unix.POLLIN}, {Fd: int32(out[1].fd), Events: unix.POLLIN}, {Fd: end, Events: unix.POLLIN},
		}
		patience := reapTimeout
		if end < 0 {
			patience = pumpTimeout
		}
		n, err := unix.Poll(fds[:], int(patience.Milliseconds()))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || n == 0 && end < 0:
			return
		case n == 0:
			if r.stuck() {
				r.isStuck = true
				return
			}
			continue
		}
		for i := range out {
			if fds[i].Revents != 0 {
				out[i].copy()
			}
		}
		if fds[2].Revents != 0 {
			end = -1
			unix.Kill(-r.pid, unix.SIGKILL) // it has not been waited for: the id is its own
		}
	}
}

// stuck reports whether the command should have ended long ago, as it was killed.
func (r *running) stuck() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.dying.IsZero() && time.Since(r.dying) > reapTimeout
}

// reap waits for the command, which has ended, and tells how.
func (r *running) reap() (Exit, error) {
	r.mu.Lock()
	r.reaped = true
	killed := r.killed
	r.mu.Unlock()
	if r.isStuck {
		return Exit{Code: -1, Killed: killed}, fmt.Errorf("process %d did not end within %v of being killed", r.pid, reapTimeout)
	}
	var status syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(r.pid, &status, 0, nil); err != syscall.EINTR {
			if err != nil {
				return Exit{Code: -1, Killed: killed}, os.NewSyscallError("wait4", err)
			}
			break
		}
	}
	reapGroup(r.pid)
	if status.Signaled() {
		return Exit{Code: -1, Signal: status.Signal(), Killed: killed}, nil
	}
	return Exit{Code: status.ExitStatus(), Killed: killed}, nil
}

// close releases what belongs to the command.
func (r *running) close() {
	for i := range r.outputs {
		r.outputs[i].end()
	}
	if r.end >= 0 {
		unix.Close(r.end)
	}
	r.tie.close()
}

// awaitEnd returns a descriptor that becomes readable when the process ends, on kernels that give none at its start.
func awaitEnd(pid int) (fd int, err error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return -1, os.NewSyscallError("pipe2", err)
	}
	go func() { // ends with the process, or when that has been waited for
		ended(pid, 0)
		unix.Close(ends[1])
	}()
	return ends[0], nil
}

// Package child starts processes, ends them with all that they started, and tells
// how they ended. It is the only package that starts processes.
//
// A child runs in its own process group: a signal from the terminal does not reach
// it, and a signal sent through [Child] reaches whatever it has started too. When
// the parent dies, however it dies, the kernel or the child itself ends the group;
// see [Arm].
//
// # Concurrency
//
// All methods of Child may be called from several goroutines at once.
package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Config says what to start.
type Config struct {
	Path   string     // program; see Self
	Args   []string   // its arguments, the name of the program first; none: Path
	Env    []string   // its environment, complete; the last of several values counts
	Dir    string     // its working directory; empty: that of this process
	Stdin  io.Reader  // nil: the null device
	Stdout io.Writer  // nil: the null device. Receives whole lines, unless it is an *os.File
	Stderr io.Writer  // nil: the null device. Receives whole lines
	Files  []*os.File // descriptors 3, 4, … of the child
	Tail   int        // how many bytes of the end of standard error to keep for Ended
	OnExit func()     // called when the child itself has ended and its group was killed; Linux only

	// Foreign says that the program does not call Arm: its group is tied to the life of this process from here, where the
	// system can do that. There is no descriptor after Files then.
	Foreign bool
}

// Child is a process that was started. Reap must be called once it is no longer
// needed: it is what releases the process and its descriptors.
type Child struct {
	cmd    *exec.Cmd
	life   *os.File      // held open as long as the child may live, see Arm; nil: it is foreign
	tie    *tie          // where it is foreign
	stderr *pump         // nil where nobody wants to know
	pumps  []*pump       // of all output
	exited chan struct{} // closed when the child itself has ended

	mu     sync.Mutex
	reaped bool // the process id may belong to another by now
	killed bool // it was sent SIGKILL
}

// Start starts a process. The error says what could not be done.
func Start(cfg Config) (*Child, error) {
	c := &Child{cmd: &exec.Cmd{
		Path: cfg.Path, Args: cfg.Args, Env: cfg.Env, Dir: cfg.Dir, Stdin: cfg.Stdin,
		SysProcAttr: ownGroup(),
	}, exited: make(chan struct{})}
	if len(c.cmd.Args) == 0 {
		c.cmd.Args = []string{cfg.Path}
	}
	var theirs []*os.File // closed here once the child has its own
	var ours []*os.File   // closed if the child does not start
	pipe := func() (r, w *os.File, err error) {
		if r, w, err = os.Pipe(); err == nil {
			theirs, ours = append(theirs, w), append(ours, r)
		}
		return r, w, err
	}
	start := func() error {
		if f, ok := cfg.Stdout.(*os.File); ok {
			c.cmd.Stdout = f
		} else if cfg.Stdout != nil {
			r, w, err := pipe()
			if err != nil {
				return err
			}
			c.cmd.Stdout, c.pumps = w, append(c.pumps, newPump(r, cfg.Stdout, 0))
		}
		if cfg.Stderr != nil || cfg.Tail > 0 {
			r, w, err := pipe()
			if err != nil {
				return err
			}
			c.cmd.Stderr, c.stderr = w, newPump(r, cfg.Stderr, cfg.Tail)
			c.pumps = append(c.pumps, c.stderr)
		}
		c.cmd.ExtraFiles = append([]*os.File(nil), cfg.Files...)
		if cfg.Foreign {
			var err error
			if c.tie, err = newTie(); err != nil {
				return err
			}
			return c.cmd.Start()
		}
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		theirs, ours = append(theirs, r), append(ours, w)
		c.life = w
		c.cmd.ExtraFiles = append(c.cmd.ExtraFiles, r)
		return c.cmd.Start()
	}
	err := start()
	for _, f := range theirs {
		f.Close()
	}
	if err != nil {
		c.tie.close()
		for _, f := range ours {
			f.Close()
		}
		return nil, fmt.Errorf("start process: %w", err)
	}
	if cfg.Foreign {
		err = c.tie.to(c.PID())
	}
	for _, p := range c.pumps {
		go p.run() // ends when the pipe does; waited for in stop
	}
	go c.watch(cfg.OnExit) // ends with the child, which Reap waits for
	if err != nil {
		c.Signal(syscall.SIGKILL)
		c.Reap()
		return nil, fmt.Errorf("start process: %w", err)
	}
	return c, nil
}

// PID returns the process id, which is also the id of the process group.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Signal sends a signal to the child and to every process in its group. After Reap
// it returns os.ErrProcessDone.
func (c *Child) Signal(sig syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reaped {
		return os.ErrProcessDone
	}
	c.killed = c.killed || sig == syscall.SIGKILL
	return signalGroup(c.cmd.Process, sig)
}

// reapTimeout bounds how long Reap waits for a process that was killed. It ends
// within milliseconds unless the kernel is stuck in a device.
const reapTimeout = 5 * time.Second

// ending is how long a child may take from closing its descriptors to its end.
const ending = 100 * time.Millisecond

// Reap kills what is left of the child and its group, waits for the child and
// tells how it ended. A child that has ended by itself before, or is just ending,
// keeps its own exit status. Only the first call does anything.
func (c *Child) Reap() Ended {
	c.mu.Lock()
	killed := c.killed
	c.mu.Unlock()
	var e Ended
	if watches && !killed {
		patience := time.NewTimer(ending)
		select {
		case <-c.exited:
		case <-patience.C:
			e.Alive = true
		}
		patience.Stop()
	}
	c.mu.Lock()
	if c.reaped {
		c.mu.Unlock()
		return Ended{Err: os.ErrProcessDone}
	}
	// The leader has not been waited for, so that the id is still its own.
	signalGroup(c.cmd.Process, syscall.SIGKILL)
	c.reaped = true
	c.mu.Unlock()
	limit := time.NewTimer(reapTimeout)
	defer limit.Stop()
	return c.wait(e, limit.C)
}

// Run starts a process, waits until it ends by itself, and tells how it ended; on
// Linux, what is left of its group is killed then. When ctx ends before, all of it is
// killed.
// All that was written has been passed on when Run returns.
func Run(ctx context.Context, cfg Config) (Ended, error) {
	c, err := Start(cfg)
	if err != nil {
		return Ended{}, err
	}
	stop := context.AfterFunc(ctx, func() { c.Signal(syscall.SIGKILL) })
	defer stop()
	if watches {
		<-c.exited
		return c.Reap(), nil
	}
	e := c.wait(Ended{}, nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reaped = true
	return e, nil
}

// wait waits for the child, at most until limit, and releases what belongs to it.
func (c *Child) wait(e Ended, limit <-chan time.Time) Ended {
	waited := make(chan error, 1)
	go func() { waited <- c.cmd.Wait() }() // ends with the process; waited for below
	select {
	case err := <-waited:
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			e.Err = err
		}
		e.State = c.cmd.ProcessState
		reapGroup(c.PID())
	case <-limit:
		e.Err = fmt.Errorf("process %d did not end within %v of being killed", c.PID(), reapTimeout)
	}
	if c.life != nil {
		c.life.Close()
	}
	c.tie.close()
	stop(c.pumps...)
	if c.stderr != nil {
		e.Tail, e.Reason = c.stderr.last()
	}
	return e
}

// Ended tells how a child ended.
type Ended struct {
	State  *os.ProcessState // nil when Err is set
	Tail   string           // the last lines that it wrote to standard error
	Reason string           // the last line in which the Go runtime seemed to say why it gave up
	Alive  bool             // it had not ended when Reap was called, which killed it
	Err    error            // why nothing is known
}

// FatalError reports whether the child ended in the way in which the Go runtime, or
// a fault in C code, ends a process: Reason says why then. Otherwise it is a line
// from earlier in the child's life.
func (e Ended) FatalError() bool {
	switch e.Signal() {
	case syscall.SIGABRT, syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGILL, syscall.SIGFPE, syscall.SIGTRAP:
		return true
	}
	return e.ExitCode() == 2
}

// Signal returns the signal that ended the child, or 0.
func (e Ended) Signal() syscall.Signal {
	if e.State == nil {
		return 0
	}
	return endedBy(e.State)
}

// ExitCode returns the exit code of the child, or -1 when a signal ended it or
// nothing is known.
func (e Ended) ExitCode() int {
	if e.State == nil {
		return -1
	}
	return e.State.ExitCode()
}

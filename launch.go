package multiproc

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed84f35039/multiproc/internal/child"
	"github.com/seed84f35039/multiproc/internal/handover"
	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// stderrTail is how much of what a worker wrote to standard error a CrashError
// tells, in bytes.
const stderrTail = 8 << 10

// link is a worker process as this one sees it. Tests have one without a process.
type link interface {
	transport.Conn
	PID() int
	Signal(syscall.Signal) error // to the process and all that it started
	Exited() bool                // whether it has ended; false where the system does not tell
	Reap() child.Ended           // kills what is left, waits, and tells how it ended
}

// launcher starts a worker, which is to say Hello first.
type launcher func() (link, error)

// procLink is the link to a process.
type procLink struct {
	transport.Conn
	*child.Child
	build   string                               // of the program that it is to run
	release func() (outOfMemory bool, err error) // of its Cage
}

// What procLink would hide of its connection.

// HangUp is for [transport.HangUp].
func (l procLink) HangUp() { transport.HangUp(l.Conn) }

// Traffic is for [transport.TrafficOf].
func (l procLink) Traffic() transport.Traffic { return transport.TrafficOf(l.Conn) }

// Files returns the way for files.
func (l procLink) Files() transport.Files { return transport.FilesOf(l.Conn) }

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// launch says how worker processes are started.
type launch struct {
	env        []string
	dir        string
	command    []string // nil: this program
	stdout     io.Writer
	stderr     io.Writer
	gomaxprocs int
	worker     workerConfig
	cage       Cage                                       // or nil
	connect    func() (transport.Conn, []*os.File, error) // nil: transport.New
}

// start starts this program again, to be a worker.
func (l launch) start() (link, error) {
	w, err := l.spawn()
	return w, advise(err)
}

func (l launch) spawn() (link, error) {
	if err := canSpawn(); err != nil {
		return nil, err
	}
	path, args, wanted := "", l.command, ""
	if len(args) > 0 {
		path, wanted = args[0], buildOf(args[0])
	} else {
		var err error
		if path, err = child.Self(); err != nil {
			return nil, fmt.Errorf("find this program: %w", err)
		}
		args, wanted = []string{os.Args[0]}, build()
	}
	connect := l.connect
	if connect == nil {
		connect = transport.New
	}
	conn, theirs, err := connect()
	if err != nil {
		return nil, err
	}
	if carriers.Load() {
		if conn, theirs, err = transport.AddFiles(conn, theirs); err != nil {
			closeFiles(theirs)
			return nil, errors.Join(err, conn.Close())
		}
	}
	c, err := child.Start(child.Config{
		Path:   path,
		Args:   args,
		Env:    workerEnv(l.env, wanted, l.gomaxprocs, len(theirs), l.worker),
		Dir:    l.dir,
		Stdout: l.stdout,
		Stderr: l.stderr,
		Files:  theirs,
		Tail:   stderrTail,
		// Somebody else may hold the worker's end of the connection.
		OnExit: func() { transport.HangUp(conn) },
	})
	closeFiles(theirs)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return admit(l.cage, procLink{Conn: conn, Child: c, build: wanted, release: noCage})
}

// greet waits for the worker's Hello and checks it. When the worker does not say it
// in time it is killed.
func greet(l link, timeout time.Duration) error {
	late := time.AfterFunc(timeout, func() { l.Signal(syscall.SIGKILL) })
	f, err := transport.Recv(l)
	switch {
	case !late.Stop():
		return fmt.Errorf("the worker did not call multiproc.Init within %v; make it the first statement of main", timeout)
	case hungUp(err):
		return errNoHello
	case err != nil:
		return fmt.Errorf("greeting: %w", err)
	case f.Kind != wire.Hello:
		return fmt.Errorf("greeting: the worker sent a %s frame", f.Kind)
	}
	var hello wire.Greeting
	if err := wire.Decode(f.Body, &hello); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	if hello.Version != wire.Version {
		return fmt.Errorf("the worker speaks version %d of the protocol, this program %d", hello.Version, wire.Version)
	}
	b := build()
	if p, ok := l.(procLink); ok {
		b = p.build
	}
	if hello.Build != b {
		return &otherBuild{hello.Build, b}
	}
	return nil
}

// otherBuild says that a worker is not the program that its parent is.
type otherBuild struct{ worker, parent string }

func (e *otherBuild) Error() string {
	return fmt.Sprintf("the worker is another build than its parent (%q against %q): the file was replaced; restart the program", e.worker, e.parent)
}

// hungUp reports whether err, of Recv, says no more than that the worker is gone.
func hungUp(err error) bool {
	for _, gone := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, os.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}

// errStart is why a worker never took a call.
var errStart = errors.New("start worker")

// errNoHello is refined by how the worker ended.
var errNoHello = errors.New("the worker ended before it called multiproc.Init, which should be the first statement of main")

// crash makes the error of a call from how its worker ended. reason, if there is
// one, says more than the worker could.
func crash(e child.Ended, reason string) *CrashError {
	if reason == "" && e.Alive {
		reason = "killed by multiproc: it had closed its connection"
	}
	if reason == "" && (e.FatalError() || strings.HasPrefix(e.Reason, workerSays)) {
		reason = e.Reason
	}
	if reason == "" && e.Err != nil {
		reason = e.Err.Error()
	}
	return &CrashError{
		CallInfo:    CallInfo{Index: -1},
		Signal:      e.Signal(),
		ExitCode:    e.ExitCode(),
		OutOfMemory: strings.HasPrefix(reason, outOfMemory) || e.FatalError() && (strings.Contains(e.Reason, "out of memory") || strings.Contains(e.Reason, "cannot allocate memory")),
		Reason:      reason,
		Stderr:      e.Tail,
		Crashes:     1,
	}
}

// singleCall returns a frame of a single call, and adds its shared memory to p. With id 0 it has
// no key.
func singleCall(id uint64, name string, arg func(dst []byte, p *handover.Parcel) ([]byte, error), p *handover.Parcel) ([]byte, error) {
	key, number := "", uint64(0)
	if id != 0 {
		key, number = ownKey(), numbers(1)
	}
	buf := wire.AppendHead(wire.Begin(nil, wire.Calls, id), name, key, number)
	start := len(buf)
	buf, err := arg(wire.BeginArg(buf), p)
	if err == nil {
		err = wire.EndArg(buf, start)
	}
	if err == nil {
		err = wire.End(buf, 0)
	}
	return buf, err
}

// appendCancel appends a Cancel frame to buf, for n calls. The worker kills itself when
// one of them still runs after the grace.
func appendCancel(buf []byte, id uint64, n int, grace time.Duration) []byte {
	body := wire.AppendNumber(wire.AppendNumber(nil, n), int(min(grace.Milliseconds(), math.MaxInt32)))
	return wire.Append(buf, wire.Cancel, id, body)
}

// sharedWriter lets several workers write whole lines to one writer.
type sharedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *sharedWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

// outputs returns where workers' standard output and error go.
func outputs(stdout, stderr io.Writer) (io.Writer, io.Writer) {
	if stdout == nil {
		stdout = os.Stdout
	}
	if stderr == nil {
		stderr = os.Stderr
	}
	out := stdout
	if _, file := stdout.(*os.File); !file {
		out = &sharedWriter{w: stdout}
	}
	if v := reflect.ValueOf(stdout); v.Comparable() && reflect.ValueOf(stderr).Comparable() && stdout == stderr {
		if shared, ok := out.(*sharedWriter); ok {
			return out, shared
		}
	}
	return out, &sharedWriter{w: stderr}
}

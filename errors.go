package multiproc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
)

var (
	// ErrClosed is the error of calls on an executor that was closed, and of those
	// that Kill or Shutdown took away.
	ErrClosed = errors.New("executor is closed")

	// ErrNotInitialized is the error of the first use of worker processes in a
	// program that did not call [Init].
	ErrNotInitialized = errors.New("multiproc.Init was not called; " +
		"make it the first statement of main, or of TestMain in a test: func TestMain(m *testing.M) { multiproc.Init(); os.Exit(m.Run()) }")

	// ErrUnknownFunc is the error of a call of a function that was not made by
	// [Register], or that the worker does not know.
	ErrUnknownFunc = errors.New("function is not registered; " +
		"call multiproc.Register in a package-level variable, so that every process does it before Init")

	// ErrEncoding is the error of a call whose argument or result cannot be carried
	// between processes.
	ErrEncoding = errors.New("value cannot be carried between processes")

	// ErrTooDeep is the error of starting workers that would be nested more than eight
	// deep.
	ErrTooDeep = errors.New("workers are nested too deeply")
)

// CallInfo says which call an error belongs to.
type CallInfo struct {
	Func  string // name of the function
	Index int    // position in the input of Map or Stream; -1 for Call, Go and Start
	PID   int    // process that ran the call, or was to; 0 where it did not leave this one
	Agent string // name of the agent of a cluster that had that process; empty where it was one of this machine

	// Attempts is how often the call was run, where [Retry] lets it run more than once;
	// otherwise 0.
	Attempts int
}

// String returns the function, the index and the process, as "square #3 (pid 4711)", with its agent before it and attempts behind it
// where there are any: "square #3 (agent a2, pid 4711, attempt 2)".
func (c CallInfo) String() string {
	var b strings.Builder
	b.WriteString(c.Func)
	if c.Index >= 0 {
		fmt.Fprintf(&b, " #%d", c.Index)
	}
	var where []string
	if c.Agent != "" {
		where = append(where, "agent "+c.Agent)
	}
	if c.PID != 0 {
		where = append(where, fmt.Sprintf("pid %d", c.PID))
	}
	if c.Attempts > 1 {
		where = append(where, fmt.Sprintf("attempt %d", c.Attempts))
	}
	if len(where) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(where, ", "))
	}
	return b.String()
}

// RemoteError is an error that the function returned.
//
// On Threads it wraps the error itself. From another process only text arrives:
// errors.Is finds those of the wrapped errors that were registered with
// [RegisterError], and the common ones of the standard library: context.Canceled,
// context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, fs.ErrNotExist,
// fs.ErrExist, fs.ErrPermission, fs.ErrInvalid, fs.ErrClosed,
// os.ErrDeadlineExceeded, os.ErrProcessDone, errors.ErrUnsupported, and those of
// this package.
type RemoteError struct {
	CallInfo
	Type    string // Go type of the error, such as "*fs.PathError"
	Message string // its text
	Detail  string // its longer text (%+v) where that differs, such as a stack

	wrapped []error
}

// Error returns the call and the message.
func (e *RemoteError) Error() string { return e.CallInfo.String() + ": " + e.Message }

// Unwrap returns the errors that this one stands for.
func (e *RemoteError) Unwrap() []error { return e.wrapped }

// PanicError is a panic in the function, or the end of its goroutine by
// runtime.Goexit. The worker lives on.
type PanicError struct {
	CallInfo
	Type  string // Go type of the panic's value
	Value string // its text
	Stack string // of the goroutine, where it panicked

	wrapped []error
}

// Error returns the call and the value, without the stack.
func (e *PanicError) Error() string { return e.CallInfo.String() + ": panic: " + e.Value }

// Unwrap returns the error that was the panic's value, as for [RemoteError].
func (e *PanicError) Unwrap() []error { return e.wrapped }

// CrashError is the death of a worker process while it ran the call: killed by a
// signal, ended by os.Exit or a fatal error of the Go runtime, or out of memory.
type CrashError struct {
	CallInfo
	Signal      syscall.Signal // that ended the process, or 0; a SIGSEGV in C shows as exit code 2 and in Reason, as the Go runtime reports it
	ExitCode    int            // exit code, or -1 where a signal ended the process
	OutOfMemory bool           // the process said that it ran out of memory, or its [Cage] knows that the kernel killed it for that
	Reason      string         // why, in a line: of the Go runtime ("fatal error: …") or of multiproc
	Stderr      string         // the last lines that the worker wrote to standard error, at most 8 KiB
	Crashes     int            // how many workers the call has killed: 1, or more where [Retry] lets it run again
}

// Error returns the call, how the worker ended, and the reason.
func (e *CrashError) Error() string {
	s := e.CallInfo.String() + ": worker died: "
	switch {
	case e.Signal != 0:
		s += fmt.Sprintf("signal %d (%v)", int(e.Signal), e.Signal)
	case e.ExitCode >= 0:
		s += fmt.Sprintf("exit code %d", e.ExitCode)
	default:
		s += "cause unknown"
	}
	if e.Reason != "" {
		s += ": " + e.Reason
	} else if lines := strings.Split(strings.TrimSpace(e.Stderr), "\n"); e.ExitCode > 0 && lines[len(lines)-1] != "" {
		s += ": " + clip(lines[len(lines)-1], 200) // what a program says before it exits
	}
	return s
}

// located names the call in errors that have no type of their own.
type located struct {
	CallInfo
	err error
}

func (e *located) Error() string { return e.CallInfo.String() + ": " + e.err.Error() }
func (e *located) Unwrap() error { return e.err }

// canceled is the error of a call whose context ended: the cause, and the
// context's own error where that is another.
func canceled(ctx context.Context) error {
	cause, err := context.Cause(ctx), ctx.Err()
	if cause == nil || errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

package multiproc

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/seed84f35039/multiproc/internal/handover"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// A Func is a function that can run in another process. It is made by [Register],
// and any number of goroutines may use it at once.
//
// On [Threads] the function gets the argument itself, and the caller the result
// itself: what they point to is shared. Elsewhere both are copied by way of CBOR;
// two pointers to one thing become pointers to two things. Memory of package shared in
// them is not copied: both sides have it.
type Func[In, Out any] struct {
	name    string
	fn      func(context.Context, In) (Out, error)
	in, out side
}

// function is a Func without its types, as a worker knows it.
type function interface {
	Name() string
	place() string

	// serve decodes the argument, runs the function and appends the encoded
	// result to dst; the end of a large one is returned as raw instead. On failure
	// dst is returned as it was. The memory of argument and result is in l.
	serve(ctx context.Context, arg, dst []byte, l *luggage) (out, raw []byte, failure *wire.Failure)

	// carries reports whether argument or result may hold shared memory.
	carries() bool
}

// registry holds the functions that this process can run, by name.
var registry = struct {
	sync.RWMutex
	funcs map[string]function
}{funcs: map[string]function{}}

// Register makes a function callable in other processes. Every process of a
// program must register the same functions under the same names before it calls
// [Init]; a package-level variable does that:
//
//	var square = multiproc.Register("square", func(ctx context.Context, x int) (int, error) {
//		return x * x, nil
//	})
//
// A function without an argument or a result takes or returns struct{}. One that
// calls itself through its variable is an initialization cycle to the compiler:
// give it another variable, set in main before Init.
//
// The context that the function gets ends when nobody waits for the result any
// more. In another process that is all: the values and the deadline of the caller's
// context are not there (on Threads they are). Nothing else of the caller's process
// is there either: package variables have the values that the program's start gave
// them.
//
// Argument and result may be of any type that CBOR can carry. Unexported fields,
// functions, channels, complex numbers and interfaces other than any are refused;
// a type may take matters into its own hands with MarshalBinary and UnmarshalBinary
// (or the CBOR or Text pair). An any may hold nil, a bool, a number, a string,
// []byte, time.Time, []any and map[string]any; integers in it arrive as int64. A
// time.Time arrives with its instant and offset, without the name of its zone; nil
// and empty slices and maps stay apart.
//
// Register panics, as regexp.MustCompile does, when the name is empty, longer than
// 255 bytes or taken, the function is nil, a type is refused, or Init was called
// before.
func Register[In, Out any](name string, fn func(ctx context.Context, in In) (Out, error)) *Func[In, Out] {
	f := &Func[In, Out]{name: name, fn: fn}
	fail := func(format string, args ...any) {
		panic(fmt.Sprintf("multiproc: Register(%q): ", name) + fmt.Sprintf(format, args...))
	}
	if name == "" || len(name) > wire.MaxName {
		fail("the name must have 1 to %d bytes", wire.MaxName)
	}
	if fn == nil {
		fail("the function is nil")
	}
	var err error
	if f.in, err = newSide(reflect.TypeFor[In]()); err != nil {
		fail("argument: %v", err)
	}
	if f.out, err = newSide(reflect.TypeFor[Out]()); err != nil {
		fail("result: %v", err)
	}
	registry.Lock()
	defer registry.Unlock()
	if other, taken := registry.funcs[name]; taken {
		fail("the name is taken by the function at %s", other.place())
	}
	if initialized.Load() {
		fail("Init was called before, so a worker would not know the function; register it in a package-level variable")
	}
	registry.funcs[name] = f
	return f
}

// place returns the file and line of the function. It is not looked up before somebody
// asks, as each worker would pay for that at its start.
func (f *Func[In, Out]) place() string {
	at := runtime.FuncForPC(reflect.ValueOf(f.fn).Pointer())
	file, line := at.FileLine(at.Entry())
	return fmt.Sprintf("%s:%d", file, line)
}

// lookup returns the function of that name, or nil, and the name.
func lookup(name []byte) (string, function) {
	if len(name) == 0 {
		return "", nothing // cannot be registered
	}
	registry.RLock()
	defer registry.RUnlock()
	if f := registry.funcs[string(name)]; f != nil {
		return f.Name(), f
	}
	return string(name), nil
}

// Name returns the name under which the function was registered.
func (f *Func[In, Out]) Name() string {
	if f == nil {
		return ""
	}
	return f.name
}

// check reports what is wrong with a use of the function.
func (f *Func[In, Out]) check(ctx context.Context, ex Executor) error {
	switch {
	case f == nil || f.fn == nil:
		return fmt.Errorf("multiproc: %w", ErrUnknownFunc)
	case ctx == nil:
		return fmt.Errorf("%s: the context is nil; pass context.Background()", f.name)
	case ex == nil || reflect.ValueOf(ex).Kind() == reflect.Pointer && reflect.ValueOf(ex).IsNil():
		return fmt.Errorf("%s: the executor is nil; pass multiproc.NewThreads or NewPool", f.name)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", f.name, canceled(ctx))
	}
	return nil
}

// goexit is what a call is told that ended its goroutine.
const goexit = "runtime.Goexit was called"

// protect runs the function. A panic becomes a failure; cause is the error behind
// the failure, if there is one in this process.
func (f *Func[In, Out]) protect(ctx context.Context, in In) (out Out, failure *wire.Failure, cause error) {
	defer func() {
		if r := recover(); r != nil {
			var zero Out
			p := wire.FromPanic(r, debug.Stack(), codesOf(r))
			out, failure = zero, &p
			cause, _ = r.(error)
		}
	}()
	out, err := f.fn(ctx, in)
	if err != nil {
		var zero Out
		e := wire.FromError(err, codesOf(err))
		return zero, &e, err
	}
	return out, nil, nil
}

func (f *Func[In, Out]) serve(ctx context.Context, arg, dst []byte, l *luggage) (out, raw []byte, failure *wire.Failure) {
	var in In
	if !wire.DecodeFast(arg, &in) {
		p := new(In) // in itself stays on the stack
		if err := l.decode(f.in, arg, p); err != nil {
			return dst, nil, &wire.Failure{Cause: wire.CauseArgument, Message: fmt.Sprintf("decode argument: %v", err)}
		}
		in = *p
	}
	result, failure, _ := f.protect(ctx, in)
	if failure != nil {
		return dst, nil, failure
	}
	if out, raw, ok := wire.AppendFast(dst, &result); ok {
		return out, raw, nil
	}
	p := new(Out)
	*p = result
	l.hold(f.out, p)
	out, raw, err := encodeSplit(dst, p, f.out, "result", &l.goes)
	if err != nil {
		return dst, nil, &wire.Failure{Cause: wire.CauseResult, Message: strings.TrimPrefix(err.Error(), ErrEncoding.Error()+": ")}
	}
	return out, raw, nil
}

func (f *Func[In, Out]) carries() bool { return f.in.memory.Any() || f.out.memory.Any() }

// encode appends the encoding of *v to dst, and adds its shared memory to p. what is the
// value's part in the call.
func encode[T any](dst []byte, v *T, s side, what string, p *handover.Parcel) ([]byte, error) {
	out, raw, err := encodeSplit(dst, v, s, what, p)
	return append(out, raw...), err
}

// encodeSplit is encode, but the end of a large value is not copied and returned as raw.
func encodeSplit[T any](dst []byte, v *T, s side, what string, p *handover.Parcel) (out, raw []byte, err error) {
	if err := s.Value(v); err != nil {
		// The value is not shown: it may contain itself, and its text have no end.
		return dst, nil, fmt.Errorf("%w: encode %s of type %T: %w", ErrEncoding, what, *v, err)
	}
	out = dst
	if err = s.pack(v, p); err == nil {
		out, raw, err = wire.EncodeSplit(dst, v)
	}
	if err != nil {
		return dst, nil, fmt.Errorf("%w: encode %s %s: %w", ErrEncoding, what, clip(fmt.Sprintf("%+v", *v), 200), err)
	}
	return out, raw, nil
}

// clip shortens s to n bytes.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}

// Setup is a call that each worker makes once before any other: see [PoolConfig].
type Setup struct {
	name   string
	encode func(dst []byte, p *handover.Parcel) ([]byte, error)
}

// With returns a call of f on in for use as [PoolConfig].Setup. The result of the
// call is dropped.
func (f *Func[In, Out]) With(in In) *Setup {
	return &Setup{name: f.Name(), encode: func(dst []byte, p *handover.Parcel) ([]byte, error) {
		if f == nil {
			return dst, ErrUnknownFunc
		}
		return encode(dst, &in, f.in, "argument", p)
	}}
}

// frame returns the call as a frame, with id 0.
func (s *Setup) frame() ([]byte, error) {
	var parcel handover.Parcel
	defer parcel.Release()
	buf, err := singleCall(0, s.name, s.encode, &parcel)
	if err == nil && !parcel.Empty() {
		err = errors.New("the argument holds shared memory")
	}
	return buf, err
}

// Call runs the function on in and waits for the result.
//
// When ctx ends, Call returns its cause at once, and does not read in any more; the
// executor ends the call as described at [PoolConfig].KillGrace. The error is one of *RemoteError,
// *PanicError, *CrashError, *TimeoutError, or wraps the context's, ErrEncoding, ErrUnknownFunc, or
// one of [Executor].Submit's; on a cluster it may also be one of package cluster's.
func (f *Func[In, Out]) Call(ctx context.Context, ex Executor, in In) (Out, error) {
	if err := f.check(ctx, ex); err != nil {
		var zero Out
		return zero, err
	}
	one := f.one(ctx, in)
	fut := &one.fut
	if err := ex.Submit(&one.batch); err != nil {
		fut.fail(0, &located{fut.info, err})
	}
	one.batch.attend(ctx, &fut.settled)
	select {
	case <-fut.done:
	case <-ctx.Done():
		fut.fail(0, &located{fut.info, canceled(ctx)})
		<-fut.done // bounded: it has failed, or is about to be settled
	}
	return fut.out, fut.err
}

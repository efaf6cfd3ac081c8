package multiproc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/seed84f35039/multiproc/internal/wire"
)

// A Batch is a run of calls of one function that an [Executor] is handed. It is
// what an executor needs to know of them: programs that only make calls never meet
// it.
//
// The executor answers every call exactly once, in any order, with Run, Return,
// ReturnFailure or Fail. If it answers one again, as happens when calls are sent
// at least once, the first answer stands. Until a call is answered its argument
// can be had as often as needed; afterwards the executor must not ask for it.
//
// Calls that are no longer wanted need not be run, only answered: all of them when
// Context ends, single ones when Wanted says so.
//
// The methods may be called from several goroutines, for one call from one at a
// time; only Fail may cut in on a call at any time.
type Batch struct {
	ctx   context.Context
	name  string
	n     int
	size  int // calls to hand to a worker at a time; 0: the executor decides
	calls calls
}

// calls is what a batch knows about its calls beyond their number. Its one
// implementation knows their types.
type calls interface {
	appendArg(dst []byte, i int) ([]byte, error)
	run(ctx context.Context, i int)
	settle(i int, pid int, result []byte)
	fail(i int, err error)
	wanted(i int) bool
	info(i int, pid int) CallInfo
}

// Func returns the name of the function.
func (b *Batch) Func() string { return b.name }

// Len returns the number of calls, which are numbered from 0.
func (b *Batch) Len() int { return b.n }

// Size returns how many calls the caller wants to be handed to a worker at a time,
// or 0 where the executor is to decide.
func (b *Batch) Size() int { return b.size }

// Context ends when the calls that have not been answered are no longer wanted.
// Functions get a context made from it.
func (b *Batch) Context() context.Context { return b.ctx }

// Wanted reports whether the answer of call i is still of interest.
func (b *Batch) Wanted(i int) bool { return b.calls.wanted(i) }

// Info returns the name and index by which the caller knows call i.
func (b *Batch) Info(i int, pid int) CallInfo { return b.calls.info(i, pid) }

// AppendArg appends the encoded argument of call i to dst. The error, which leaves
// dst as it was, is the caller's mistake and the answer to give with Fail.
func (b *Batch) AppendArg(dst []byte, i int) ([]byte, error) { return b.calls.appendArg(dst, i) }

// Run runs call i in this process, on this goroutine, and answers it. A panic in
// the function is an answer; when the function ends its goroutine with
// runtime.Goexit, the call is answered and Run does not return.
func (b *Batch) Run(ctx context.Context, i int) { b.calls.run(ctx, i) }

// Return answers call i with the encoded result that process pid made of it.
// Nothing refers to result afterwards.
func (b *Batch) Return(i int, pid int, result []byte) { b.calls.settle(i, pid, result) }

// ReturnFailure answers call i with the encoded failure (see internal/wire) that
// process pid reported.
func (b *Batch) ReturnFailure(i int, pid int, failure []byte) {
	f, err := wire.DecodeFailure(failure)
	if err != nil {
		b.Fail(i, pid, fmt.Errorf("%w: %w", ErrEncoding, err))
		return
	}
	b.calls.fail(i, errorFrom(b.Info(i, pid), f, nil))
}

// Fail answers call i with an error of the executor's. A *CrashError is told which
// call it belongs to; other errors are wrapped in one that says so.
func (b *Batch) Fail(i int, pid int, err error) {
	if crash, ok := err.(*CrashError); ok {
		own := *crash // each call has an error value of its own
		own.CallInfo = b.Info(i, pid)
		b.calls.fail(i, &own)
		return
	}
	b.calls.fail(i, &located{b.Info(i, pid), err})
}

// collector takes the answers of calls. The first one for an index counts.
type collector[Out any] interface {
	deliver(i int, out Out, err error)
	wanted(i int) bool
}

// typedCalls are calls of one Func with their inputs.
type typedCalls[In, Out any] struct {
	f     *Func[In, Out]
	ctx   context.Context // the batch's
	in    []In
	gate  *gate
	first int // index of in[0] in the caller's input, or -1 for a call that has none
	to    collector[Out]

	// answered is there where in belongs to the batch: inputs that are done with
	// are forgotten, so that they do not live as long as the slowest of the batch.
	answered []atomic.Bool
}

func (c *typedCalls[In, Out]) index(i int) int { return max(c.first, 0) + i }

func (c *typedCalls[In, Out]) info(i int, pid int) CallInfo {
	if c.first < 0 {
		return CallInfo{Func: c.f.name, Index: -1, PID: pid}
	}
	return CallInfo{Func: c.f.name, Index: c.index(i), PID: pid}
}

func (c *typedCalls[In, Out]) wanted(i int) bool { return c.to.wanted(c.index(i)) }

func (c *typedCalls[In, Out]) appendArg(dst []byte, i int) ([]byte, error) {
	if !c.gate.enter() {
		return dst, errLeft
	}
	defer c.gate.leave()
	return encode(dst, &c.in[i], c.f.in, "argument")
}

func (c *typedCalls[In, Out]) run(ctx context.Context, i int) {
	var out Out
	var cause error
	failure := &wire.Failure{Cause: wire.CausePanic, Type: "nil", Message: goexit}
	defer func() { // deferred, as the function may end its goroutine
		var err error
		if failure != nil {
			err = errorFrom(c.info(i, 0), *failure, cause)
		}
		c.answer(i, out, err)
	}()
	if !c.gate.enter() {
		cause = errLeft
		failure.Message = errLeft.Error()
		return
	}
	in := c.in[i]
	c.forget(i)
	c.gate.leave()
	out, failure, cause = c.f.protect(ctx, in)
}

func (c *typedCalls[In, Out]) settle(i int, pid int, result []byte) {
	var out Out
	if err := wire.Decode(result, &out); err != nil {
		var zero Out
		c.answer(i, zero, &located{c.info(i, pid), fmt.Errorf("%w: decode result: %w", ErrEncoding, err)})
		return
	}
	c.forget(i)
	c.answer(i, out, nil)
}

func (c *typedCalls[In, Out]) fail(i int, err error) {
	var zero Out
	c.answer(i, zero, err)
}

// errLeft is what calls are told whose caller has left; nobody reads it.
var errLeft = errors.New("the caller has left")

// gate keeps executors from reading inputs after the caller has left with them.
type gate struct {
	mu     sync.RWMutex // held for reading while an input is read
	closed bool
}

// enter reports whether inputs may be read; if so, leave must follow.
func (g *gate) enter() bool {
	g.mu.RLock()
	if g.closed {
		g.mu.RUnlock()
		return false
	}
	return true
}

func (g *gate) leave() { g.mu.RUnlock() }

// close waits until nobody reads, and lets nobody in any more.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

func (c *typedCalls[In, Out]) forget(i int) {
	if c.answered != nil {
		var zero In
		c.in[i] = zero
	}
}

func (c *typedCalls[In, Out]) answer(i int, out Out, err error) {
	if err != nil && c.ctx.Err() != nil {
		// The call may have failed for that, and the caller wants to know why.
		err = &located{c.info(i, 0), canceled(c.ctx)}
	}
	if c.answered == nil || c.answered[i].CompareAndSwap(false, true) {
		c.to.deliver(c.index(i), out, err)
	}
}

package multiproc

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// Future is a call that was started by [Func.Go]. Its methods may be called from
// several goroutines at once.
type Future[Out any] struct {
	info   CallInfo
	gate   gate // of the argument
	done   chan struct{}
	cancel context.CancelCauseFunc

	settled atomic.Bool

	mu      sync.Mutex
	unwatch func() bool
	out     Out   // not written after done is closed
	err     error // likewise
}

// Go starts a call of the function on in and returns at once. The call is
// cancelled when ctx ends. Whatever goes wrong is the future's error. What in points
// to must not be changed before the future is done.
func (f *Func[In, Out]) Go(ctx context.Context, ex Executor, in In) *Future[Out] {
	if err := f.check(ctx, ex); err != nil {
		fut := &Future[Out]{done: make(chan struct{}), info: CallInfo{Func: f.Name(), Index: -1}}
		fut.fail(0, err)
		return fut
	}
	ctx, cancel := context.WithCancelCause(ctx)
	one := f.one(ctx, in)
	fut := &one.fut
	fut.mu.Lock()
	fut.cancel = cancel
	fut.unwatch = context.AfterFunc(ctx, func() { fut.fail(0, &located{fut.info, canceled(ctx)}) })
	fut.mu.Unlock()
	if err := ex.Submit(&one.batch); err != nil {
		fut.fail(0, &located{fut.info, err})
	}
	return fut
}

// oneCall is all that a single call needs, in one piece of memory.
type oneCall[In, Out any] struct {
	batch    Batch
	calls    typedCalls[In, Out]
	in       [1]In
	answered [1]atomic.Bool
	fut      Future[Out]
}

// one makes a call that is cancelled when ctx ends.
func (f *Func[In, Out]) one(ctx context.Context, in In) *oneCall[In, Out] {
	c := &oneCall[In, Out]{in: [1]In{in}}
	c.fut.done, c.fut.info = make(chan struct{}), CallInfo{Func: f.name, Index: -1}
	c.calls = typedCalls[In, Out]{f: f, ctx: ctx, in: c.in[:], gate: &c.fut.gate, first: -1, answered: c.answered[:], to: &c.fut}
	c.batch = Batch{ctx: ctx, name: f.name, n: 1, first: numbers(1), calls: &c.calls}
	return c
}

// Wait returns the result of the call once there is one. When ctx ends before, it
// returns the cause of that at once, and the call goes on.
func (fut *Future[Out]) Wait(ctx context.Context) (Out, error) {
	var zero Out
	if err := await(ctx, fut.done); err != nil {
		return zero, &located{fut.info, err}
	}
	return fut.out, fut.err
}

// await waits for done, which counts also when ctx has ended by then.
func await(ctx context.Context, done <-chan struct{}) error {
	if ctx == nil {
		return errors.New("the context is nil; pass context.Background()")
	}
	select {
	case <-done:
		return nil
	default:
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return canceled(ctx)
	}
}

// Done returns a channel that is closed when Wait would return at once.
func (fut *Future[Out]) Done() <-chan struct{} { return fut.done }

// Cancel ends the call with context.Canceled, unless it has ended. A call that
// runs has its context cancelled; if that does not help, its worker process is
// killed after the executor's KillGrace.
func (fut *Future[Out]) Cancel() {
	if fut.done == nil {
		return // not made by Go
	}
	fut.fail(0, &located{fut.info, context.Canceled})
}

func (fut *Future[Out]) deliver(_ int, outs []Out) { fut.settle(outs[0], nil) }
func (fut *Future[Out]) deliverOne(_ int, out Out) { fut.settle(out, nil) }

func (fut *Future[Out]) fail(_ int, err error) {
	var zero Out
	fut.settle(zero, err)
}

func (fut *Future[Out]) settle(out Out, err error) {
	if !fut.settled.CompareAndSwap(false, true) {
		return
	}
	fut.out, fut.err = out, err
	fut.mu.Lock()
	unwatch := fut.unwatch
	fut.mu.Unlock()
	if unwatch != nil {
		unwatch()
		fut.cancel(nil)
	}
	fut.gate.close()
	close(fut.done)
}

func (fut *Future[Out]) wanted(int) bool { return !fut.settled.Load() }

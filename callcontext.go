package multiproc

import (
	"context"
	"sync/atomic"
	"time"
)

// callContext is the context of a call in a worker. It costs nothing until somebody asks
// for more than its address.
type callContext struct {
	id    uint64
	from  *origin                      // not written once the call runs
	inner atomic.Pointer[innerContext] // nil until it is needed; overContext once the call has ended
}

// innerContext does the work.
type innerContext struct {
	context.Context
	stop context.CancelFunc
}

// origin is what calls have in common that a worker got together, or in a row.
type origin struct {
	worker *workerContext
	prefix string // of their keys; "": they have none
	offset uint64 // of the number in a key from the call's id; may wrap around
}

// workerContext is the context of all calls of a worker.
type workerContext struct {
	context.Context
	limit *limiter // of calls; or nil
}

// overContext is the context of a call that has ended.
var overContext = func() *innerContext {
	ctx, stop := context.WithCancel(context.Background())
	stop()
	return &innerContext{Context: ctx, stop: stop}
}()

// cancel ends the context.
func (c *callContext) cancel() {
	if inner := c.inner.Swap(overContext); inner != nil {
		inner.stop()
	}
}

// exceed ends the context of a call that runs.
func (c *callContext) exceed() { c.real().stop() }

// limit gives the context of a call that runs, and has not been used yet, a deadline.
func (c *callContext) limit(deadline time.Time) {
	inner := c.inner.Load()
	limited := &innerContext{}
	ctx, stop := context.WithDeadline(inner, deadline)
	limited.Context, limited.stop = ctx, func() { stop(); inner.stop() }
	if !c.inner.CompareAndSwap(inner, limited) { // it was cancelled
		stop()
	}
}

// real returns the context that does the work.
func (c *callContext) real() *innerContext {
	if inner := c.inner.Load(); inner != nil {
		return inner
	}
	worker, inner := c.from.worker, &innerContext{}
	if deadline, ok := worker.limit.deadline(); ok {
		inner.Context, inner.stop = context.WithDeadline(worker, deadline)
	} else {
		inner.Context, inner.stop = context.WithCancel(worker)
	}
	if !c.inner.CompareAndSwap(nil, inner) { // somebody else was quicker, or the call has ended
		inner.stop()
		return c.inner.Load()
	}
	return inner
}

// The methods of context.Context.
func (c *callContext) Deadline() (deadline time.Time, ok bool) {
	if inner := c.inner.Load(); inner == nil && c.from.worker.limit == nil {
		return time.Time{}, false
	}
	return c.real().Deadline()
}
func (c *callContext) Done() <-chan struct{} { return c.real().Done() }
func (c *callContext) Err() error            { return c.real().Err() }
func (c *callContext) Value(key any) any {
	if key == (callKey{}) || key == (keyKey{}) {
		return c
	}
	return c.real().Value(key)
}

// callKey is the key by which a context that is derived from one of a call has that.
type callKey struct{}

// contexts are made for many calls at a time, of consecutive ids.
type contexts struct {
	first uint64
	of    [63]callContext // with first, a size that the allocator has
}

func newContexts(first uint64) *contexts {
	cs := &contexts{first: first}
	for i := range cs.of {
		cs.of[i].id = first + uint64(i)
	}
	return cs
}

// at returns the context of the call, or nil.
func (cs *contexts) at(id uint64) *callContext {
	if cs == nil || id < cs.first || id-cs.first >= uint64(len(cs.of)) {
		return nil
	}
	return &cs.of[id-cs.first]
}

package multiproc

import (
	"context"
	"slices"
	"time"
)

// queue holds the calls that wait for a worker, first in, first out. Calls that
// come back from a worker that did not start them go to the front again. It is
// guarded by its owner's mutex.
type queue struct {
	front   []span   // came back; in order
	entries []*entry // in order; the first has calls that were not taken
	n       int      // calls in all, without those that are put off
	off     []putOff // calls that are to be run again, later
}

// putOff is a call that is not to be run before its time.
type putOff struct {
	span
	until time.Time
}

// entry is a batch that an executor has taken on.
type entry struct {
	b       *Batch
	ctx     context.Context         // the batch's, or one that the executor ends too
	in      *batchContext           // of that, for functions that run in this process
	cancel  context.CancelCauseFunc // ends ctx; nil where it is the batch's
	unwatch func() bool             // stops watching ctx; nil where it does not end
	next    int                     // first call not taken
	left    int                     // calls not answered
	failed  map[int]attempts        // of calls that have failed and are run again
	out     int                     // of them, handed to workers
	cost    *cost                   // of the function's calls
}

// end counts n calls as answered. The executor's mutex is held.
func (e *entry) end(n int) {
	if e.left -= n; e.left > 0 {
		return
	}
	if e.unwatch != nil {
		e.unwatch()
	}
	if e.cancel != nil {
		e.cancel(nil)
	}
}

// newEntry takes a batch on. cancelled is called when its calls are not wanted any
// more; the executor's mutex is held meanwhile. With own the entry has a context of its
// own, for functions that run in this process.
func newEntry(b *Batch, c *cost, own bool, cancelled func(*entry)) *entry {
	e := &entry{b: b, cost: c, left: b.Len(), ctx: b.Context()}
	if own {
		e.ctx, e.cancel = context.WithCancelCause(e.ctx)
		e.in = &batchContext{e.ctx, b.calls.key(), b.first}
	}
	if e.ctx.Done() != nil {
		e.unwatch = context.AfterFunc(e.ctx, func() { cancelled(e) })
	}
	return e
}

// span is a run of calls of one batch: n of them from i on.
type span struct {
	e    *entry
	i, n int
}

// drop answers calls that are not wanted.
func (s span) drop() {
	err := canceled(s.e.ctx)
	if err == nil {
		err = context.Canceled
	}
	s.fail(0, err)
}

// fail answers the calls with an error.
func (s span) fail(pid int, err error) {
	for i := range s.n {
		s.e.b.Fail(s.i+i, pid, err)
	}
}

// split splits the calls into the first n and the others.
func (s span) split(n int) (first, rest span) {
	return span{s.e, s.i, n}, span{s.e, s.i + n, s.n - n}
}

// calls returns how many calls there are in all.
func calls(spans []span) (n int) {
	for _, s := range spans {
		n += s.n
	}
	return n
}

func (q *queue) push(e *entry) {
	if e.b.Len() > 0 {
		q.entries = append(q.entries, e)
		q.n += e.b.Len()
	}
}

// pop takes the next calls, as many as are of one batch and at most n. There are none
// if the span is empty.
func (q *queue) pop(n int) (s span) {
	if len(q.front) > 0 {
		s, q.front[0] = q.front[0].split(min(n, q.front[0].n))
		if q.front[0].n == 0 {
			q.front = q.front[1:]
		}
	} else if len(q.entries) > 0 {
		e := q.entries[0]
		s = span{e, e.next, min(n, e.b.Len()-e.next)}
		e.next += s.n
		q.trim()
	}
	q.n -= s.n
	return s
}

// peek returns the batch of the next call, or nil.
func (q *queue) peek() *entry {
	if len(q.front) > 0 {
		return q.front[0].e
	}
	if len(q.entries) > 0 {
		return q.entries[0]
	}
	return nil
}

// trim forgets batches at the front whose calls were all taken or removed.
func (q *queue) trim() {
	for len(q.entries) > 0 && q.entries[0].next == q.entries[0].b.Len() {
		q.entries[0] = nil
		q.entries = q.entries[1:]
	}
}

// unpop puts calls back to the front, in order.
func (q *queue) unpop(spans []span) {
	if len(spans) > 0 {
		q.front = append(spans[:len(spans):len(spans)], q.front...)
		q.n += calls(spans)
	}
}

// remove takes out the calls of e, but for those that came back: they are found not
// to be wanted when their turn comes.
func (q *queue) remove(e *entry) []span {
	rest := e.rest()
	q.n -= calls(rest)
	q.trim()
	q.off = slices.DeleteFunc(q.off, func(o putOff) bool {
		if o.e == e {
			rest = append(rest, o.span)
		}
		return o.e == e
	})
	return rest
}

// due puts the calls back whose time has come, and returns how long it takes until that of
// the next, or false if there is none.
func (q *queue) due() (next time.Duration, ok bool) {
	now := time.Now()
	q.off = slices.DeleteFunc(q.off, func(o putOff) bool {
		wait := o.until.Sub(now)
		if wait <= 0 {
			q.front = append(q.front, o.span)
			q.n++
			return true
		}
		if !ok || wait < next {
			next, ok = wait, true
		}
		return false
	})
	return next, ok
}

// removeAll takes out all calls.
func (q *queue) removeAll() []span {
	out := q.front
	for _, e := range q.entries {
		out = append(out, e.rest()...)
	}
	for _, o := range q.off {
		out = append(out, o.span)
	}
	*q = queue{}
	return out
}

// rest takes the calls that nobody has taken.
func (e *entry) rest() []span {
	s := span{e, e.next, e.b.Len() - e.next}
	if s.n == 0 {
		return nil
	}
	e.next = e.b.Len()
	return []span{s}
}

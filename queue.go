package multiproc

import "context"

// queue holds the calls that wait for a worker, first in, first out. Calls that
// come back from a worker that did not start them go to the front again. It is
// guarded by its owner's mutex.
type queue struct {
	front   []ref    // came back; in order
	entries []*entry // in order; the first has calls that were not taken
	n       int      // calls in all
}

// entry is a batch that an executor has taken on.
type entry struct {
	b       *Batch
	ctx     context.Context // the batch's, or ended by the executor
	cancel  context.CancelCauseFunc
	unwatch func() bool // stops watching ctx
	next    int         // first call not taken
	left    int         // calls not answered
	out     int         // of them, handed to workers
	cost    *cost       // of the function's calls
}

// end counts n calls as answered. The executor's mutex is held.
func (e *entry) end(n int) {
	if e.left -= n; e.left == 0 {
		e.unwatch()
		e.cancel(nil)
	}
}

// newEntry takes a batch on. cancelled is called when its calls are not wanted any
// more; the executor's mutex is held meanwhile.
func newEntry(b *Batch, c *cost, cancelled func(*entry)) *entry {
	e := &entry{b: b, cost: c, left: b.Len()}
	e.ctx, e.cancel = context.WithCancelCause(b.Context())
	e.unwatch = context.AfterFunc(e.ctx, func() { cancelled(e) })
	return e
}

// ref is one call of a batch.
type ref struct {
	e *entry
	i int
}

func (r ref) wanted() bool { return r.e.ctx.Err() == nil && r.e.b.Wanted(r.i) }

// drop answers a call that is not wanted.
func (r ref) drop() {
	if err := canceled(r.e.ctx); err != nil {
		r.e.b.Fail(r.i, 0, err)
		return
	}
	r.e.b.Fail(r.i, 0, context.Canceled)
}

func (q *queue) push(e *entry) {
	if e.b.Len() > 0 {
		q.entries = append(q.entries, e)
		q.n += e.b.Len()
	}
}

// pop takes the next call.
func (q *queue) pop() (r ref, ok bool) {
	if len(q.front) > 0 {
		r, q.front = q.front[0], q.front[1:]
		q.n--
		return r, true
	}
	e := q.peek()
	if e == nil {
		return r, false
	}
	r = ref{e, e.next}
	e.next++
	q.n--
	q.trim()
	return r, true
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
func (q *queue) unpop(refs []ref) {
	if len(refs) > 0 {
		q.front = append(refs[:len(refs):len(refs)], q.front...)
		q.n += len(refs)
	}
}

// remove takes out the calls of e, but for those that came back: they are found not
// to be wanted when their turn comes.
func (q *queue) remove(e *entry) (out []ref) {
	for ; e.next < e.b.Len(); e.next++ {
		out = append(out, ref{e, e.next})
	}
	q.n -= len(out)
	q.trim()
	return out
}

// removeAll takes out all calls.
func (q *queue) removeAll() []ref {
	out := q.front
	for _, e := range q.entries {
		for ; e.next < e.b.Len(); e.next++ {
			out = append(out, ref{e, e.next})
		}
	}
	*q = queue{}
	return out
}

package multiproc

import (
	"errors"
	"time"

	"github.com/seed84f35039/multiproc/internal/wire"
)

// cancel ends the calls of e that the worker has: the last ones first, so that the end
// of the one that runs does not let another begin. p.mu is held.
func (w *worker) cancel(e *entry) { w.cancelIf(func(f *flying) bool { return f.e == e }) }

func (w *worker) cancelIf(wanted func(*flying) bool) {
	for i := len(w.flight) - 1; i >= 0; i-- {
		f, id := &w.flight[i], w.first+uint64(i)
		if !wanted(f) || f.answered || !f.cancelled.IsZero() {
			continue
		}
		f.cancelled = time.Now()
		w.cancels = append(w.cancels, id)
		w.watch(w.p.cfg.KillGrace + reaction)
	}
	w.poke()
}

// send hands calls to the worker, and what else is to be said.
func (w *worker) send() {
	var buf []byte
	var calls []handed
	for {
		w.p.mu.Lock()
		ended := w.state == stateEnded
		buf = w.control(buf[:0])
		calls = w.take(calls[:0])
		if len(buf)+len(calls) == 0 {
			w.p.rebalance()
		}
		w.p.mu.Unlock()
		switch {
		case ended:
			return
		case len(buf)+len(calls) == 0:
			<-w.wake // poked by whoever changes something, and at the end
			continue
		}
		buf = w.encode(buf, calls)
		w.link.Send(buf) // if it fails the worker is gone, which receive notices
		clear(calls)
		if cap(buf) > 2*maxBatchBytes { // do not keep the memory of a large argument
			buf = nil
		}
	}
}

// control appends what is to be said besides calls. p.mu is held.
func (w *worker) control(buf []byte) []byte {
	for _, id := range w.cancels {
		if w.find(id) != nil {
			buf = appendCancel(buf, id, w.p.cfg.KillGrace)
		}
	}
	w.cancels = w.cancels[:0]
	if w.recall > 0 {
		buf = wire.Append(buf, wire.Recall, 0, wire.AppendNumber(nil, w.recall))
		w.recall = 0
	}
	if w.stopping && w.open == 0 && w.stopSent.IsZero() {
		buf = wire.Append(buf, wire.Stop, 0, wire.AppendNumber(nil, 0))
		w.stopSent = time.Now()
		w.watch(w.p.cfg.KillGrace + reaction)
		w.p.staff() // another may take its place
	}
	return buf
}

// handed is a call on its way to the worker.
type handed struct {
	ref
	id uint64
}

// take takes calls from the queue. p.mu is held.
func (w *worker) take(calls []handed) []handed {
	q := &w.p.queue
	if w.open > w.low {
		return calls
	}
	for !w.stopping && w.state == stateReady {
		e := q.peek()
		if e == nil || w.open > 0 && !w.room(e) {
			break
		}
		r, _ := q.pop()
		id := w.first + uint64(len(w.flight))
		est := time.Duration(e.cost.ran.Load())
		w.flight = append(w.flight, flying{ref: r, est: est})
		w.open++
		w.load += est
		e.out++
		calls = append(calls, handed{r, id})
		if w.served++; w.served == w.p.maxCalls {
			w.stopping = true
		}
	}
	w.low = w.open / 2
	return calls
}

// room reports whether the worker may have another call of e besides those it has.
func (w *worker) room(e *entry) bool {
	if n := e.b.Size(); n > 0 {
		return w.open < n
	}
	return w.open < e.cost.batch() && w.load+time.Duration(e.cost.ran.Load()) <= slice
}

// encode appends the frames of calls. A call that is not wanted, or whose argument
// cannot be encoded, is answered here.
func (w *worker) encode(buf []byte, calls []handed) []byte {
	for _, c := range calls {
		err := errors.New("not wanted")
		if c.wanted() {
			before := len(buf)
			buf, err = appendCall(buf, c.id, c.e.b.Func(), func(dst []byte) ([]byte, error) { return c.e.b.AppendArg(dst, c.i) })
			if err != nil {
				c.e.b.Fail(c.i, 0, err)
			}
			c.e.cost.addArgument(len(buf) - before)
			if len(buf) > maxBatchBytes {
				w.link.Send(buf)
				buf = buf[:0]
			}
		} else {
			c.drop()
		}
		if err == nil {
			continue
		}
		w.p.mu.Lock()
		if f := w.find(c.id); f != nil {
			w.land(f)
		}
		c.e.end(1)
		w.ended++
		w.p.drain.done(1)
		w.p.mu.Unlock()
	}
	return buf
}

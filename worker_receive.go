package multiproc

import (
	"fmt"
	"time"

	"github.com/seed84f35039/multiproc/internal/wire"
)

// flying is a call that a worker has.
type flying struct {
	ref
	est       time.Duration
	started   bool
	answered  bool
	cancelled time.Time // when it was, or zero
}

// find returns the call of that id, or nil if it is not, or no longer, to be
// answered. p.mu is held.
func (w *worker) find(id uint64) *flying {
	if id < w.first || id-w.first >= uint64(len(w.flight)) || w.flight[id-w.first].answered {
		return nil
	}
	return &w.flight[id-w.first]
}

// land takes the call out of flight. p.mu is held.
func (w *worker) land(f *flying) {
	f.answered = true
	f.e.out--
	w.open--
	w.load -= f.est
	n := 0
	for n < len(w.flight) && w.flight[n].answered {
		w.flight[n] = flying{}
		n++
	}
	w.flight, w.first = w.flight[n:], w.first+uint64(n)
	if w.open <= w.low {
		w.poke()
	}
}

// receive takes what the worker says until it is gone, or says what it must not.
func (w *worker) receive() error {
	p := w.p
	answered := 0 // calls that the pool has not counted yet
	count := func() {
		p.mu.Lock()
		p.drain.done(answered)
		p.mu.Unlock()
		answered = 0
	}
	defer count()
	for {
		if answered >= 64 || answered > 0 && w.link.Buffered() == 0 {
			count()
		}
		m, err := w.link.Recv()
		if err != nil {
			return err
		}
		switch m.Kind {
		case wire.Started:
			err = w.onStarted(m.ID)
		case wire.Result, wire.Failed:
			if err = w.onAnswer(m); err == nil {
				answered++
			}
		case wire.Returned:
			err = w.onReturned(m)
		default:
			err = fmt.Errorf("unexpected %s frame", m.Kind)
		}
		if err != nil {
			return err
		}
	}
}

func (w *worker) onStarted(id uint64) error {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	f := w.find(id)
	if f == nil || f.started {
		return fmt.Errorf("call %d started, which the worker does not have to start", id)
	}
	f.started, w.since = true, time.Now()
	return nil
}

func (w *worker) onAnswer(m wire.Frame) error {
	ran, body, err := wire.SplitRan(m.Body)
	if err != nil {
		return err
	}
	w.p.mu.Lock()
	f := w.find(m.ID)
	if f == nil || !f.started {
		w.p.mu.Unlock()
		return fmt.Errorf("answer to call %d, which does not run", m.ID)
	}
	r := f.ref
	w.land(f)
	w.ended++
	r.e.cost.addResult(ran, len(m.Body))
	r.e.end(1)
	w.p.mu.Unlock()
	if m.Kind == wire.Result {
		r.e.b.Return(r.i, w.link.PID(), body)
	} else {
		r.e.b.ReturnFailure(r.i, w.link.PID(), body)
	}
	return nil
}

func (w *worker) onReturned(m wire.Frame) error {
	n, err := wire.Number(m.Body)
	if err != nil {
		return err
	}
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	w.recalling = false
	var back []ref
	for id := m.ID; n > 0 && id < w.first+uint64(len(w.flight)); id, n = id+1, n-1 {
		if f := w.find(id); f != nil && !f.started {
			back = append(back, f.ref)
			w.land(f)
		}
	}
	w.p.queue.unpop(back)
	w.p.staff()
	w.p.rebalance() // it may have got more calls in the meantime, which could not be asked back
	return nil
}

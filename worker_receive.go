package multiproc

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/seed84f35039/multiproc/internal/wire"
)

// flying is calls that a worker has, of consecutive ids.
type flying struct {
	span
	id        uint64        // of the first
	est       time.Duration // how long each of them will take, as far as is known
	cancelled time.Time     // when they were, or zero
}

// land takes the calls from id on out of flight, at most n and as many as were handed
// over together. It returns none if the call of that id is not in flight. p.mu is held.
func (w *worker) land(id uint64, n int) span {
	at := w.find(id)
	if at < 0 {
		return span{}
	}
	f := &w.flight[at]
	before, rest := f.split(int(id - f.id))
	s, after := rest.split(min(n, rest.n))
	s.e.out -= s.n
	w.open -= s.n
	w.load -= f.est * time.Duration(s.n)
	tail := flying{after, id + uint64(s.n), f.est, f.cancelled}
	switch {
	case before.n > 0 && after.n > 0:
		f.span = before
		w.flight = slices.Insert(w.flight, at+1, tail)
	case before.n > 0:
		f.span = before
	case after.n > 0:
		*f = tail
	default:
		w.flight = slices.Delete(w.flight, at, at+1)
	}
	return s
}

// find returns where in flight the call is, or -1. p.mu is held.
func (w *worker) find(id uint64) int {
	for i, f := range w.flight {
		if id >= f.id && id-f.id < uint64(f.n) {
			return i
		}
	}
	return -1
}

// incoming is what a worker says. Whoever holds mu may take it: the worker's receive,
// or a caller that waits for an answer.
type incoming struct {
	mu      sync.Mutex
	broken  error    // what it said that it must not
	running uint64   // the call that it runs, or 0
	answers []answer // that were not passed on
	landed  []span   // scratch of pass
	results [][]byte // likewise
}

// answer is the answer to a call.
type answer struct {
	id     uint64
	failed bool
	ran    time.Duration
	body   []byte
}

// A worker that answers calls which take less than lazily is not asked to wake its
// parent for each: it does when quorum bytes are there or when it has no more calls.
// As it may come to a longer call, the parent looks after nap.
const (
	lazily = 5 * time.Microsecond
	quorum = 8 << 10
	nap    = time.Millisecond
)

// receive takes what the worker says until it is gone, or says what it must not.
func (w *worker) receive() error {
	for lazy := false; ; {
		w.in.mu.Lock()
		more, err := w.take(0, lazy)
		w.in.mu.Unlock()
		if err != nil {
			return err
		}
		if more {
			lazy = w.dispatch()
			continue
		}
		limit := time.Duration(0)
		if lazy {
			limit = nap
		}
		lazy = false
		if err := w.link.Wait(limit); err != nil {
			return err
		}
	}
}

// take takes what the worker has said, and reports whether that was anything. It looks
// out for it as long as spin says. w.in.mu is held.
func (w *worker) take(spin time.Duration, lazy bool) (more bool, err error) {
	if w.in.broken != nil {
		return false, w.in.broken
	}
	enough := 1
	if lazy {
		enough = quorum
	}
	if more, err = w.link.Poll(spin, enough); err != nil {
		return false, err
	}
	for {
		m, ok, err := w.link.Next()
		if ok {
			err = w.on(m)
		}
		if !ok || err != nil {
			if e := w.pass(); err == nil {
				err = e
			}
			w.in.broken = err
			return more, err
		}
	}
}

// on takes a frame.
func (w *worker) on(m wire.Frame) error {
	switch m.Kind {
	case wire.Started:
		if m.ID == 0 || w.in.running != 0 {
			return fmt.Errorf("call %d started while call %d runs", m.ID, w.in.running)
		}
		w.in.running = m.ID
		return nil
	case wire.Result, wire.Failed:
		if m.ID != w.in.running || m.ID == 0 {
			return fmt.Errorf("answer to call %d, which does not run", m.ID)
		}
		ran, body, err := wire.SplitRan(m.Body)
		if err != nil {
			return err
		}
		w.in.running = 0
		w.in.answers = append(w.in.answers, answer{m.ID, m.Kind == wire.Failed, ran, body})
		return nil
	case wire.Returned:
		if err := w.pass(); err != nil {
			return err
		}
		return w.onReturned(m)
	}
	return fmt.Errorf("unexpected %s frame", m.Kind)
}

// pass passes the answers on that have been taken.
func (w *worker) pass() (err error) {
	answers, landed := w.in.answers, w.in.landed[:0]
	w.p.mu.Lock()
	for k := 0; k < len(answers) && err == nil; {
		n := 1
		for k+n < len(answers) && answers[k+n].id == answers[k].id+uint64(n) {
			n++
		}
		s := w.land(answers[k].id, n)
		if s.n == 0 {
			err = fmt.Errorf("answer to call %d, which the worker does not have", answers[k].id)
			answers = answers[:k]
			break
		}
		landed = append(landed, s)
		k += s.n
	}
	if w.in.running != 0 && err == nil {
		if w.find(w.in.running) < 0 {
			err = fmt.Errorf("call %d started, which the worker does not have to start", w.in.running)
		}
		w.since = time.Now()
	}
	w.ended += len(answers)
	w.p.mu.Unlock()

	if len(answers) > 0 {
		for k, i := 0, 0; i < len(landed); i++ {
			w.hand(landed[i], answers[k:k+landed[i].n])
			k += landed[i].n
		}
		w.p.mu.Lock()
		for _, s := range landed {
			s.e.end(s.n)
		}
		w.p.drain.done(len(answers))
		w.p.mu.Unlock()
	}
	clear(w.in.answers)
	clear(landed)
	w.in.answers, w.in.landed = w.in.answers[:0], landed
	return err
}

// hand gives answers to the callers.
func (w *worker) hand(s span, answers []answer) {
	var ran time.Duration
	bytes := 0
	for k := 0; k < len(answers); {
		a := answers[k]
		if a.failed {
			s.e.b.ReturnFailure(s.i+k, w.link.PID(), a.body)
			ran, bytes = ran+a.ran, bytes+len(a.body)
			k++
			continue
		}
		first, results := k, w.in.results[:0]
		for ; k < len(answers) && !answers[k].failed; k++ {
			results = append(results, answers[k].body)
			ran, bytes = ran+answers[k].ran, bytes+len(answers[k].body)
		}
		s.e.b.Return(s.i+first, w.link.PID(), results...)
		clear(results)
		w.in.results = results
	}
	s.e.cost.addResults(s.n, ran, bytes)
}

func (w *worker) onReturned(m wire.Frame) error {
	n, err := wire.Number(m.Body)
	if err != nil {
		return err
	}
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	w.recalling = false
	var back []span
	id, end := m.ID, min(m.ID+uint64(n), w.next)
	if len(w.flight) > 0 {
		id = max(id, w.flight[0].id)
	}
	for id < end && len(w.flight) > 0 {
		most := end - id
		switch running := w.in.running; {
		case id == running:
			id++
			continue
		case id < running:
			most = min(most, running-id)
		}
		s := w.land(id, int(most))
		if s.n > 0 {
			back = append(back, s)
		}
		id += uint64(max(s.n, 1))
	}
	w.p.queue.unpop(back)
	w.p.staff()
	w.p.rebalance() // it may have got more calls in the meantime, which could not be asked back
	return nil
}

package multiproc

import (
	"context"
	"time"

	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// runMany is run for a worker that runs several calls at once, each on a goroutine of its
// own.
func (s *server) runMany() {
	slots := make(chan struct{}, s.cfg.concurrency)
	for {
		select {
		case slots <- struct{}{}:
		case <-s.base.Done():
			return
		}
		r := s.claimAny()
		if r == nil {
			return
		}
		go func() { // ends with the call; nobody waits, as the process ends without
			defer func() { <-slots }()
			s.runOne(r)
		}()
	}
}

// claimAny waits for a call and starts it; its context is there then. It returns nil when
// the worker is to end.
func (s *server) claimAny() *runner {
	for {
		s.mu.Lock()
		for len(s.queue) > 0 {
			w := s.queue[0]
			if s.runner.work != w {
				s.runner.work, s.runner.rest = w, w.args
			}
			if s.claimInto(w) {
				r := s.runner
				s.running[r.id] = &r
				s.mu.Unlock()
				return &r
			}
			s.queue[0] = nil
			s.queue = s.queue[1:]
		}
		if len(s.running) == 0 && s.unsent == 0 {
			s.leave()
		}
		s.mu.Unlock()
		select {
		case <-s.more:
		case <-s.base.Done():
			return nil
		}
	}
}

// claimInto starts the next call of w, which is described by s.runner, unless there is
// none. s.mu is held.
func (s *server) claimInto(w *work) bool {
	i, ok := w.claim()
	if !ok {
		return false
	}
	r := &s.runner
	r.id, r.began = w.id+uint64(i), time.Now()
	inner := &innerContext{}
	inner.Context, inner.stop = context.WithCancel(s.base)
	r.ctx = &callContext{id: r.id, from: w.from}
	r.ctx.inner.Store(inner)
	if w.lone {
		r.arg = r.rest
	} else {
		r.arg, r.rest, _ = wire.SplitArg(r.rest) // cannot fail: they were counted
	}
	return true
}

// runOne runs a call and answers it.
func (s *server) runOne(r *runner) {
	ended := false
	defer func() {
		if !ended { // the function called runtime.Goexit
			r.buf, r.tail = appendFailed(r.buf[:0], r.id, 0, &wire.Failure{Cause: wire.CausePanic, Type: "nil", Message: goexit}), nil
			s.answerOne(r)
		}
	}()
	if err := s.conn.Send(wire.Append(nil, wire.Started, r.id, nil), nil, transport.Soon); err != nil {
		ended = true
		s.mute(err)
		return
	}
	if limit := s.cfg.timeout; limit > 0 && r.id != 0 { // setup and teardown have no limit
		s.mu.Lock()
		r.began = time.Now()
		r.ctx.limit(r.began.Add(limit))
		timer := time.AfterFunc(limit, func() { s.exceedOne(r) })
		s.mu.Unlock()
		defer timer.Stop()
	}
	s.call(r)
	ended = true
	s.answerOne(r)
}

// answerOne sends the answer of a call.
func (s *server) answerOne(r *runner) {
	r.ctx.cancel()
	s.mu.Lock()
	delete(s.running, r.id)
	s.unsent++
	s.mu.Unlock()
	wire.PutRan(r.buf, 0, max(time.Since(r.began), 1))
	if !r.answering {
		s.answering.Lock()
	}
	err := s.conn.Send(r.buf, r.tail, transport.Now)
	s.answering.Unlock()
	r.bag.drop()
	if err != nil {
		s.mute(err)
	}
	s.mu.Lock()
	s.unsent--
	s.mu.Unlock()
	select { // for leave
	case s.more <- struct{}{}:
	default:
	}
}

// exceedOne tells the parent that a call has exceeded its limit, and ends the worker if it
// goes on for longer than the grace.
func (s *server) exceedOne(r *runner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[r.id] != r {
		return
	}
	// The answer cannot overtake this. If it fails the parent is gone.
	s.conn.Send(wire.Append(nil, wire.Exceeded, r.id, wire.AppendNumber(nil, exceededTime)), nil, transport.Urgent)
	s.killLater(s.cfg.grace, func() bool { return s.running[r.id] == r })
}

// stopMany ends the contexts of those of n calls from id on that run, and sees to it that
// they end within the grace. s.mu is held.
func (s *server) stopMany(id uint64, n int, grace time.Duration) {
	for at, r := range s.running {
		if at < id || at-id >= uint64(n) {
			continue
		}
		r.ctx.cancel()
		s.killLater(grace, func() bool { return s.running[at] == r })
	}
}

// leave ends the worker if its parent has said that it is to end when it has nothing left
// to do. s.mu is held.
func (s *server) leave() {
	if s.leaving == nil || len(s.queue) > 0 {
		return
	}
	select {
	case s.over <- *s.leaving:
	default:
	}
}

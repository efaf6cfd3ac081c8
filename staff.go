package multiproc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/seed84f35039/multiproc/internal/child"
	"github.com/seed84f35039/multiproc/internal/handover"
	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// staff sees to it that the calls that wait have workers. p.mu is held.
func (p *Pool) staff() { p.staffBut(nil) }

// staffBut is staff, but worker self is served by the caller.
func (p *Pool) staffBut(self *worker) {
	live, coming := 0, 0 // workers that take calls, and those of them that soon will
	leaving := 0         // workers that have ended, or been told to; if these get too many, they count as live
	back := 0            // calls that come back from those that have ended
	for w := range p.workers {
		if w.state == stateEnded {
			back += max(0, w.open-1)
		}
		switch {
		case w.state == stateEnded || w.stopping && w.open == 0:
			if leaving++; leaving <= p.cfg.Workers {
				continue
			}
		case w.stands():
			continue
		case w.state == stateStarting:
			coming++
		case w.open == 0:
			coming++
			if p.queue.n > 0 && w != self {
				w.poke()
			}
		case w.open < p.cfg.Concurrency && p.queue.n > 0:
			w.poke()
		}
		live++
	}
	if p.failures > 0 && coming > 0 {
		return // one at a time, until one works
	}
	for need := p.queue.n + back - coming; need > 0 && live < p.cfg.Workers && !p.dead; need-- {
		if wait := time.Until(p.notUntil); wait > 0 {
			p.later(&p.retry, wait, p.staff)
			return
		}
		p.hire()
		live++
	}
}

// later calls f, with p.mu held, after a while, unless timer is set for it already.
func (p *Pool) later(timer **time.Timer, wait time.Duration, f func()) {
	if *timer != nil || p.dead {
		return
	}
	*timer = time.AfterFunc(wait, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		*timer = nil
		f()
	})
}

// announce tells Start that a worker has become ready or has ended. p.mu is held.
func (p *Pool) announce() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// When workers keep ending before they have run anything, the pause before the next
// doubles from firstPause to lastPause, and after maxFailures of them in a row the
// calls that wait fail.
const (
	maxFailures = 3
	firstPause  = 10 * time.Millisecond
	lastPause   = time.Second
)

// failed notes that a worker has ended without ending a call, and returns the calls
// that are to fail for it. p.mu is held.
func (p *Pool) failed(err error) []span {
	if time.Now().Before(p.notUntil) {
		return nil // one of several that were started together: they count once
	}
	p.failures++
	p.notUntil = time.Now().Add(min(firstPause<<min(p.failures-1, 10), lastPause))
	if p.failures < maxFailures {
		return nil
	}
	for w := range p.workers {
		if w.state == stateReady {
			return nil // it will run what waits
		}
	}
	p.failures, p.notUntil = 0, time.Time{}
	return p.queue.removeAll()
}

// A worker that has nothing to do takes calls from one that has not started them,
// when those are worth the way: they make this much work, or the call before them
// has run for so long.
const (
	worthWork = 500 * time.Microsecond
	worthWait = time.Millisecond
)

// rebalance asks a worker that has more calls than it runs for half of the others,
// if there is a worker without any; if there could be one, it is hired. p.mu is
// held.
func (p *Pool) rebalance() {
	if p.queue.n > 0 || p.dead {
		return
	}
	idle, victim, most, live := false, (*worker)(nil), 0, 0
	for w := range p.workers {
		if w.stopping && w.open == 0 || w.state == stateEnded || w.stands() {
			continue
		}
		if live++; w.state == stateStarting {
			return // it will come here when it is ready
		}
		if w.open == 0 {
			idle = true
		} else if n := w.open - p.cfg.Concurrency; n > most && !w.recalling && w.next != w.barren {
			victim, most = w, n
		}
	}
	vacant := live < p.cfg.Workers
	if victim == nil || !idle && !vacant {
		return
	}
	if wait := time.Until(p.notUntil); !idle && wait > 0 {
		p.later(&p.balance, wait, p.rebalance)
		return
	}
	work := victim.load / time.Duration(victim.open) * time.Duration(most)
	if work < worthWork && time.Since(victim.since) < worthWait {
		p.later(&p.balance, worthWait, p.rebalance)
		return
	}
	if !idle {
		p.hire() // comes here when it is ready
		return
	}
	victim.recall, victim.recalling = (most+1)/2, true
	victim.poke()
}

// prepare waits for a new worker's greeting and has it run the setup function.
func prepare(l link, setup *Setup, timeout time.Duration, logger *slog.Logger) error {
	if err := greet(l, timeout); err != nil {
		return err
	}
	if setup == nil {
		return nil
	}
	return runSetup(l, setup, logger)
}

// runSetup has a worker make a call before any other.
func runSetup(l link, setup *Setup, logger *slog.Logger) error {
	var parcel handover.Parcel
	defer parcel.Release()
	buf, err := singleCall(0, setup.name, setup.encode, &parcel)
	if err == nil {
		buf, err = ship(l, &parcel, buf)
	}
	if err != nil {
		return fmt.Errorf("setup %s: %w", setup.name, err)
	}
	if err := l.Send(buf, nil, transport.Now); err != nil {
		return &setupDied{setup.name, err}
	}
	for {
		m, err := transport.Recv(l)
		if err != nil {
			return &setupDied{setup.name, err}
		}
		switch m.Kind {
		case wire.Started:
		case wire.Log:
			if err := forward(context.Background(), logger, &m, CallInfo{Func: setup.name, Index: -1, PID: l.PID()}); err != nil {
				return err
			}
		case wire.Handover: // the result is dropped
			takeIn(l, m).Done(1)
		case wire.Result:
			return nil
		case wire.Failed:
			_, body, err := wire.SplitRan(m.Body)
			if err != nil {
				return err
			}
			f, err := wire.DecodeFailure(body)
			if err != nil {
				return err
			}
			return fmt.Errorf("setup: %w", errorFrom(CallInfo{Func: setup.name, Index: -1, PID: l.PID()}, f, nil))
		default:
			return fmt.Errorf("unexpected %s frame during setup", m.Kind)
		}
	}
}

// setupDied is the end of a worker during its setup.
type setupDied struct {
	name string
	err  error
}

func (e *setupDied) Error() string { return fmt.Sprintf("setup %s: %v", e.name, e.err) }

// refine adds to an error of prepare how the worker, which was pid, ended.
func refine(err error, pid int, ended child.Ended) error {
	var died *setupDied
	c := crash(ended, "")
	c.PID = pid
	switch {
	case errors.Is(err, errNoHello):
		c.Func = "start"
		return advise(fmt.Errorf("%w: %w", err, c))
	case errors.As(err, &died):
		c.Func = died.name
		return advise(fmt.Errorf("setup: %w", c))
	}
	return err
}

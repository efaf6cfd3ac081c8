package multiproc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Shutdown implements [Executor]. The calls that ctx leaves no time for have their
// contexts cancelled and their workers killed.
func (p *Pool) Shutdown(ctx context.Context) error { return p.shutdown(ctx, 0, false) }

// Close implements [Executor]: it waits until every call has ended, but not for
// longer than KillGrace after the last one did. What still runs then is killed and
// gets ErrClosed, and Close returns an error that says how many there were.
func (p *Pool) Close() error { return p.shutdown(context.Background(), p.cfg.KillGrace, false) }

// Stop is Shutdown for somebody who cannot wait for what has not begun: calls that no worker
// runs get ErrClosed at once, those that run are waited for as by Shutdown.
func (p *Pool) Stop(ctx context.Context) error {
	if ctx == nil {
		return errors.New("multiproc: Stop: the context is nil; pass context.Background()")
	}
	p.mu.Lock()
	p.stopped = true
	p.retries.end()
	queued := p.queue.removeAll()
	for w := range p.workers {
		w.recall = w.open
		w.poke()
	}
	p.mu.Unlock()
	p.answer(queued, func(s span) { s.fail(0, ErrClosed) })
	return p.shutdown(ctx, 0, true)
}

// Kill ends everything at once: all calls get ErrClosed, all workers are killed. It
// also cuts short a Close or Shutdown that waits. It returns when no worker is left.
func (p *Pool) Kill() {
	p.mu.Lock()
	p.drain.hurryUp()
	p.mu.Unlock()
	p.shutdown(context.Background(), 0, false)
}

// closed is why workers are killed by Close, Shutdown and Kill.
const closed = "killed by multiproc: the pool was closed"

// softGrace is how long calls that Close or Shutdown gave up on have to see that
// their contexts ended.
const softGrace = 200 * time.Millisecond

func (p *Pool) shutdown(ctx context.Context, stall time.Duration, insist bool) error {
	if ctx == nil {
		return errors.New("multiproc: Shutdown: the context is nil; pass context.Background()")
	}
	return p.drain.run(ctx, &p.mu, stall, insist, func(cause error) error {
		p.mu.Lock()
		queued := p.queue.removeAll()
		p.dead, p.gone = true, make(chan struct{})
		p.stopTimers()
		p.retries.end()
		var running []span
		for w := range p.workers {
			for _, f := range w.flight {
				running = append(running, f.span)
			}
		}
		p.mu.Unlock()
		if cause != nil {
			giveUp(slices.Concat(running, queued), p.cancelAll)
			p.answer(queued, func(span) {})
		}
		p.spares.Close()
		p.dismiss(cause)
		switch {
		case cause == nil || errors.Is(cause, ErrClosed):
			return nil
		case errors.Is(cause, errStalled):
			return fmt.Errorf("multiproc: close: no call ended for %v; %d running and %d waiting calls were given up", stall, calls(running), calls(queued))
		}
		return fmt.Errorf("multiproc: shutdown: %w", cause)
	})
}

// cancelAll cancels all calls that workers have.
func (p *Pool) cancelAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.workers {
		w.cancelIf(func(*flying) bool { return true })
	}
}

// dismiss ends all workers and waits until they are gone: at once when they have
// been idle, otherwise after softGrace.
func (p *Pool) dismiss(cause error) {
	grace := p.cfg.KillGrace
	if errors.Is(cause, ErrClosed) {
		grace = 0
	} else if cause != nil {
		grace = softGrace
	}
	p.mu.Lock()
	for w := range p.workers {
		if w.state == stateStarting || grace == 0 {
			w.kill(closed)
		} else {
			w.stop()
		}
	}
	p.checkGone()
	p.mu.Unlock()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.gone:
		return
	case <-timer.C:
	case <-p.drain.hurry:
	}
	p.mu.Lock()
	for w := range p.workers {
		w.kill(closed)
	}
	p.mu.Unlock()
	<-p.gone // bounded: killed processes are waited for with a limit
}

// checkGone closes gone when it is time. p.mu is held.
func (p *Pool) checkGone() {
	if !p.dead || len(p.workers) > 0 || p.settling > 0 {
		return
	}
	select {
	case <-p.gone:
	default:
		close(p.gone)
	}
}

func (p *Pool) stopTimers() {
	for _, t := range []*time.Timer{p.retry, p.balance, p.pulse, p.care} {
		if t != nil {
			t.Stop()
		}
	}
}

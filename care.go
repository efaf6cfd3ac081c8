package multiproc

import (
	"time"

	"github.com/seed84f35039/multiproc/internal/child"
)

// beatLater has the workers that have calls asked for a sign of life after a while. p.mu is
// held.
func (p *Pool) beatLater() {
	if p.cfg.Heartbeat > 0 {
		p.later(&p.pulse, p.cfg.Heartbeat, p.beat)
	}
}

// beat asks them. p.mu is held.
func (p *Pool) beat() {
	for w := range p.workers {
		if w.state != stateReady || w.open == 0 {
			continue
		}
		if w.pinged.IsZero() {
			w.ping, w.pinged = true, time.Now()
			w.poke()
			w.watch(w.patience())
		}
		p.beatLater()
	}
}

// patience is how long a sign of life may take.
func (w *worker) patience() time.Duration { return 3 * w.p.cfg.Heartbeat }

// lookEvery is how often the memory of workers is looked at.
const lookEvery = 100 * time.Millisecond

// lookAfter has the workers looked at when one of them may be due to be replaced or not
// needed any more. p.mu is held.
func (p *Pool) lookAfter() {
	if p.cfg.MaxAge == 0 && p.cfg.MaxRSS == 0 && p.cfg.IdleTimeout == 0 {
		return
	}
	wait := time.Duration(-1)
	soonest := func(d time.Duration) {
		if d = max(d, 0); wait < 0 || d < wait {
			wait = d
		}
	}
	for w := range p.workers {
		if w.state != stateReady || w.stopping || w.old || w.stands() {
			continue
		}
		if p.cfg.MaxAge > 0 {
			if p.cfg.MaxTasks != 1 || w.open == 0 {
				soonest(max(p.cfg.MaxAge-time.Since(w.born), time.Until(w.heirless)))
			}
		}
		if p.cfg.MaxRSS > 0 && w.needsLook {
			soonest(max(lookEvery, time.Until(w.heirless)))
		}
		if p.cfg.IdleTimeout > 0 && w.open == 0 {
			soonest(p.cfg.IdleTimeout - time.Since(w.rested))
		} else if p.cfg.IdleTimeout > 0 {
			soonest(p.cfg.IdleTimeout)
		}
	}
	if wait < 0 {
		return
	}
	due := time.Now().Add(wait)
	if p.care != nil && due.Before(p.careDue) && p.care.Stop() {
		p.care = nil // it was to come later
	}
	if p.care == nil {
		p.careDue = due
		p.later(&p.care, wait, p.look)
	}
}

// look replaces the workers that are due. p.mu is held, but not all the time.
func (p *Pool) look() {
	var heavy map[*worker]bool
	if p.cfg.MaxRSS > 0 {
		heavy = p.heavy()
	}
	for w := range p.workers {
		if w.state != stateReady || w.stopping || w.old || w.stands() {
			continue
		}
		switch {
		case p.cfg.IdleTimeout > 0 && w.open == 0 && time.Since(w.rested) >= p.cfg.IdleTimeout:
			w.stop()
		case time.Until(w.heirless) > 0: // later
		case p.cfg.MaxAge > 0 && time.Since(w.born) >= p.cfg.MaxAge, heavy[w]:
			if p.cfg.MaxTasks == 1 { // it ends with its call
				if w.open == 0 {
					w.stop()
				}
				continue
			}
			w.old = true
			if p.succeed(w); w.heir != nil && w.heir.state == stateReady {
				w.retire()
			}
		}
	}
	p.lookAfter()
}

// heavy returns the workers that use more memory than MaxRSS. p.mu is held, but not while
// that is looked up.
func (p *Pool) heavy() map[*worker]bool {
	pids := map[*worker]int{}
	for w := range p.workers {
		if w.state == stateReady && w.needsLook && time.Until(w.heirless) <= 0 {
			w.needsLook = w.open > 0
			pids[w] = w.link.PID()
		}
	}
	p.mu.Unlock()
	defer p.mu.Lock()
	heavy := map[*worker]bool{}
	for w, pid := range pids {
		if u, err := child.UsageOf(pid); err == nil && u.RSS > p.cfg.MaxRSS {
			heavy[w] = true
		}
	}
	return heavy
}

// succeed hires a worker that takes the place of w when w has ended its calls, so that
// nobody has to wait for its start. p.mu is held.
func (p *Pool) succeed(w *worker) {
	if w.heir != nil || p.dead || p.stopped || p.cfg.MaxTasks == 1 || time.Until(w.heirless) > 0 {
		return
	}
	w.heir = p.hire()
	w.heir.after = w
}

// heirPause is how long it takes until it is tried again to replace a worker whose heir has
// not become ready.
const heirPause = 5 * time.Second

// disinherit has the worker go on, as the heir that it had is not to be. p.mu is held.
func (w *worker) disinherit() {
	w.old, w.needsLook, w.heirless = false, w.needsLook || w.old, time.Now().Add(heirPause)
}

// retire ends the worker as soon as its calls have ended that it has begun. The others are
// for its heir. p.mu is held.
func (w *worker) retire() {
	if n := w.open - w.p.cfg.Concurrency; n > 0 && !w.recalling {
		w.recall, w.recalling = n, true
	}
	w.stop()
}

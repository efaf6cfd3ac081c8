package multiproc

import (
	"fmt"
	"time"

	"github.com/seed84f35039/multiproc/internal/transport"
)

// reaction is how much longer than KillGrace a worker may take to do what it was
// told, before it is taken to be stopped or stuck. The worker itself sees to it that
// a call ends in time, and knows better than its parent which one it runs.
const reaction = 250*time.Millisecond + termGrace

// termGrace is how long what a worker has started has to end after SIGTERM, when the worker
// is going to be killed with all of it.
const termGrace = 250 * time.Millisecond

// watch looks after a while whether the worker has done what it was told, in what it has
// said by then: a slow parent is not the worker's fault. p.mu is held.
func (w *worker) watch(wait time.Duration) {
	at := time.Now().Add(wait)
	if w.overdue != nil {
		if at.Before(w.lookAt) {
			w.lookAt = at
			w.overdue.Reset(wait)
		}
		return
	}
	w.lookAt = at
	w.watches++
	which := w.watches
	w.overdue = time.AfterFunc(wait, func() { w.judge(which) })
}

// judge looks whether the worker has done what it was told. It is what the timer
// of the watch of that number is for; receive does it, with 0, where a worker talks so much that nobody else gets to hear it.
func (w *worker) judge(which uint64) {
	heard, more := w.hear()
	taken := w.in.taken.Load()
	w.p.mu.Lock()
	if which != 0 {
		if w.overdue == nil || w.watches != which {
			w.p.mu.Unlock()
			return
		}
		w.overdue = nil
	}
	next := reaction
	switch {
	case heard:
		w.unheard = time.Time{}
		next = w.checkOverdue()
	case w.unheard.IsZero() || taken != w.takenThen: // somebody hears it
		w.unheard, w.takenThen = time.Now(), taken
	case time.Since(w.unheard) >= heldUp:
		w.kill(fmt.Sprintf("killed by multiproc: it was not heard for %v, in which the decoding of a result or the handling of a log record went on", heldUp))
		next = 0
	}
	w.in.due.Store(!heard)
	if next > 0 {
		w.watch(next)
	}
	w.p.mu.Unlock()
	if more {
		w.catchUp() // receive has not been asked to be woken
	}
}

// heldUp is how long what a worker says may wait for the parent, which decodes a result of its
// or handles what it has logged. Until then the worker is given the benefit of the doubt.
const heldUp = time.Minute

// hearings is how often what a worker has said is taken before it is killed: enough for
// all that can be on its way, and no more, or it could talk for ever.
const hearings = 8

// hear takes what the worker has said, unless somebody is doing that, which may be held up by
// the decoding of a result. It reports whether it did, and whether there may be more.
func (w *worker) hear() (heard, more bool) {
	if !w.in.mu.TryLock() {
		return false, false
	}
	defer w.in.mu.Unlock()
	more = true
	for n := 0; more && n < hearings; n++ {
		more = w.takeOver(0)
	}
	w.in.traffic = transport.TrafficOf(w.link)
	return true, more
}

// checkOverdue kills the worker if it has not done what it was told, and returns when
// to look again, or 0. p.mu is held.
func (w *worker) checkOverdue() (next time.Duration) {
	// While something large is under way, in either direction, nothing else gets through.
	traffic := w.in.traffic
	if (traffic.Partial || traffic.Sending) && traffic.Moved != w.moved {
		w.movedAt = time.Now()
	}
	w.moved = traffic.Moved
	look := func(since time.Time, limit time.Duration, what string) {
		if since.Before(w.movedAt) {
			since = w.movedAt
		}
		switch left := limit - time.Since(since); {
		case left <= 0:
			w.kill(fmt.Sprintf("killed by multiproc: it did not %s within %v", what, limit))
		case next == 0 || left < next:
			next = left
		}
	}
	later := func() {
		if next == 0 || reaction < next {
			next = reaction
		}
	}
	for _, f := range w.flight {
		switch limit := w.p.cfg.KillGrace + reaction; {
		case f.cancelled.IsZero():
		case !f.told.IsZero():
			look(f.told, limit, "react to a cancellation")
		case f.id >= w.out.said.Load() || w.out.encoding.Load():
			later() // it has not been told, which is not its fault
		default:
			look(f.cancelled, limit, "react to a cancellation")
		}
	}
	if !w.stopSent.IsZero() {
		look(w.stopSent, w.p.cfg.KillGrace+reaction, "stop")
	}
	switch {
	case w.pinged.IsZero():
	case w.ping && w.out.encoding.Load():
		later()
	default:
		look(w.pinged, w.patience(), "give a sign of life")
	}
	if w.p.cfg.CallTimeout > 0 && w.killed == "" {
		check := func(id uint64, began time.Time) {
			if look(began, w.callLimit(), "end a call"); w.killed != "" && time.Since(began) >= w.callLimit() {
				if w.late == nil {
					w.late = map[uint64]bool{}
				}
				w.late[id] = true
			}
		}
		if w.in.known != 0 {
			check(w.in.known, w.since)
		}
		for id, began := range w.began {
			check(id, began)
		}
	}
	for _, at := range w.overtime {
		look(at, w.p.cfg.KillGrace+reaction, "end a call that has exceeded a limit")
	}
	if w.state == stateEnded || w.killed != "" {
		return 0
	}
	return next
}

// callLimit is how long after the start of a call it is clear that the worker does not see
// to its limit.
func (w *worker) callLimit() time.Duration {
	return w.p.cfg.CallTimeout + w.p.cfg.KillGrace + reaction
}

package multiproc

import (
	"sync/atomic"
	"time"

	"github.com/seed84f35039/multiproc/internal/child"
	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// limiter ends calls that exceed the limits of a worker that runs one call at a time. It
// costs a call two readings of the clock; its timers sleep while no call runs.
type limiter struct {
	s      *server
	id     atomic.Uint64 // of the call that runs; 0: none
	since  atomic.Int64  // when it began, in nanoseconds since epoch
	rounds []*round

	// Guarded by s.mu.
	exceeded uint64        // a call that has been told
	cpuID    uint64        // a call
	cpuBase  time.Duration // the CPU time of the process when that was seen first
}

// round is one of the limiter's timers.
type round struct {
	timer  *time.Timer
	asleep atomic.Bool
	first  time.Duration
}

// epoch is where the limiter's clock begins.
var epoch = time.Now()

// newLimiter returns nil where there is no limit.
func newLimiter(s *server) *limiter {
	if !s.cfg.limited() || s.cfg.concurrency > 1 {
		return nil
	}
	l := &limiter{s: s}
	if s.cfg.timeout > 0 {
		l.add(s.cfg.timeout, l.checkTime)
	}
	if s.cfg.cpuTime > 0 {
		l.add(min(max(s.cfg.cpuTime/10, 10*time.Millisecond), time.Second), l.checkCPU)
	}
	return l
}

// add adds a timer. check looks at the call that runs, and returns when to look again, or 0
// if none runs; s.mu is held.
func (l *limiter) add(first time.Duration, check func(id uint64, since time.Time) time.Duration) {
	r := &round{first: first}
	r.asleep.Store(true)
	r.timer = time.AfterFunc(time.Hour, func() {
		l.s.mu.Lock()
		defer l.s.mu.Unlock()
		id := l.id.Load()
		since := epoch.Add(time.Duration(l.since.Load()))
		if id != l.id.Load() { // since is that of the next call
			r.timer.Reset(r.first)
			return
		}
		if next := check(id, since); next > 0 {
			r.timer.Reset(next)
			return
		}
		r.asleep.Store(true)
		if l.id.Load() != 0 { // a call has begun and found it awake
			r.wake()
		}
	})
	r.timer.Stop()
	l.rounds = append(l.rounds, r)
}

func (r *round) wake() {
	if r.asleep.Load() && r.asleep.CompareAndSwap(true, false) {
		r.timer.Reset(r.first)
	}
}

// next notes that the call that ran has ended, and whether another begins.
func (l *limiter) next(begins bool, id uint64) {
	l.id.Store(0)
	if !begins {
		return
	}
	l.since.Store(int64(time.Since(epoch)))
	if l.id.Store(id); id == 0 { // setup and teardown have no limit
		return
	}
	for _, r := range l.rounds {
		r.wake()
	}
}

// stop stops the timers.
func (l *limiter) stop() {
	for _, r := range l.rounds {
		r.timer.Stop()
	}
}

// deadline returns when the context of the call that runs is to end, if there is a time.
func (l *limiter) deadline() (t time.Time, ok bool) {
	if l == nil || l.s.cfg.timeout == 0 || l.id.Load() == 0 {
		return time.Time{}, false
	}
	return epoch.Add(time.Duration(l.since.Load())).Add(l.s.cfg.timeout), true
}

func (l *limiter) checkTime(id uint64, since time.Time) time.Duration {
	limit := l.s.cfg.timeout
	switch left := limit - time.Since(since); {
	case id == 0:
		return 0
	case left > 0:
		return left
	}
	l.exceeds(id, exceededTime)
	return limit
}

func (l *limiter) checkCPU(id uint64, _ time.Time) time.Duration {
	if id == 0 {
		return 0
	}
	now := child.SelfCPU()
	if id != l.cpuID {
		l.cpuID, l.cpuBase = id, now
	}
	if now-l.cpuBase >= l.s.cfg.cpuTime {
		l.exceeds(id, exceededCPU)
	}
	return l.rounds[len(l.rounds)-1].first
}

// What an Exceeded frame says was exceeded.
const (
	exceededTime = 0
	exceededCPU  = 1
)

// exceeds tells the parent that the call has exceeded a limit, ends its context, and the
// worker if the call goes on for longer than the grace. s.mu is held.
func (l *limiter) exceeds(id uint64, what int) {
	s := l.s
	w := s.now
	if w == nil || id < w.id || l.exceeded == id {
		return
	}
	next := int(id-w.id) + 1
	if !w.hold(next) { // it has ended
		return
	}
	l.exceeded = id
	// The answer cannot overtake this, as the next call cannot be claimed meanwhile. If it
	// fails the parent is gone.
	s.conn.Send(wire.Append(nil, wire.Exceeded, id, wire.AppendNumber(nil, what)), nil, transport.Urgent)
	if ctx := s.contexts.Load().at(id); ctx != nil && what == exceededCPU { // otherwise it has a deadline
		ctx.exceed()
	}
	w.release()
	s.killLater(s.cfg.grace, func() bool { return s.now == w && w.hold(next) })
}

package multiproc

import (
	"cmp"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"

	"github.com/seed84f35039/multiproc/internal/child"
)

// PoolSnapshot is what a [Pool] is doing at one moment.
type PoolSnapshot struct {
	Time       time.Time
	Workers    []WorkerSnapshot // in the order of their process ids
	Queued     int              // calls that wait and that no worker has been handed
	PutOff     int              // calls that wait to be run again: see [Retry]
	HandedOut  int              // calls that workers have: those that run, and those next in line
	Answered   uint64           // calls that workers have answered so far, those that failed included
	Retried    uint64           // calls so far that were run again
	Started    int              // workers that were started so far
	Throughput float64          // calls answered a second, since the last Snapshot or the pool's beginning
	Latency    Latency          // how long calls ran
}

// WorkerSnapshot is what a worker is doing.
type WorkerSnapshot struct {
	PID     int           // 0 before the process has started
	State   string        // "starting", "ready", "standing by", "stopping" or "ended"
	Age     time.Duration // since it was ready
	Running []RunningCall // the calls that it runs, as far as this process has heard
	Waiting int           // calls that it was handed and has not begun
	Done    int           // calls that it has answered
	Failed  int           // of them, those that failed
	RSS     int64         // resident memory, in bytes; 0 where the system does not tell
	CPU     time.Duration // CPU time so far; likewise
}

// RunningCall is a call that runs.
type RunningCall struct {
	CallInfo
	For time.Duration
}

// Latency is how long calls have run in their workers, since the pool's beginning. Where
// they take less than microseconds, one in a few dozen is measured. The quantiles are
// exact to an eighth.
type Latency struct {
	Calls         uint64
	P50, P90, P99 time.Duration
	Max           time.Duration // likewise; no call took longer
}

// Snapshot returns what the pool is doing. It costs some microseconds for each worker, and
// no call waits for it longer than for copying that.
func (p *Pool) Snapshot() PoolSnapshot {
	p.mu.Lock()
	now := time.Now()
	s := PoolSnapshot{
		Time: now, Queued: p.queue.n, PutOff: len(p.queue.off),
		Answered: p.answered, Retried: p.retries.count, Started: p.hired,
	}
	for w := range p.workers {
		s.HandedOut += w.open
		s.Workers = append(s.Workers, w.snapshot(now))
	}
	if d := now.Sub(p.lastSeen.at); d > 0 {
		s.Throughput = float64(p.answered-p.lastSeen.answered) / d.Seconds()
	}
	p.lastSeen = mark{now, p.answered}
	p.mu.Unlock()
	for i := range s.Workers {
		if w := &s.Workers[i]; w.PID > 0 {
			if u, err := child.UsageOf(w.PID); err == nil {
				w.RSS, w.CPU = u.RSS, u.CPU
			}
		}
	}
	s.Latency = p.latency.sum()
	slices.SortFunc(s.Workers, func(a, b WorkerSnapshot) int { return cmp.Compare(a.PID, b.PID) })
	return s
}

// mark is how far a pool was at a time.
type mark struct {
	at       time.Time
	answered uint64
}

// snapshot returns what the worker is doing, without what the system has to tell. p.mu is
// held.
func (w *worker) snapshot(now time.Time) WorkerSnapshot {
	s := WorkerSnapshot{Done: w.ended, Failed: w.failed, Waiting: w.open}
	if w.link != nil && w.state != stateEnded {
		s.PID = w.link.PID()
	}
	switch {
	case w.state == stateStarting:
		s.State = "starting"
	case w.state == stateEnded:
		s.State = "ended"
	case w.stopping:
		s.State = "stopping"
	case w.stands():
		s.State = "standing by"
	default:
		s.State = "ready"
	}
	if !w.born.IsZero() {
		s.Age = now.Sub(w.born)
	}
	running := func(id uint64, since time.Time) {
		at := w.find(id)
		if at < 0 {
			return
		}
		f := w.flight[at]
		s.Running = append(s.Running, RunningCall{f.e.b.Info(f.i+int(id-f.id), s.PID), now.Sub(since)})
		s.Waiting--
	}
	if w.in.known != 0 {
		running(w.in.known, w.since)
	}
	for id, since := range w.began {
		running(id, since)
	}
	slices.SortFunc(s.Running, func(a, b RunningCall) int { return cmp.Compare(b.For, a.For) })
	return s
}

// histogram counts how long calls took. Each power of two of nanoseconds has eight
// buckets.
type histogram struct{ buckets [64 * 8]atomic.Uint64 }

// add counts n calls that took d each.
func (h *histogram) add(d time.Duration, n int) { h.buckets[bucket(d)].Add(uint64(n)) }

func bucket(d time.Duration) int {
	x := uint64(max(d, 0))
	if x < 8 {
		return int(x)
	}
	exp := bits.Len64(x) - 1
	return (exp-2)*8 + int(x>>(exp-3)&7)
}

// upper returns the longest time that is counted in a bucket.
func upper(i int) time.Duration {
	if i < 8 {
		return time.Duration(i)
	}
	exp := i/8 + 2
	return time.Duration((8+uint64(i%8)+1)<<(exp-3) - 1)
}

func (h *histogram) sum() (l Latency) {
	var counts [len(h.buckets)]uint64
	for i := range h.buckets {
		counts[i] = h.buckets[i].Load()
		l.Calls += counts[i]
	}
	seen := uint64(0)
	for i, n := range counts {
		if n == 0 {
			continue
		}
		seen += n
		for _, q := range []struct {
			of *time.Duration
			at float64
		}{{&l.P50, .5}, {&l.P90, .9}, {&l.P99, .99}, {&l.Max, 1}} {
			if *q.of == 0 && float64(seen) >= q.at*float64(l.Calls) {
				*q.of = upper(i)
			}
		}
	}
	return l
}

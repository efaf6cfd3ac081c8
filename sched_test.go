package multiproc

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// TestFirstComeFirstServed has one worker take calls in the order of their
// submission, whichever way they come.
func TestFirstComeFirstServed(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1}, func(t *testing.T, s *sim) {
		var futures []*Future[int]
		var want []int
		for i := range 30 {
			takes := time.Duration(i%4) * time.Millisecond
			futures = append(futures, simCall.Go(t.Context(), s.pool, s.task(i, takes)))
			want = append(want, i)
			synctest.Wait() // Go does not say in which order concurrent calls of it come
		}
		for i, fut := range futures {
			if out, err := fut.Wait(t.Context()); out != i*i || err != nil {
				t.Errorf("call %d: got %d, %v", i, out, err)
			}
		}
		if got := s.begun(); !slices.Equal(got, want) {
			t.Errorf("calls began in the order %v", got)
		}
	})
}

// TestSlowCall has a slow call before fast ones, once their function is known to be
// fast and many of them are handed out at a time: they go to the other worker.
func TestSlowCall(t *testing.T) {
	simulate(t, PoolConfig{Workers: 2}, func(t *testing.T, s *sim) {
		const n, slow = 2000, time.Hour
		if _, err := simCall.Map(t.Context(), s.pool, s.tasks(500, 10*time.Microsecond)); err != nil {
			t.Fatal(err)
		}
		for _, at := range []int{0, 1, n / 2, n - 1} {
			tasks := s.tasks(n, 10*time.Microsecond)
			tasks[at].Time = slow
			began := time.Now()
			var last time.Duration
			got := 0
			for r := range simCall.StreamUnordered(t.Context(), s.pool, slices.Values(tasks), WithWindow(n)) {
				if r.Err != nil || r.Value != r.Index*r.Index {
					t.Fatalf("item %d: got %d, %v", r.Index, r.Value, r.Err)
				}
				if got++; got < n {
					last = time.Since(began)
				}
			}
			if got != n {
				t.Errorf("%d results", got)
			}
			// One worker alone takes 20 ms for them.
			if last > 50*time.Millisecond {
				t.Errorf("slow call at %d: the fast ones took %v", at, last)
			}
		}
	})
}

// TestSlowCallInBatch is TestSlowCall with batches that the caller has fixed.
func TestSlowCallInBatch(t *testing.T) {
	simulate(t, PoolConfig{Workers: 2}, func(t *testing.T, s *sim) {
		const n = 100
		tasks := s.tasks(n, time.Millisecond)
		tasks[0].Time = time.Hour
		var last time.Duration
		got := 0
		began := time.Now()
		for r := range simCall.StreamUnordered(t.Context(), s.pool, slices.Values(tasks), WithBatch(n/2), WithWindow(n)) {
			if r.Err != nil {
				t.Error(r.Err)
			}
			if got++; got < n {
				last = time.Since(began)
			}
		}
		if last > 150*time.Millisecond {
			t.Errorf("the fast ones took %v", last)
		}
	})
}

// TestWorkIsShared has many calls of unknown length spread over all workers.
func TestWorkIsShared(t *testing.T) {
	simulate(t, PoolConfig{Workers: 4}, func(t *testing.T, s *sim) {
		const n, each = 400, 100 * time.Millisecond
		began := time.Now()
		if _, err := simCall.Map(t.Context(), s.pool, s.tasks(n, each)); err != nil {
			t.Fatal(err)
		}
		if took, ideal := time.Since(began), n*each/4; took > ideal+ideal/50 {
			t.Errorf("it took %v, at best %v", took, ideal)
		}
		if got := len(s.started()); got != 4 {
			t.Errorf("%d workers were started", got)
		}
	})
}

// TestKillGrace has a call go on when its context ends: its worker is killed when the
// time is up, not earlier and not later.
func TestKillGrace(t *testing.T) {
	// Without a Heartbeat: a worker that says something in that moment waits a little longer.
	simulate(t, PoolConfig{Workers: 1, KillGrace: 7 * time.Second, Heartbeat: -1}, func(t *testing.T, s *sim) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		deaf := s.task(1, time.Hour)
		deaf.Deaf = true
		if _, err := simCall.Call(ctx, s.pool, deaf); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if at := time.Since(s.began); at != 3*time.Second {
			t.Errorf("the caller is told after %v", at)
		}
		if out, err := simCall.Call(t.Context(), s.pool, s.task(2, 0)); out != 4 || err != nil {
			t.Errorf("got %d, %v", out, err)
		}
		if starts := s.started(); len(starts) != 2 || starts[1] != 10*time.Second {
			t.Errorf("workers were started at %v", starts)
		}
	})
}

// TestCancelFrozen ends the context of a call that a frozen worker was handed and has
// not begun. The worker is replaced after KillGrace, or the next call would never run.
func TestCancelFrozen(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, KillGrace: 5 * time.Second}, func(t *testing.T, s *sim) {
		s.worker = func(n int, conn transport.Conn) {
			if sayHello(conn) != nil {
				return
			}
			if n == 1 {
				silent(n, conn)
			} else {
				serveSim(conn)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := simCall.Call(ctx, s.pool, s.task(1, 0)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if out, err := simCall.Call(ctx, s.pool, s.task(2, 0)); out != 4 || err != nil {
			t.Errorf("the next call: got %d, %v", out, err)
		}
		if starts := s.started(); len(starts) != 2 || starts[1] < 6*time.Second || starts[1] > 8*time.Second {
			t.Errorf("workers were started at %v", starts)
		}
	})
}

// drowsy is a parent's end that does not get to what it has received while it is asleep.
type drowsy struct {
	transport.Conn
	asleep atomic.Bool
	awake  chan struct{} // closed when it never will be again
}

func (d *drowsy) Wait(limit time.Duration) error {
	err := d.Conn.Wait(limit)
	if d.asleep.Load() {
		<-d.awake
	}
	return err
}

// TestSlowParent has a call end in time whose context has ended, but its parent does not
// get to hear of it: that is not the worker's fault.
func TestSlowParent(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, KillGrace: 5 * time.Second, Heartbeat: -1}, func(t *testing.T, s *sim) {
		d := &drowsy{awake: make(chan struct{})}
		s.parent = func(_ int, conn transport.Conn) transport.Conn {
			d.Conn = conn
			return d
		}
		ctx, cancel := context.WithCancel(t.Context())
		f := simCall.Go(ctx, s.pool, s.task(1, time.Hour))
		synctest.Wait()
		d.asleep.Store(true)
		cancel()
		<-time.After(time.Minute)
		d.asleep.Store(false)
		close(d.awake)
		if _, err := f.Wait(t.Context()); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if out, err := simCall.Call(t.Context(), s.pool, s.task(2, 0)); out != 4 || err != nil {
			t.Errorf("the next call: got %d, %v", out, err)
		}
		if n := len(s.started()); n != 1 {
			t.Errorf("%d workers were started, want the one to stay", n)
		}
	})
}

// TestWindow has a consumer take its time: no more inputs are pulled than the window
// has room for, and all that there is room for.
func TestWindow(t *testing.T) {
	for _, window := range []int{1, 2, 3, 10, 100} {
		simulate(t, PoolConfig{Workers: 2}, func(t *testing.T, s *sim) {
			pulled, taken := 0, 0
			in := func(yield func(simTask) bool) {
				for pulled = 1; yield(s.task(pulled-1, time.Millisecond)); pulled++ {
				}
			}
			for _, err := range simCall.Stream(t.Context(), s.pool, in, WithWindow(window)) {
				if err != nil {
					t.Error(err)
				}
				taken++
				time.Sleep(time.Minute) // sleep: the clock is that of synctest
				synctest.Wait()
				// A quarter of the window is refilled at a time.
				if ahead := pulled - taken; ahead > window || ahead < window*3/4 {
					t.Errorf("%d inputs are pulled ahead, the window has %d", ahead, window)
				}
				if taken == 300 {
					break
				}
			}
			synctest.Wait()
			if n := len(s.begun()); n > taken+window {
				t.Errorf("%d calls have begun, %d results were taken", n, taken)
			}
		})
	}
}

// TestLeaveStream leaves a stream while calls run and wait: those that run, or that a
// worker begins before it hears of it, see the end of their context, and the workers
// are free at once.
func TestLeaveStream(t *testing.T) {
	simulate(t, PoolConfig{Workers: 2, KillGrace: time.Hour}, func(t *testing.T, s *sim) {
		in := func(yield func(simTask) bool) {
			for i := 0; yield(s.task(i, time.Duration(i)*time.Minute)); i++ {
			}
		}
		for _, err := range simCall.Stream(t.Context(), s.pool, in, WithWindow(50)) {
			if err != nil {
				t.Error(err)
			}
			break // after the first, which takes no time
		}
		if out, err := simCall.Call(t.Context(), s.pool, s.task(7, 0)); out != 49 || err != nil {
			t.Errorf("got %d, %v", out, err)
		}
		if took := time.Since(s.began); took > time.Second {
			t.Errorf("the workers were busy for %v", took)
		}
		synctest.Wait()
		if n, notes := len(s.begun()), len(s.notes); notes != 2*n {
			t.Errorf("%d calls have begun, and %d have ended", n, notes-n)
		}
	})
}

// TestCloseGrace has Close wait as long as calls end, and no longer.
func TestCloseGrace(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, KillGrace: 10 * time.Second}, func(t *testing.T, s *sim) {
		var futures []*Future[int]
		for i := range 10 { // each in time, all together not
			futures = append(futures, simCall.Go(t.Context(), s.pool, s.task(i, 8*time.Second)))
		}
		stuck := simCall.Go(t.Context(), s.pool, s.task(11, time.Hour))
		synctest.Wait()
		if err := s.pool.Close(); err == nil || !strings.Contains(err.Error(), "no call ended for 10s; 1 running and 0 waiting calls were given up") {
			t.Errorf("Close: %v", err)
		}
		for i, fut := range futures {
			if out, err := fut.Wait(t.Context()); out != i*i || err != nil {
				t.Errorf("call %d: got %d, %v", i, out, err)
			}
		}
		if _, err := stuck.Wait(t.Context()); err == nil {
			t.Error("the call that hangs is answered")
		}
		if took := time.Since(s.began); took < 90*time.Second || took > 101*time.Second {
			t.Errorf("it took %v", took)
		}
		s.pool = NewPool(PoolConfig{}) // the one to be closed at the end
	})
}

// recalls counts how often a worker is asked to give calls back.
type recalls struct {
	transport.Conn
	n *atomic.Int32
}

func (r recalls) Send(frames []byte, tail wire.Tail, how transport.How) error {
	if wire.Kind(frames[0]) == wire.Recall {
		r.n.Add(1)
	}
	return r.Conn.Send(frames, tail, how)
}

// TestRecalledForOthers has a call wait behind a slow one: it is asked back for the worker
// that has nothing to do, and not handed to the slow one again and again.
func TestRecalledForOthers(t *testing.T) {
	simulate(t, PoolConfig{Workers: 2}, func(t *testing.T, s *sim) {
		var n atomic.Int32
		s.parent = func(_ int, c transport.Conn) transport.Conn { return recalls{c, &n} }
		if err := s.pool.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := simCall.Map(t.Context(), s.pool, s.tasks(500, time.Microsecond)); err != nil {
			t.Fatal(err)
		}
		n.Store(0)
		for range 20 {
			tasks := s.tasks(2, 0)
			tasks[0].Time = time.Second
			if _, err := simCall.Map(t.Context(), s.pool, tasks); err != nil {
				t.Fatal(err)
			}
		}
		if n := n.Load(); n > 100 {
			t.Errorf("calls were asked back %d times", n)
		}
	})
}

// TestStreamHoldsNothingBack has as many slow inputs as there are workers, or fewer: none
// waits for others, neither at the end of the sequence nor while it pauses.
func TestStreamHoldsNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers, takes = 16, time.Second
		ex := NewThreads(ThreadsConfig{Workers: workers})
		defer ex.Close()
		for n := 1; n <= workers; n++ {
			for _, pause := range []time.Duration{0, time.Minute} {
				began := time.Now()
				in := func(yield func(time.Duration) bool) {
					for range n {
						if !yield(takes) {
							return
						}
					}
					<-time.After(pause) // a source that has nothing more at the moment
				}
				got, last := 0, time.Duration(0)
				for _, err := range simSleep.Stream(t.Context(), ex, in) {
					if err != nil {
						t.Fatal(err)
					}
					got++
					last = time.Since(began)
				}
				if got != n || last > takes+10*time.Millisecond {
					t.Errorf("%d inputs, pause %v: %d results, the last after %v", n, pause, got, last)
				}
			}
		}
	})
}

// simSleep sleeps.
var simSleep = Register("sim.sleep", func(_ context.Context, d time.Duration) (struct{}, error) {
	<-time.After(d)
	return struct{}{}, nil
})

// TestPatience has calls come at intervals: a worker looks out for the next one only where it may pay.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p patience
		for i, c := range []struct{ want, comes time.Duration }{
			{0, 10 * time.Microsecond},
			{0, 10 * time.Microsecond},
			{0, 10 * time.Microsecond},
			{lookout, 60 * time.Microsecond},     // three came soon
			{120 * time.Microsecond, maxLookout}, // twice as long as that took
			{maxLookout, 10 * time.Microsecond},  // no longer
			{maxLookout, maxLookout + 1},         // the long one is not forgotten at once
			{0, 10 * time.Microsecond},           // that one was late
			{0, 0},
			{0, 0},
			{lookout, 0},
			{lookout, 0}, // as at the beginning
		} {
			if got := p.begin(); got != c.want {
				t.Errorf("wait %d: %v, want %v", i, got, c.want)
			}
			time.Sleep(c.comes) // sleep: the clock is that of synctest
			p.end()
		}
	})
}

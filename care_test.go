package multiproc

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed84f35039/multiproc/internal/transport"
)

// frozen is a worker that answers nothing once it has begun its first call.
func frozen(n int, conn transport.Conn) {
	if n > 1 {
		if sayHello(conn) == nil {
			serveSim(conn)
		}
		return
	}
	script(started(1))(n, conn)
}

// TestHeartbeat has a worker freeze during a call: that costs the call, and the pool goes
// on.
func TestHeartbeat(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, Heartbeat: 10 * time.Second}, func(t *testing.T, s *sim) {
		s.worker = frozen
		_, err := simCall.Call(t.Context(), s.pool, s.task(1, 0))
		if e, ok := errors.AsType[*CrashError](err); !ok || !strings.Contains(e.Reason, "sign of life") {
			t.Errorf("got %T: %v", err, err)
		}
		if took := time.Since(s.began); took != 40*time.Second {
			t.Errorf("it took %v, want one beat and three without an answer", took)
		}
		if out, err := simCall.Call(t.Context(), s.pool, s.task(2, time.Hour)); out != 4 || err != nil {
			t.Errorf("a call that takes an hour: got %d, %v", out, err)
		}
		if n := len(s.started()); n != 2 {
			t.Errorf("%d workers were started, want 2", n)
		}
	})
}

// TestMaxTasks has workers replaced after some calls: their heirs are ready by then.
func TestMaxTasks(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10} {
		simulate(t, PoolConfig{Workers: 1, MaxTasks: n}, func(t *testing.T, s *sim) {
			s.launch = func(int) error {
				<-time.After(500 * time.Millisecond) // a start takes less than a call
				return nil
			}
			const calls = 20
			var pids []int
			for range calls {
				f := simCall.Go(t.Context(), s.pool, s.task(1, time.Second))
				<-time.After(900 * time.Millisecond)
				for _, w := range s.pool.Snapshot().Workers {
					if len(w.Running) > 0 {
						pids = append(pids, w.PID)
					}
				}
				if _, err := f.Wait(t.Context()); err != nil {
					t.Error(err)
				}
			}
			for i, pid := range pids {
				if i > 0 && (pid == pids[i-1]) != (i%n != 0) {
					t.Errorf("MaxTasks %d: the calls ran in %v", n, pids)
					break
				}
			}
			if took := time.Since(s.began); n > 1 && took != calls*time.Second+500*time.Millisecond {
				t.Errorf("MaxTasks %d: %d calls of a second took %v: there are gaps", n, calls, took)
			}
		})
	}
}

// TestMaxAge has workers get old under load: there is no gap in service.
func TestMaxAge(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, MaxAge: 10 * time.Second}, func(t *testing.T, s *sim) {
		s.launch = func(int) error {
			<-time.After(3 * time.Second) // longer than calls
			return nil
		}
		if err := s.pool.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		out, err := simCall.Map(t.Context(), s.pool, s.tasks(60, time.Second))
		if len(out) != 60 || err != nil {
			t.Errorf("%d results, %v", len(out), err)
		}
		if took := time.Since(began); took != time.Minute {
			t.Errorf("60 calls of a second took %v: there are gaps", took)
		}
		if n := len(s.started()); n < 5 || n > 7 {
			t.Errorf("%d workers were started in a minute", n)
		}
	})
}

// TestMaxAgeNoHeir has no successor start: the old worker stays, and it is tried again, as long
// as it takes. No call fails for that.
func TestMaxAgeNoHeir(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, MaxAge: 10 * time.Second}, func(t *testing.T, s *sim) {
		s.launch = func(n int) error {
			if n > 1 && n < 10 {
				return errors.New("no room")
			}
			return nil
		}
		for range 59 {
			if _, err := simCall.Call(t.Context(), s.pool, s.task(1, time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		var want []time.Duration // at 10 s, each 5 s until one starts, which is old 10 s later
		for at := 10 * time.Second; at <= 50*time.Second; at += 5 * time.Second {
			want = append(want, at)
		}
		want = append([]time.Duration{0}, want...)
		if got := s.started(); !slices.Equal(got, want) {
			t.Errorf("workers were started at %v, want %v", got, want)
		}
		if now := s.pool.Snapshot(); now.Workers[0].PID != 1010 {
			t.Errorf("the worker is %v", now.Workers[0])
		}
	})
}

// TestIdleTimeout has workers rest.
func TestIdleTimeout(t *testing.T) {
	simulate(t, PoolConfig{Workers: 2, IdleTimeout: time.Minute}, func(t *testing.T, s *sim) {
		for range 3 {
			if _, err := simCall.Map(t.Context(), s.pool, s.tasks(2, time.Second)); err != nil {
				t.Error(err)
			}
			<-time.After(59 * time.Second)
			if n := len(s.pool.Snapshot().Workers); n != 2 {
				t.Errorf("%d workers before the time, want 2", n)
			}
			<-time.After(2 * time.Second)
			synctest.Wait()
			if n := len(s.pool.Snapshot().Workers); n != 0 {
				t.Errorf("%d workers after the time, want 0", n)
			}
		}
		if n := len(s.started()); n != 6 {
			t.Errorf("%d workers were started, want 6", n)
		}
	})
}

// TestConcurrencyOverlaps has calls wait in one worker, all at once; a crash costs those
// that run.
func TestConcurrencyOverlaps(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, Concurrency: 5}, func(t *testing.T, s *sim) {
		out, err := simCall.Map(t.Context(), s.pool, s.tasks(10, time.Second))
		if want := []int{0, 1, 4, 9, 16, 25, 36, 49, 64, 81}; !slices.Equal(out, want) || err != nil {
			t.Errorf("got %v, %v", out, err)
		}
		if took := time.Since(s.began); took != 2*time.Second {
			t.Errorf("it took %v, want 2s", took)
		}
		tasks := s.tasks(10, time.Minute)
		tasks[4].Die, tasks[4].Time = true, time.Second
		out, err = simCall.Map(t.Context(), s.pool, tasks, CollectErrors())
		errs := err.(interface{ Unwrap() []error }).Unwrap()
		if len(errs) != 5 {
			t.Fatalf("got %d errors, want those of the 5 calls that ran: %v", len(errs), err)
		}
		for i, err := range errs {
			if e, ok := errors.AsType[*CrashError](err); !ok || e.Index != i || slices.Contains(errs[:i], err) {
				t.Errorf("got %v for call %d", err, i)
			}
		}
		for i := 5; i < 10; i++ {
			if out[i] != i*i {
				t.Errorf("call %d: got %d", i, out[i])
			}
		}
	})
}

// TestConcurrencyLimits ends calls of a worker that runs others: by their contexts, and
// by their time limit.
func TestConcurrencyLimits(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, Concurrency: 3, CallTimeout: 10 * time.Second, KillGrace: time.Second}, func(t *testing.T, s *sim) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		short := simCall.Go(ctx, s.pool, s.task(1, time.Hour))
		long := simCall.Go(t.Context(), s.pool, s.task(2, time.Hour))
		good := simCall.Go(t.Context(), s.pool, s.task(3, 9*time.Second))
		if _, err := short.Wait(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if out, err := good.Wait(t.Context()); out != 9 || err != nil {
			t.Errorf("got %d, %v", out, err)
		}
		_, err := long.Wait(t.Context())
		if e, ok := errors.AsType[*TimeoutError](err); !ok || e.Hard || time.Since(s.began) != 10*time.Second {
			t.Errorf("got %v after %v", err, time.Since(s.began))
		}
		deaf := s.task(4, time.Hour)
		deaf.Deaf = true
		_, err = simCall.Call(t.Context(), s.pool, deaf)
		if e, ok := errors.AsType[*TimeoutError](err); !ok || !e.Hard || time.Since(s.began) != 21*time.Second {
			t.Errorf("got %v after %v", err, time.Since(s.began))
		}
	})
}

// tornDown counts the teardowns of simulations.
var tornDown sync.Map

var simTeardown = Register("sim.teardown", func(_ context.Context, sim string) (struct{}, error) {
	n, _ := tornDown.LoadOrStore(sim, new(int))
	*n.(*int)++
	if *n.(*int) == 2 {
		return struct{}{}, errors.New("the second fails")
	}
	return struct{}{}, nil
})

// TestTeardown has workers end in an orderly way, and not.
func TestTeardown(t *testing.T) {
	name := t.Name()
	defer tornDown.Delete(name)
	var mu sync.Mutex
	var events []Event
	cfg := PoolConfig{Workers: 1, IdleTimeout: time.Minute, Teardown: simTeardown.With(name), Observe: func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
	}}
	simulate(t, cfg, func(t *testing.T, s *sim) {
		tasks := s.tasks(2, time.Second)
		tasks[1].Die = true
		if _, err := simCall.Map(t.Context(), s.pool, tasks, CollectErrors()); err == nil {
			t.Error("no error")
		}
		for range 2 {
			if _, err := simCall.Map(t.Context(), s.pool, s.tasks(2, time.Second)); err != nil {
				t.Error(err)
			}
			<-time.After(2 * time.Minute)
		}
		if err := s.pool.Close(); err != nil {
			t.Error(err)
		}
		n, _ := tornDown.Load(name)
		if n == nil || *n.(*int) != 2 {
			t.Errorf("got %v teardowns, want 2: of the workers that did not die", n)
		}
	})
	count := map[EventKind]int{}
	planned := 0
	for _, e := range events {
		count[e.Kind]++
		if e.Kind == WorkerEnded && e.Planned {
			planned++
		}
		if e.Kind == TeardownFailed && !strings.Contains(e.Err.Error(), "the second fails") {
			t.Errorf("got %v", e.Err)
		}
	}
	if count[WorkerStarted] != 3 || count[WorkerEnded] != 3 || planned != 2 || count[TeardownFailed] != 1 || count[CallFailed] != 1 {
		t.Errorf("got %v, %d of them planned: %v", count, planned, events)
	}
}

// TestSnapshot looks at a pool in the midst of its work.
func TestSnapshot(t *testing.T) {
	simulate(t, PoolConfig{Workers: 2}, func(t *testing.T, s *sim) {
		for i := range 10 {
			fail := s.task(i, time.Minute)
			if i == 1 {
				fail.Fail = 100
			}
			simCall.Go(t.Context(), s.pool, fail)
		}
		<-time.After(90 * time.Second)
		snap := s.pool.Snapshot()
		if len(snap.Workers) != 2 || snap.Started != 2 || snap.Answered != 3 || snap.Queued+snap.HandedOut != 7 || snap.Throughput != 3./90 {
			t.Errorf("got %+v", snap)
		}
		done, failed := 0, 0
		for _, w := range snap.Workers {
			done, failed = done+w.Done, failed+w.Failed
			if w.State != "ready" || w.Age != 90*time.Second || len(w.Running) != 1 || w.Running[0].Func != "sim.call" || w.Running[0].For > time.Minute {
				t.Errorf("got %+v", w)
			}
		}
		if l := snap.Latency; done != 3 || failed != 1 || l.Calls != 3 || l.P50 < time.Minute || l.P50 > time.Minute*9/8 {
			t.Errorf("done %d, failed %d, latency %+v", done, failed, l)
		}
		s.pool.Kill()
		if snap := s.pool.Snapshot(); len(snap.Workers) != 0 || snap.HandedOut != 0 {
			t.Errorf("afterwards: %+v", snap)
		}
		s.pool = NewPool(PoolConfig{})
	})
}

// TestHistogram checks that a time falls into the bucket that says so.
func TestHistogram(t *testing.T) {
	for d := time.Duration(0); d < 1<<61; d += d/8 + 1 {
		i := bucket(d)
		if up := upper(i); up < d || float64(up) > float64(d)*1.126+1 {
			t.Errorf("%d is in bucket %d, up to %d", d, i, up)
		}
		if i > 0 && upper(i-1) >= d {
			t.Errorf("%d is in bucket %d, and could be in the one before", d, i)
		}
	}
}

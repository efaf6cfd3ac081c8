package multiproc

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// These tests are about what supervision of workers costs those who have done nothing
// wrong: nothing.

// TestStopAfterDeath stops a pool whose worker then dies before it has begun anything.
func TestStopAfterDeath(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1}, func(t *testing.T, s *sim) {
		s.worker = func(n int, conn transport.Conn) {
			sayHello(conn)
			for {
				f, err := transport.Recv(conn)
				if err != nil || f.Kind == wire.Recall {
					return // dies
				}
			}
		}
		f := simCall.Go(t.Context(), s.pool, s.task(1, 0))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := s.pool.Stop(ctx); err != nil {
			t.Error(err)
		}
		if _, err := f.Wait(ctx); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	})
}

// overlap returns how many calls ran at once at most.
func (s *sim) overlap() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, most := 0, 0
	for _, x := range s.notes {
		switch x.what {
		case "begins":
			n++
		case "ends":
			n--
		}
		most = max(most, n)
	}
	return most
}

// TestMaxAgeOfHeirs has calls take longer than MaxAge: an heir does not get old while it stands.
func TestMaxAgeOfHeirs(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, MaxAge: time.Second}, func(t *testing.T, s *sim) {
		_, err := simCall.Map(t.Context(), s.pool, s.tasks(6, 10*time.Second))
		if n := s.overlap(); n > 1 || err != nil {
			t.Errorf("Workers: 1, but %d calls ran at once; %d workers started, took %v, %v", n, len(s.started()), time.Since(s.began), err)
		}
	})
}

// TestMaxTasksOverlap has a worker that is to end still run calls: it counts.
func TestMaxTasksOverlap(t *testing.T) {
	simulate(t, PoolConfig{Workers: 2, MaxTasks: 3}, func(t *testing.T, s *sim) {
		_, err := simCall.Map(t.Context(), s.pool, s.tasks(5, 10*time.Second), WithBatch(3))
		if n := s.overlap(); n > 2 || err != nil {
			t.Errorf("Workers: 2, but %d calls ran at once; %d workers started, took %v, %v", n, len(s.started()), time.Since(s.began), err)
		}
	})
}

// TestMaxTasksHeldUp has calls wait behind a long one in a worker that is to end: others take them.
func TestMaxTasksHeldUp(t *testing.T) {
	for _, most := range []int{0, 10} {
		simulate(t, PoolConfig{Workers: 2, MaxTasks: most}, func(t *testing.T, s *sim) {
			tasks := s.tasks(20, time.Second)
			tasks[0].Time = time.Hour
			last := time.Duration(0)
			for r := range simCall.StreamUnordered(t.Context(), s.pool, slices.Values(tasks), WithBatch(10)) {
				if r.Index != 0 {
					last = time.Since(s.began)
				}
			}
			if last > time.Minute {
				t.Errorf("MaxTasks %d: the last of the short calls ended after %v", most, last)
			}
		})
	}
}

// simSetup takes its time, or as long as its context, unless it is deaf.
var simSetup = Register("sim.setup", func(ctx context.Context, x simSetupArg) (int, error) {
	done := ctx.Done()
	if x.Deaf {
		done = nil
	}
	select {
	case <-time.After(x.Time):
	case <-done:
	}
	return 0, ctx.Err()
})

// simSetupArg is the argument of simSetup.
type simSetupArg struct {
	Time time.Duration
	Deaf bool
}

// TestSetupHasNoLimit has setup and teardown take longer than CallTimeout, which is not for them.
func TestSetupHasNoLimit(t *testing.T) {
	for _, concurrency := range []int{1, 2} {
		for _, deaf := range []bool{false, true} {
			var ended []Event
			long := simSetup.With(simSetupArg{3 * time.Second, deaf})
			simulate(t, PoolConfig{
				Workers: 1, Concurrency: concurrency, CallTimeout: time.Second, Setup: long, Teardown: long,
				Observe: func(e Event) {
					if e.Kind == WorkerEnded || e.Kind == TeardownFailed {
						ended = append(ended, e)
					}
				},
			}, func(t *testing.T, s *sim) {
				out, err := simCall.Call(t.Context(), s.pool, s.task(3, 0))
				if out != 9 || err != nil {
					t.Errorf("Concurrency %d, deaf %t: %d, %v", concurrency, deaf, out, err)
				}
			})
			if len(ended) != 1 || ended[0].Kind != WorkerEnded || !ended[0].Planned {
				t.Errorf("Concurrency %d, deaf %t: %+v", concurrency, deaf, ended)
			}
		}
	}
}

// TestTimeoutAmongOthers kills a worker for one of its calls: the others have not exceeded anything.
func TestTimeoutAmongOthers(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, Concurrency: 2, CallTimeout: 10 * time.Second, KillGrace: time.Second, Heartbeat: -1}, func(t *testing.T, s *sim) {
		s.worker = always(started)
		a := simCall.Go(t.Context(), s.pool, s.task(1, 0))
		<-time.After(11 * time.Second)
		b := simCall.Go(t.Context(), s.pool, s.task(2, 0)) // is half a second old when the worker is killed
		_, errA := a.Wait(t.Context())
		_, errB := b.Wait(t.Context())
		if _, ok := errors.AsType[*TimeoutError](errA); !ok {
			t.Errorf("the call that takes too long got %v", errA)
		}
		if e, ok := errors.AsType[*TimeoutError](errB); ok {
			t.Errorf("the innocent call got %v after %v", e, time.Since(s.began))
		} else if _, ok := errors.AsType[*CrashError](errB); !ok {
			t.Errorf("the innocent call got %v, want a crash", errB)
		}
	})
}

// slowOut is a result that takes 3 s to decode, if it is 0.
type slowOut struct{ X int }

func (o slowOut) MarshalText() ([]byte, error) { return []byte{byte('a' + o.X)}, nil }
func (o *slowOut) UnmarshalText(b []byte) error {
	if o.X = int(b[0] - 'a'); o.X == 0 {
		<-time.After(3 * time.Second) // decoding it takes long
	}
	return nil
}

var simSlow = Register("sim.slowly", func(ctx context.Context, task simTask) (slowOut, error) {
	<-time.After(task.Time)
	return slowOut{task.X}, nil
})

// TestLimitsOfSlowParent has the parent decode a result for longer than calls may take: what the worker
// did meanwhile is not known, and no reason to kill it.
func TestLimitsOfSlowParent(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, CallTimeout: time.Second, KillGrace: 500 * time.Millisecond}, func(t *testing.T, s *sim) {
		tasks := s.tasks(20, 400*time.Millisecond) // far from the limit
		_, err := simSlow.Map(t.Context(), s.pool, tasks, WithBatch(20), CollectErrors())
		if err != nil || len(s.started()) != 1 {
			t.Errorf("%d workers: %v", len(s.started()), err)
		}
	})
}

// TestMaxAgeWithHeir has MaxAge come for a worker whose heir MaxTasks has made stand ready.
func TestMaxAgeWithHeir(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, MaxAge: 10 * time.Minute, MaxTasks: 100}, func(t *testing.T, s *sim) {
		simCall.Map(t.Context(), s.pool, s.tasks(90, time.Second)) // the heir is hired at 88
		for i := range 5 {
			<-time.After(time.Hour)
			simCall.Call(t.Context(), s.pool, s.task(1, time.Second))
			for _, w := range s.pool.Snapshot().Workers {
				if w.Age > 2*time.Hour && w.Done > 90 {
					t.Errorf("hour %d: a worker of age %v is still in use", i+1, w.Age)
				}
			}
		}
	})
}

// TestStopDuringShutdown has Stop be less patient than a Shutdown that waits already.
func TestStopDuringShutdown(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, KillGrace: time.Second}, func(t *testing.T, s *sim) {
		task := s.task(1, time.Hour)
		task.Deaf = true
		f := simCall.Go(t.Context(), s.pool, task)
		synctest.Wait()
		go s.pool.Shutdown(context.Background()) // ends when Stop hurries it up
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := s.pool.Stop(ctx)
		<-time.After(time.Minute)
		select {
		case <-f.Done():
		default:
			t.Errorf("Stop: %v; a minute after its context ended the call still runs: %d workers", err, len(s.pool.Snapshot().Workers))
		}
		s.pool.Kill()
	})
}

// TestLongPause has the back-off double until it would overflow.
func TestLongPause(t *testing.T) {
	r, err := Retry{Attempts: 100, Backoff: 1<<34 + 1, MaxBackoff: time.Hour}.check()
	if err != nil {
		t.Fatal(err)
	}
	if d := r.pause(40); d < 30*time.Minute {
		t.Errorf("the 40th pause is %v", d)
	}
}

// TestRetryIsNoTimeout has calls fail on Threads while contexts of earlier attempts end.
func TestRetryIsNoTimeout(t *testing.T) {
	th := NewThreads(ThreadsConfig{Workers: 8, CallTimeout: time.Hour, Retry: Retry{Attempts: 4, Backoff: 1, MaxBackoff: 1}})
	defer th.Close()
	_, err := simFails.Map(t.Context(), th, make([]int, 20000), CollectErrors())
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		if to, ok := errors.AsType[*TimeoutError](e); ok {
			t.Fatal(to)
		}
	}
}

var simFails = Register("sim.fails", func(context.Context, int) (int, error) { return 0, errors.New("it fails") })

// TestObserveBeforeClose has Observe take its time: Close waits for that.
func TestObserveBeforeClose(t *testing.T) {
	var closed atomic.Bool
	cfg := PoolConfig{Workers: 2}
	cfg.Observe = func(e Event) {
		if e.Kind == WorkerEnded && e.PID == 1001 {
			<-time.After(time.Second)
			if closed.Load() {
				t.Error("Observe goes on after Close has returned")
			}
		}
	}
	simulate(t, cfg, func(t *testing.T, s *sim) {
		s.pool.Start(t.Context())
		synctest.Wait()
		s.pool.Close()
		closed.Store(true)
		<-time.After(time.Minute)
	})
}

// TestExceededGoesOn has a worker say that a call has exceeded its CPU time, and go on.
func TestExceededGoesOn(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, CPUTime: time.Second, KillGrace: time.Second}, func(t *testing.T, s *sim) {
		s.worker = always(exceededNow)
		f := simCall.Go(t.Context(), s.pool, s.task(1, 0))
		select {
		case <-f.Done():
		case <-time.After(time.Hour):
			t.Error("an hour after its CPU limit was exceeded the call still runs")
		}
		if e, ok := errors.AsType[*TimeoutError](callErr(f)); !ok || !e.CPU || !e.Hard {
			t.Errorf("got %v", callErr(f))
		}
	})
}

func callErr(f *Future[int]) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := f.Wait(ctx)
	return err
}

// TestFailureIsForgotten has one start fail: another follows, to help the worker that is there.
func TestFailureIsForgotten(t *testing.T) {
	for _, bad := range []int{0, 2} {
		simulate(t, PoolConfig{Workers: 2}, func(t *testing.T, s *sim) {
			s.launch = func(n int) error {
				if n == bad {
					return errStart
				}
				return nil
			}
			tasks := s.tasks(10, time.Minute)
			began := time.Now()
			_, err := simCall.Map(t.Context(), s.pool, tasks, WithBatch(10))
			if took := time.Since(began); took > 6*time.Minute || err != nil {
				t.Errorf("start %d fails: two workers took %v for 10 minutes of work, %v", bad, took, err)
			}
		})
	}
}

// TestHeirDoesNotIdle has an heir stand ready for longer than IdleTimeout.
func TestHeirDoesNotIdle(t *testing.T) {
	for _, idle := range []time.Duration{0, 2 * time.Second} {
		simulate(t, PoolConfig{Workers: 1, MaxAge: 10 * time.Second, IdleTimeout: idle}, func(t *testing.T, s *sim) {
			s.launch = func(int) error {
				<-time.After(3 * time.Second)
				return nil
			}
			s.pool.Start(t.Context())
			began := time.Now()
			simCall.Map(t.Context(), s.pool, s.tasks(2, 18*time.Second))
			if took := time.Since(began); took != 36*time.Second {
				t.Errorf("IdleTimeout %v: two calls of 18 s took %v", idle, took)
			}
		})
	}
}

var simBadTeardown = Register("sim.badteardown", func(ctx context.Context, _ int) (int, error) { return 0, errors.New("it fails") })

// slowConn is a worker's connection on which the answer to the teardown is slow.
type slowConn struct {
	transport.Conn
	answering chan struct{}
	once      sync.Once
}

func (c *slowConn) Next(f *wire.Frame) (bool, error) {
	ok, err := c.Conn.Next(f)
	if ok && f.Kind == wire.Stop {
		<-c.answering
	}
	return ok, err
}

func (c *slowConn) Send(b []byte, tail wire.Tail, how transport.How) error {
	if len(b) > 4 && wireKind(b) == wire.Failed {
		c.once.Do(func() { close(c.answering) })
		<-time.After(time.Millisecond) // the goroutine is not scheduled for a moment
	}
	return c.Conn.Send(b, tail, how)
}

// wireKind returns the kind of the first frame.
func wireKind(b []byte) wire.Kind {
	a, z := transport.Pipe()
	defer a.Close()
	defer z.Close()
	go a.Send(b, nil, transport.Now) // ends when a is closed
	f, _ := transport.Recv(z)
	return f.Kind
}

// TestTeardownIsHeard has the answer to a teardown leave late: the worker does not end before.
func TestTeardownIsHeard(t *testing.T) {
	for _, c := range []int{1, 2} {
		failed := 0
		simulate(t, PoolConfig{Workers: 1, Concurrency: c, Teardown: simBadTeardown.With(0), Observe: func(e Event) {
			if e.Kind == TeardownFailed {
				failed++
			}
		}}, func(t *testing.T, s *sim) {
			s.worker = func(n int, conn transport.Conn) {
				if sayHello(conn) == nil {
					serve(&slowConn{Conn: conn, answering: make(chan struct{})}, s.pool.cfg.worker(), func() { conn.Close() })
				}
			}
			simCall.Call(t.Context(), s.pool, s.task(3, 0))
			s.pool.Close()
			<-time.After(time.Minute)
		})
		if failed != 1 {
			t.Errorf("Concurrency %d: TeardownFailed was observed %d times, want 1", c, failed)
		}
	}
}

// TestExceededGoesOnInProcess is TestExceededGoesOn for Start.
func TestExceededGoesOnInProcess(t *testing.T) {
	simulate(t, PoolConfig{}, func(t *testing.T, s *sim) {
		s.worker = always(exceededNow)
		spares := NewSpares(0, ProcessConfig{CPUTime: time.Second, KillGrace: time.Second})
		spares.start = s.start
		p, err := simCall.Start(t.Context(), s.task(3, 0), ProcessConfig{Spares: spares})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := p.Wait(ctx); errors.Is(err, ctx.Err()) && ctx.Err() != nil {
			t.Errorf("got %v after an hour", err)
		}
		p.Kill()
	})
}

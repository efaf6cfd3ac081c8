package multiproc

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestCallTimeout has calls of one batch exceed their limit, one that looks at its context
// and one that does not: each costs itself alone, at the right time.
func TestCallTimeout(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, CallTimeout: 3 * time.Second, KillGrace: 5 * time.Second}, func(t *testing.T, s *sim) {
		tasks := s.tasks(6, time.Second)
		tasks[1].Time = time.Hour
		tasks[3].Time, tasks[3].Deaf = time.Hour, true
		out, err := simCall.Map(t.Context(), s.pool, tasks, CollectErrors(), WithBatch(6))
		errs := err.(interface{ Unwrap() []error }).Unwrap()
		if len(errs) != 2 {
			t.Fatalf("got %v, want 2 errors", errs)
		}
		for k, want := range []struct {
			index int
			hard  bool
		}{{1, false}, {3, true}} {
			e, ok := errors.AsType[*TimeoutError](errs[k])
			if !ok {
				t.Fatalf("got %T (%v), want a *TimeoutError", errs[k], errs[k])
			}
			if e.Index != want.index || e.Hard != want.hard || e.CPU || e.Limit != 3*time.Second || !errors.Is(e, context.DeadlineExceeded) {
				t.Errorf("got %+v, want index %d, hard %t", e, want.index, want.hard)
			}
			if remote, ok := errors.AsType[*RemoteError](errs[k]); ok == want.hard {
				t.Errorf("call %d: the function's own error is %v", want.index, remote)
			}
		}
		for i, got := range out {
			if want := i * i; got != want && i != 1 && i != 3 {
				t.Errorf("call %d: got %d, want %d", i, got, want)
			}
		}
		// 1 s, 3 s, 1 s, 3 s and 5 s, 1 s, 1 s
		if took := time.Since(s.began); took != 15*time.Second {
			t.Errorf("it took %v, want 15s", took)
		}
		if n := len(s.started()); n != 2 {
			t.Errorf("%d workers were started, want 2", n)
		}
	})
}

// TestResultAfterTimeout has a call that does not look at its context end within the grace:
// its result counts.
func TestResultAfterTimeout(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, CallTimeout: time.Second, KillGrace: time.Minute}, func(t *testing.T, s *sim) {
		task := s.task(7, 10*time.Second)
		task.Deaf = true
		if out, err := simCall.Call(t.Context(), s.pool, task); out != 49 || err != nil {
			t.Errorf("got %d, %v", out, err)
		}
	})
}

// TestCallTimeoutFrozen has the worker freeze during a call: its parent sees to the limit.
func TestCallTimeoutFrozen(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, CallTimeout: time.Minute, KillGrace: time.Second, Heartbeat: -1}, func(t *testing.T, s *sim) {
		s.worker = script(started(1))
		_, err := simCall.Call(t.Context(), s.pool, s.task(1, 0))
		if e, ok := errors.AsType[*TimeoutError](err); !ok || !e.Hard {
			t.Errorf("got %T: %v", err, err)
		}
		if took := time.Since(s.began); took < 61*time.Second || took > 62*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestRetry has calls fail that are run again, with pauses that double.
func TestRetry(t *testing.T) {
	retry := Retry{Attempts: 3, Backoff: 8 * time.Second, MaxBackoff: 12 * time.Second}
	for name, c := range map[string]struct {
		cfg    PoolConfig
		change func(*simTask)
		check  func(t *testing.T, err error)
	}{
		"error": {PoolConfig{Retry: retry}, func(task *simTask) { task.Fail = 9 }, func(t *testing.T, err error) {
			if e, ok := errors.AsType[*RemoteError](err); !ok || e.Attempts != 3 {
				t.Errorf("got %#v, want the third error", err)
			}
		}},
		"twice": {PoolConfig{Retry: retry}, func(task *simTask) { task.Fail = 2 }, nil},
		"timeout": {PoolConfig{Retry: retry, CallTimeout: time.Second}, func(task *simTask) { task.Time = time.Hour }, func(t *testing.T, err error) {
			if e, ok := errors.AsType[*TimeoutError](err); !ok || e.Attempts != 3 {
				t.Errorf("got %#v, want the third error", err)
			}
		}},
		"not this one": {
			PoolConfig{Retry: Retry{Attempts: 3, If: func(err error) bool { return false }}},
			func(task *simTask) { task.Fail = 1 },
			func(t *testing.T, err error) {
				if e, ok := errors.AsType[*RemoteError](err); !ok || e.Attempts != 1 {
					t.Errorf("got %#v, want the first error", err)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.cfg.Workers = 1
			simulate(t, c.cfg, func(t *testing.T, s *sim) {
				task := s.task(3, 0)
				c.change(&task)
				out, err := simCall.Call(t.Context(), s.pool, task)
				if c.check == nil {
					if out != 9 || err != nil {
						t.Errorf("got %d, %v", out, err)
					}
				} else {
					c.check(t, err)
				}
				if name == "not this one" {
					return
				}
				begun := s.notesOf("begins")
				if len(begun) != 3 {
					t.Fatalf("the call began %d times", len(begun))
				}
				for k, most := range []time.Duration{8 * time.Second, 12 * time.Second} {
					if pause := begun[k+1] - begun[k] - task.Time%time.Minute; pause < most/2 || pause > most+c.cfg.CallTimeout {
						t.Errorf("the pause is %v, want at most %v and half of it", pause, most)
					}
				}
			})
		})
	}
}

// TestQuarantine has a call kill worker after worker.
func TestQuarantine(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, Retry: Retry{Attempts: 10, Backoff: time.Second}, MaxCrashes: 4}, func(t *testing.T, s *sim) {
		task := s.task(3, 0)
		task.Die = true
		_, err := simCall.Call(t.Context(), s.pool, task)
		if e, ok := errors.AsType[*CrashError](err); !ok || e.Crashes != 4 || e.Attempts != 4 {
			t.Errorf("got %#v, want 4 crashes", err)
		}
		if out, err := simCall.Call(t.Context(), s.pool, s.task(4, 0)); out != 16 || err != nil {
			t.Errorf("afterwards: got %d, %v", out, err)
		}
	})
}

// TestRetryEnds has calls that are put off end with their context, and by Close and Stop.
func TestRetryEnds(t *testing.T) {
	for name, end := range map[string]func(s *sim, cancel func()){
		"context": func(_ *sim, cancel func()) { cancel() },
		"stop":    func(s *sim, _ func()) { s.pool.Stop(context.Background()) },
		"kill":    func(s *sim, _ func()) { s.pool.Kill() },
		"close":   func(s *sim, _ func()) { s.pool.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, PoolConfig{Workers: 1, Retry: Retry{Attempts: 3, Backoff: time.Hour, MaxBackoff: time.Hour}}, func(t *testing.T, s *sim) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				task := s.task(3, 0)
				task.Fail = 9
				f := simCall.Go(ctx, s.pool, task)
				<-time.After(time.Second)
				end(s, cancel)
				want := ErrClosed
				if name == "context" {
					want = context.Canceled
				}
				if _, err := f.Wait(t.Context()); !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
				if took := time.Since(s.began); took > time.Minute {
					t.Errorf("it took %v", took)
				}
				if name != "context" {
					s.pool = NewPool(PoolConfig{}) // to be closed
				}
			})
		})
	}
}

// TestStop has calls run, wait with a worker, and wait in the queue.
func TestStop(t *testing.T) {
	simulate(t, PoolConfig{Workers: 2}, func(t *testing.T, s *sim) {
		var fs []*Future[int]
		for i := range 50 {
			fs = append(fs, simCall.Go(t.Context(), s.pool, s.task(i, time.Minute)))
		}
		<-time.After(90 * time.Second)
		if err := s.pool.Stop(t.Context()); err != nil {
			t.Errorf("Stop: %v", err)
		}
		if took := time.Since(s.began); took != 2*time.Minute {
			t.Errorf("it took %v", took)
		}
		for i, f := range fs {
			out, err := f.Wait(t.Context())
			if i < 4 && (out != i*i || err != nil) {
				t.Errorf("call %d, which ran: got %d, %v", i, out, err)
			} else if i >= 4 && !errors.Is(err, ErrClosed) {
				t.Errorf("call %d, which did not: got %d, %v", i, out, err)
			}
		}
		if _, err := simCall.Call(t.Context(), s.pool, s.task(1, 0)); !errors.Is(err, ErrClosed) {
			t.Errorf("afterwards: got %v", err)
		}
	})
}

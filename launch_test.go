package multiproc

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestLaunchFails has no worker come up: the calls that wait are told after three.
func TestLaunchFails(t *testing.T) {
	errNone := errors.New("no more processes")
	simulate(t, PoolConfig{Workers: 1}, func(t *testing.T, s *sim) {
		s.launch = func(int) error { return errNone }
		for round := range 2 {
			began := len(s.started())
			out, err := simCall.Map(t.Context(), s.pool, s.tasks(3, 0), CollectErrors())
			if !errors.Is(err, errNone) || strings.Count(err.Error(), "start worker: no more processes") != 3 {
				t.Errorf("got %v, %v", out, err)
			}
			starts := s.started()[began:]
			if len(starts) != 3 {
				t.Fatalf("round %d: started at %v", round, starts)
			}
			for i, pause := range []time.Duration{10 * time.Millisecond, 20 * time.Millisecond} {
				if got := starts[i+1] - starts[i]; got != pause {
					t.Errorf("round %d: pause %d is %v, want %v", round, i, got, pause)
				}
			}
		}
	})
}

// TestLaunchRecovers has the first workers fail: nobody notices.
func TestLaunchRecovers(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1}, func(t *testing.T, s *sim) {
		s.launch = func(n int) error {
			if n <= 2 {
				return errors.New("try again")
			}
			return nil
		}
		out, err := simCall.Map(t.Context(), s.pool, s.tasks(20, time.Millisecond))
		if len(out) != 20 || err != nil {
			t.Errorf("got %v, %v", out, err)
		}
	})
}

// TestOneWorkerIsEnough has all workers but one fail to start: the calls are run by
// that one, and there is no end of attempts, but ever longer pauses.
func TestOneWorkerIsEnough(t *testing.T) {
	simulate(t, PoolConfig{Workers: 3}, func(t *testing.T, s *sim) {
		s.launch = func(n int) error {
			if n > 1 {
				return errors.New("no more processes")
			}
			return nil
		}
		out, err := simCall.Map(t.Context(), s.pool, s.tasks(100, time.Second))
		if len(out) != 100 || err != nil {
			t.Errorf("got %d results, %v", len(out), err)
		}
		if n := len(s.started()); n > 250 {
			t.Errorf("in 100 s %d workers were started", n)
		}
	})
}

// TestStartTimeout has workers that never say hello.
func TestStartTimeout(t *testing.T) {
	simulate(t, PoolConfig{Workers: 2, StartTimeout: time.Minute}, func(t *testing.T, s *sim) {
		s.worker = silent
		_, err := simCall.Call(t.Context(), s.pool, s.task(1, 0))
		if err == nil || !strings.Contains(err.Error(), "the worker did not call multiproc.Init within 1m0s") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(s.began); took < 3*time.Minute || took > 3*time.Minute+time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

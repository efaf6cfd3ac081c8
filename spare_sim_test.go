package multiproc

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// slowly makes each start of a worker take a second.
func (s *sim) slowly() {
	s.launch = func(int) error {
		time.Sleep(time.Second) // sleep: the clock is that of synctest
		return nil
	}
}

// hireSpares starts the spares and does not wait.
func (s *sim) hireSpares() {
	s.pool.spares.mu.Lock()
	defer s.pool.spares.mu.Unlock()
	s.pool.spares.hire()
}

// TestSpareTakesOver has workers die one after the other: no call waits for a start.
func TestSpareTakesOver(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, Spares: 2}, func(t *testing.T, s *sim) {
		s.slowly()
		s.worker = func(_ int, conn transport.Conn) {
			if sayHello(conn) == nil {
				serveSim(&dying{Conn: conn, left: 6}) // a call to warm up, and one more
			}
		}
		if err := s.pool.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(s.started()); n != 3 {
			t.Errorf("Start has started %d processes", n)
		}
		for i := range 10 {
			began := time.Now()
			simCall.Call(t.Context(), s.pool, s.task(i, 0)) // the worker dies, with its answer or without
			if took := time.Since(began); took != 0 {
				t.Errorf("call %d took %v", i, took)
			}
			time.Sleep(2 * time.Second) // sleep: the clock is that of synctest
		}
		if len(s.begun()) != 10 {
			t.Errorf("calls began: %v", s.begun())
		}
		if n := len(s.started()); n < 10 || n > 13 {
			t.Errorf("%d processes were started", n)
		}
	})
}

// TestSparesAreUsed gives calls one after the other to processes that stand ready, and
// more at once than there are.
func TestSparesAreUsed(t *testing.T) {
	simulate(t, PoolConfig{Workers: 8, Spares: 3}, func(t *testing.T, s *sim) {
		s.pool.cfg.MaxTasks = 1 // as NewProcesses does
		s.slowly()
		if err := s.pool.spares.fill(t.Context()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		var futures []*Future[int]
		for i := range 5 {
			futures = append(futures, simCall.Go(t.Context(), s.pool, s.task(i, 500*time.Millisecond)))
		}
		var ends []time.Duration
		for i, fut := range futures {
			if out, err := fut.Wait(t.Context()); out != i*i || err != nil {
				t.Errorf("call %d: got %d, %v", i, out, err)
			}
			ends = append(ends, time.Since(began))
		}
		// Three are ready, two calls wait for a start.
		slices.Sort(ends)
		if ends[0] != 500*time.Millisecond || ends[2] != ends[0] || ends[3] < time.Second {
			t.Errorf("the calls took %v", ends)
		}
		synctest.Wait()
		time.Sleep(2 * time.Second) // sleep: the clock is that of synctest
		s.pool.spares.mu.Lock()
		defer s.pool.spares.mu.Unlock()
		if n := len(s.pool.spares.all); n != 3 {
			t.Errorf("%d spares are there", n)
		}
	})
}

// TestSpareDies has spares die while they wait: each is replaced, after a growing pause,
// but not for ever; the next use tries once more. A long life is not held against one.
func TestSpareDies(t *testing.T) {
	for _, c := range []struct {
		life time.Duration
		want []time.Duration // when processes are started
	}{
		{0, []time.Duration{0, 10 * time.Millisecond, 30 * time.Millisecond}},
		{time.Second, []time.Duration{0, 1010 * time.Millisecond, 2030 * time.Millisecond}},
		{time.Hour, []time.Duration{0, time.Hour + 10*time.Millisecond, 2*time.Hour + 20*time.Millisecond, 3*time.Hour + 30*time.Millisecond}},
	} {
		simulate(t, PoolConfig{Workers: 1, Spares: 1}, func(t *testing.T, s *sim) {
			s.worker = func(_ int, conn transport.Conn) {
				if sayHello(conn) == nil {
					time.AfterFunc(c.life, func() { conn.Close() })
					serveSim(conn)
				}
			}
			s.hireSpares()
			time.Sleep(3*time.Hour + time.Minute) // sleep: the clock is that of synctest
			if got := s.started(); !slices.Equal(got, c.want) {
				t.Errorf("spares that live for %v are started at %v", c.life, got)
			}
			if l, ready, err := s.pool.spares.get(); (c.life < time.Hour) == ready || err != nil {
				t.Errorf("life %v: got a spare: %v, %v", c.life, ready, err)
			} else {
				l.Reap()
				l.Close()
			}
			before := len(s.started())
			time.Sleep(2 * respite) // sleep: the clock is that of synctest
			if got := len(s.started()) - before; got != 1 {
				t.Errorf("%d spares are started after the next use", got)
			}
		})
	}
}

// TestSparesComeBack kills both of two spares at once: both are replaced.
func TestSparesComeBack(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, Spares: 2}, func(t *testing.T, s *sim) {
		s.worker = func(n int, conn transport.Conn) {
			if sayHello(conn) == nil && n > 2 {
				serveSim(conn)
			}
		}
		s.hireSpares()
		time.Sleep(time.Second) // sleep: the clock is that of synctest
		if err := s.pool.spares.fill(t.Context()); err != nil {
			t.Error(err)
		}
		if got := s.started(); len(got) != 4 {
			t.Errorf("spares were started at %v", got)
		}
	})
}

// TestSpareFails has no spare get ready: Start says why, and nothing is left.
func TestSpareFails(t *testing.T) {
	boom := errors.New("no process to be had")
	simulate(t, PoolConfig{Workers: 1, Spares: 2}, func(t *testing.T, s *sim) {
		s.launch = func(n int) error {
			if n > 1 {
				return boom
			}
			return nil
		}
		if err := s.pool.Start(t.Context()); !errors.Is(err, boom) {
			t.Errorf("Start: %v", err)
		}
		time.Sleep(time.Hour) // sleep: the clock is that of synctest
		if n := len(s.started()); n > 6 {
			t.Errorf("%d processes were started", n)
		}
		s.launch = nil
		if out, err := simCall.Call(t.Context(), s.pool, s.task(3, 0)); out != 9 || err != nil {
			t.Errorf("got %d, %v", out, err)
		}
		if err := s.pool.Start(t.Context()); err != nil {
			t.Errorf("Start: %v", err)
		}
	})
}

// TestSpareSpeaks has a spare say something that nobody has asked for: it is not used.
func TestSpareSpeaks(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, Spares: 1}, func(t *testing.T, s *sim) {
		s.worker = func(n int, conn transport.Conn) {
			if sayHello(conn) != nil {
				return
			}
			if n == 1 {
				time.AfterFunc(time.Minute, func() { conn.Send(wire.Append(nil, wire.Started, 1, nil), nil, transport.Now) })
			}
			serveSim(conn)
		}
		s.hireSpares()
		time.Sleep(time.Hour) // sleep: the clock is that of synctest
		if got := s.started(); len(got) != 2 || got[1] != time.Minute+10*time.Millisecond {
			t.Errorf("spares were started at %v", got)
		}
		if out, err := simCall.Call(t.Context(), s.pool, s.task(3, 0)); out != 9 || err != nil {
			t.Errorf("got %d, %v", out, err)
		}
	})
}

// TestSpareFreezes has spares freeze between their greeting and their first call: they are
// replaced.
func TestSpareFreezes(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, Spares: 1, StartTimeout: time.Minute}, func(t *testing.T, s *sim) {
		s.worker = func(n int, conn transport.Conn) {
			if sayHello(conn) != nil {
				return
			}
			if n == 1 {
				silent(n, conn)
				return
			}
			serveSim(conn)
		}
		s.hireSpares()
		time.Sleep(time.Hour) // sleep: the clock is that of synctest
		if got := s.started(); len(got) != 2 || got[1] != time.Minute+10*time.Millisecond {
			t.Errorf("spares were started at %v", got)
		}
	})
}

// TestSparesOfStart gives calls to spares by Func.Start.
func TestSparesOfStart(t *testing.T) {
	simulate(t, PoolConfig{}, func(t *testing.T, s *sim) {
		s.slowly()
		spares := NewSpares(2, ProcessConfig{Name: "spare"})
		spares.start, spares.may = s.start, func() error { return nil }
		defer spares.Close()
		cfg := ProcessConfig{Spares: spares, KillGrace: time.Minute}
		var waits []time.Duration
		for i := range 4 {
			began := time.Now()
			p, err := simCall.Start(t.Context(), s.task(i, 0), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := p.Wait(t.Context()); out != i*i || err != nil || p.Name() != "spare" {
				t.Errorf("call %d in %q: got %d, %v", i, p.Name(), out, err)
			}
			waits = append(waits, time.Since(began))
			if i == 0 {
				time.Sleep(2 * time.Second) // sleep: the clock is that of synctest
			}
		}
		// The first had to be started, the next two stood ready, the last had to be started.
		if want := []time.Duration{time.Second, 0, 0, time.Second}; !slices.Equal(waits, want) {
			t.Errorf("the calls took %v", waits)
		}
		if err := spares.Close(); err != nil {
			t.Error(err)
		}
		for _, err := range []error{startErr(t, s, cfg), spares.Start(t.Context())} {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		}
	})
}

// TestStartOfSparesGivesUp ends the context of a Start: no spare is left.
func TestStartOfSparesGivesUp(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, Spares: 2}, func(t *testing.T, s *sim) {
		s.slowly()
		spares := s.pool.spares
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := spares.fill(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Start: %v", err)
		}
		spares.mu.Lock()
		defer spares.mu.Unlock()
		if len(spares.all) > 0 {
			t.Errorf("%d spares are left", len(spares.all))
		}
	})
}

func startErr(t *testing.T, s *sim, cfg ProcessConfig) error {
	_, err := simCall.Start(t.Context(), s.task(1, 0), cfg)
	return err
}

// TestSparesConfig is refused what cannot be.
func TestSparesConfig(t *testing.T) {
	good := NewSpares(1, ProcessConfig{})
	for says, cfg := range map[string]ProcessConfig{
		"only Name and KillGrace": {Spares: good, Dir: "/"},
		"KillGrace":               {Spares: good, KillGrace: -1},
		"not made by":             {Spares: new(Spares)},
		"n is -1":                 {Spares: NewSpares(-1, ProcessConfig{})},
		"GOMAXPROCS is -1":        {Spares: NewSpares(1, ProcessConfig{GOMAXPROCS: -1})},
		"cannot have Spares":      {Spares: NewSpares(1, ProcessConfig{Spares: good})},
	} {
		_, err := simCall.Start(t.Context(), simTask{}, cfg)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v", says, err)
		}
	}
	if err := NewPool(PoolConfig{Spares: -1}).Start(t.Context()); err == nil || !strings.Contains(err.Error(), "Spares") {
		t.Errorf("a pool with -1 spares: %v", err)
	}
}

package multiproc

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// TestExceededAgain has a process say again and again that its call has exceeded its limit.
func TestExceededAgain(t *testing.T) {
	simulate(t, PoolConfig{}, func(t *testing.T, s *sim) {
		s.worker = func(_ int, conn transport.Conn) {
			sayHello(conn)
			for {
				m, err := transport.Recv(conn)
				if err != nil {
					return
				}
				if m.Kind == wire.Calls {
					conn.Send(started(1), nil, transport.Now)
					for conn.Send(wire.Append(nil, wire.Exceeded, 1, wire.AppendNumber(nil, exceededTime)), nil, transport.Now) == nil {
						time.Sleep(time.Second) // sleep: the clock is that of synctest
					}
					return
				}
			}
		}
		spares := NewSpares(0, ProcessConfig{CallTimeout: time.Second, KillGrace: time.Second})
		spares.start = s.start
		p, err := simCall.Start(t.Context(), s.task(3, 0), ProcessConfig{Spares: spares})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_, err = p.Wait(ctx)
		if ctx.Err() != nil {
			t.Errorf("CallTimeout 1s: got %v after %v", err, time.Since(s.began))
		}
		p.Kill()
		<-p.Done()
		time.Sleep(2 * time.Second) // sleep: the clock is that of synctest. The worker sees its end
	})
}

// TestOldIdles has a worker be too old that has no heir, as it is to run one call: it ends when idle.
func TestOldIdles(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, MaxTasks: 1, MaxAge: time.Second, IdleTimeout: 5 * time.Second}, func(t *testing.T, s *sim) {
		if err := s.pool.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // sleep: the clock is that of synctest
		if n := len(s.pool.Snapshot().Workers); n > 0 {
			t.Errorf("%d workers after an hour, IdleTimeout is 5s", n)
		}
	})
}

// TestHeirsPause has heirs fail to start while calls go on: they are not tried with each call.
func TestHeirsPause(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, MaxTasks: 8000}, func(t *testing.T, s *sim) {
		s.launch = func(n int) error {
			if n > 1 {
				return errors.New("no room")
			}
			return nil
		}
		for range 7900 {
			if _, err := simCall.Call(t.Context(), s.pool, s.task(1, time.Millisecond)); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(s.started()); n < 2 || n > 4 {
			t.Errorf("%d starts in 8 s", n)
		}
	})
}

// TestUnkillable has a process survive its SIGKILL, stuck in the kernel: nobody waits for ever.
func TestUnkillable(t *testing.T) {
	for _, k := range []string{"timeout", "kill"} {
		simulate(t, PoolConfig{Workers: 1, CallTimeout: time.Second, KillGrace: time.Second}, func(t *testing.T, s *sim) {
			s.worker = func(n int, conn transport.Conn) {
				sayHello(conn)
				for {
					m, err := transport.Recv(conn)
					if err != nil {
						return
					}
					if m.Kind == wire.Calls {
						conn.Send(started(m.ID), nil, transport.Now)
						<-s.released
						return
					}
				}
			}
			s.pool.launch = func() (link, error) {
				l, err := s.start()
				if err != nil {
					return nil, err
				}
				return &stuckLink{l.(*simLink)}, nil
			}
			f := simCall.Go(t.Context(), s.pool, s.task(1, 0))
			if k == "kill" {
				time.Sleep(time.Millisecond) // sleep: the clock is that of synctest
				done := make(chan struct{})
				go func() { // ends when Kill does; waited for below
					s.pool.Kill()
					close(done)
				}()
				select {
				case <-done:
				case <-time.After(time.Hour):
					t.Error("Kill has not returned after an hour")
				}
				return
			}
			select {
			case <-f.Done():
			case <-time.After(time.Hour):
				t.Error("the call with a CallTimeout of 1s has no answer after an hour")
			}
		})
	}
}

// stuckLink is the link to a process on which SIGKILL does nothing yet.
type stuckLink struct{ *simLink }

func (l *stuckLink) Signal(sig syscall.Signal) error { return nil }

// TestSwallows has workers take calls and do nothing: the third one is the last.
func TestSwallows(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, CallTimeout: time.Second, KillGrace: time.Second}, func(t *testing.T, s *sim) {
		s.worker = func(n int, conn transport.Conn) {
			sayHello(conn)
			for {
				if _, err := transport.Recv(conn); err != nil {
					return
				}
			}
		}
		f := simCall.Go(t.Context(), s.pool, s.task(1, 0))
		select {
		case <-f.Done():
		case <-time.After(time.Hour):
			t.Error("no answer after an hour")
		}
		if _, err := f.Wait(t.Context()); err == nil {
			t.Error("a call that nobody has run has a result")
		}
		s.pool.Kill()
	})
}

// busyLink is a link on which something large moves for 40 s, so that the worker cannot get
// anything else through.
type busyLink struct {
	*simLink
	began time.Time
}

func (l *busyLink) Traffic() transport.Traffic {
	return transport.Traffic{Moved: uint64(min(time.Since(l.began), 40*time.Second)), Partial: true}
}

// TestLargeIsAlive has something large be under way for longer than a sign of life may take, and
// then stand still.
func TestLargeIsAlive(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, Heartbeat: 5 * time.Second}, func(t *testing.T, s *sim) {
		s.worker = script(started(1))
		s.pool.launch = func() (link, error) {
			l, err := s.start()
			if err != nil {
				return nil, err
			}
			return &busyLink{l.(*simLink), time.Now()}, nil
		}
		_, err := simCall.Call(t.Context(), s.pool, s.task(1, 0))
		if took := time.Since(s.began); took < 55*time.Second || took > 70*time.Second {
			t.Errorf("got %v after %v, want the worker to be killed 15 to 30 s after the last byte", err, took)
		}
	})
}

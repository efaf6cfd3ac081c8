package multiproc

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// idle is a result that takes an hour to decode where it says so.
type idle struct{ text string }

func (a idle) MarshalText() ([]byte, error) { return []byte(a.text), nil }

func (a *idle) UnmarshalText(b []byte) error {
	if a.text = string(b); a.text == "hour" {
		<-time.After(time.Hour)
	}
	return nil
}

var simIdle = Register("sim.idle", func(ctx context.Context, a idle) (idle, error) {
	if a.text == "wait" {
		<-ctx.Done()
	}
	return a, nil
})

// together has the calls of a function handed out many at a time.
func (s *sim) together(function string) {
	s.pool.costs.of(function).ran.Store(int64(time.Microsecond))
}

// TestSlowDecoding has the parent decode a result for an hour: meanwhile a worker that does
// not react is killed nevertheless, later than else, as it may have reacted.
func TestSlowDecoding(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1, KillGrace: time.Second, Heartbeat: -1}, func(t *testing.T, s *sim) {
		s.together("sim.idle")
		ended := make(chan time.Duration, 10)
		text := func(id uint64) []byte {
			return wire.Append(nil, wire.Result, id, append(wire.AppendRan(nil, time.Second), "\x64hour"...))
		}
		s.worker = func(n int, conn transport.Conn) {
			script(slices.Concat(started(1), text(1), started(2)))(n, conn)
			ended <- time.Since(s.began)
		}
		simIdle.Go(t.Context(), s.pool, idle{"hour"})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		simIdle.Call(ctx, s.pool, idle{"wait"})
		if at := <-ended; at < heldUp || at > heldUp+15*time.Second {
			t.Errorf("the worker is killed after %v", at)
		}
		s.pool.Kill()
		s.pool = NewPool(PoolConfig{})
	})
}

// TestReturnOfNothing has a worker give back billions of calls that it does not have.
func TestReturnOfNothing(t *testing.T) {
	p := NewPool(PoolConfig{Workers: 1})
	p.stopped, p.dead = true, true // what comes back is not run
	e := &entry{b: &Batch{n: 3}, out: 3, left: 3}
	w := &worker{p: p}
	far := uint64(1 << 30)
	w.flight = []flying{{span: span{e, 0, 1}, id: 1}, {span: span{e, 1, 2}, id: far}}
	w.open, w.in.running = 3, far+1
	w.out.said.Store(1 << 40)
	done := make(chan struct{})
	var back []span
	go func() { // ends at once; waited for below
		defer close(done)
		for range 1000 {
			back = append(back, w.takeBack(2, 1<<31-1)...)
		}
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("it looks at each of them")
	}
	if len(w.flight) != 2 || w.flight[0].id != 1 || w.flight[1].id != far+1 || !slices.Equal(back, []span{{e, 1, 1}}) {
		t.Errorf("%v is back, and the worker has %v", back, w.flight)
	}
}

// TestEarlyAnswers has a worker answer a call when it has read the beginning of its argument.
// The parent goes on reading that, so it must not become the caller's again.
func TestEarlyAnswers(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1}, func(t *testing.T, s *sim) {
		s.worker = func(n int, conn transport.Conn) {
			if sayHello(conn) != nil {
				return
			}
			if n > 1 {
				serveSim(conn)
				return
			}
			conn.Wait(0) // the beginning
			conn.Send(slices.Concat(started(1), wire.Append(nil, wire.Result, 1, append(wire.AppendRan(nil, 0), 0x05))), nil, transport.Now)
			for {
				if _, err := transport.Recv(conn); err != nil {
					return
				}
			}
		}
		in := bytes.Repeat([]byte{1}, 1<<20)
		for out, err := range simLength.Stream(t.Context(), s.pool, func(yield func([]byte) bool) { yield(in) }) {
			if out != len(in) || err != nil {
				t.Errorf("got %d, %v, want the result of another worker", out, err)
			}
		}
	})
}

var simLength = Register("sim.length", func(_ context.Context, b []byte) (int, error) { return len(b), nil })

// TestStartBeforeCall has a worker say that it runs a call that is being encoded, and no more.
func TestStartBeforeCall(t *testing.T) {
	for name, cfg := range map[string]PoolConfig{"one": {Workers: 1}, "several": {Workers: 1, Concurrency: 2}} {
		t.Run(name, func(t *testing.T) {
			simulate(t, cfg, func(t *testing.T, s *sim) {
				encodes := make(chan struct{})
				s.worker = func(n int, conn transport.Conn) {
					if sayHello(conn) != nil {
						return
					}
					if n > 1 {
						serve(conn, cfg.worker(), func() { conn.Close() })
						return
					}
					<-encodes
					conn.Send(started(1), nil, transport.Now)
				}
				f := slowlyEncoded.Go(t.Context(), s.pool, slowArg{&sync.Once{}, encodes, 3})
				if out, err := f.Wait(t.Context()); out != 3 || err != nil {
					t.Errorf("got %d, %v, want the result of another worker", out, err)
				}
			})
		})
	}
}

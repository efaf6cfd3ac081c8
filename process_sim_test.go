package multiproc

import (
	"testing"
	"time"

	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// TestResultBeforeEnd has a process answer and not end: Result returns, Wait waits until
// it has been killed.
func TestResultBeforeEnd(t *testing.T) {
	simulate(t, PoolConfig{}, func(t *testing.T, s *sim) {
		s.worker = func(_ int, conn transport.Conn) {
			if sayHello(conn) != nil {
				return
			}
			call, err := transport.Recv(conn)
			if err != nil {
				t.Error(err)
				return
			}
			answer := wire.AppendRan(wire.Begin(nil, wire.Result, call.ID), 0)
			answer = append(answer, 9) // CBOR for itself
			if err := wire.End(answer, 0); err != nil {
				t.Error(err)
			}
			conn.Send(wire.Append(nil, wire.Started, call.ID, nil), nil, transport.Now)
			conn.Send(answer, nil, transport.Now)
			silent(1, conn)
		}
		spares := NewSpares(0, ProcessConfig{KillGrace: time.Minute})
		spares.start = s.start
		p, err := simCall.Start(t.Context(), s.task(3, 0), ProcessConfig{Spares: spares})
		if err != nil {
			t.Fatal(err)
		}
		if out, err := p.Result(t.Context()); out != 9 || err != nil || time.Since(s.began) > 0 {
			t.Errorf("Result is %d, %v after %v", out, err, time.Since(s.began))
		}
		if !p.Alive() || p.ExitState() != nil {
			t.Error("the process has ended")
		}
		if out, err := p.Wait(t.Context()); out != 9 || err != nil || time.Since(s.began) != time.Minute {
			t.Errorf("Wait returns %d, %v after %v", out, err, time.Since(s.began))
		}
		if p.Alive() {
			t.Error("the process has not ended")
		}
	})
}

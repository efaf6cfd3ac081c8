package multiproc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/seed84f35039/multiproc/internal/handover"
	"github.com/seed84f35039/multiproc/internal/shm"
	"github.com/seed84f35039/multiproc/internal/transport"
)

// simMemory is shared memory as package shared has it.
type simMemory struct{ *handover.Handle }

func (m simMemory) MarshalCBOR() ([]byte, error) { return handover.Marshal(m.Handle) }
func (m *simMemory) UnmarshalCBOR(data []byte) (err error) {
	m.Handle, err = handover.Unmarshal(data)
	return err
}

// simSwap adds 1 to the first byte of each memory and returns them in another order,
// with new memory.
var simSwap = Register("sim.swap", func(_ context.Context, ms []simMemory) ([]simMemory, error) {
	for _, m := range ms {
		handover.Bytes(m.Handle)[0]++
	}
	h, err := handover.New(10)
	return append([]simMemory{{h}, ms[len(ms)-1]}, ms[:len(ms)-1]...), err
})

func (l *simLink) Files() transport.Files { return transport.FilesOf(l.Conn) }
func (d *dying) Files() transport.Files   { return transport.FilesOf(d.Conn) }

// TestMemoryAndDeaths has workers die between any two frames: the calls of others have
// their memory when they run elsewhere, and nothing stays mapped (see TestMain).
func TestMemoryAndDeaths(t *testing.T) {
	if !shm.Supported {
		t.Skip("this system has no memory without a name that processes could share")
	}
	for seed := range 50 {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			simulate(t, PoolConfig{Workers: 1 + seed%3}, func(t *testing.T, s *sim) {
				rng := rand.New(rand.NewPCG(uint64(seed), 1))
				s.worker = func(_ int, conn transport.Conn) {
					s.mu.Lock()
					conn = &dying{Conn: conn, left: 5 + rng.IntN(40)}
					s.mu.Unlock()
					if sayHello(conn) == nil {
						serveSim(conn)
					}
				}
				all := make([]simMemory, 20)
				for i := range all {
					h, err := handover.New(10)
					if err != nil {
						t.Fatal(err)
					}
					defer handover.Close(h)
					all[i] = simMemory{h}
				}
				const calls = 30
				in := make([][]simMemory, calls)
				for i := range in {
					for range 1 + rng.IntN(4) {
						in[i] = append(in[i], all[rng.IntN(len(all))])
					}
				}
				var opts []MapOption
				if seed%2 == 0 {
					opts = append(opts, WithBatch(1+rng.IntN(50)))
				}
				out, err := simSwap.Map(context.Background(), s.pool, in, append(opts, CollectErrors())...)
				failed := map[int]bool{}
				if err != nil {
					for _, err := range err.(interface{ Unwrap() []error }).Unwrap() {
						crash, ok := errors.AsType[*CrashError](err)
						if !ok {
							t.Fatalf("got %v", err)
						}
						failed[crash.Index] = true
					}
				}
				for i, ms := range out {
					if failed[i] {
						continue
					}
					if len(ms) != len(in[i])+1 || len(handover.Bytes(ms[0].Handle)) != 10 {
						t.Fatalf("call %d returned %v", i, ms)
					}
					sent := in[i][len(in[i])-1]
					handover.Bytes(sent.Handle)[9] = byte(i)
					if got := handover.Bytes(ms[1].Handle)[9]; got != byte(i) {
						t.Errorf("call %d returned other memory than it got", i)
					}
					for _, m := range ms {
						handover.Close(m.Handle)
					}
				}
			})
		})
	}
}

// gone is a parent's end whose peer dies when the parent is about to send memory.
type gone struct{ transport.Conn }

func (g gone) Files() transport.Files { return goneFiles{transport.FilesOf(g.Conn), g.Conn} }

type goneFiles struct {
	transport.Files
	conn transport.Conn
}

func (g goneFiles) Send([]*os.File) error {
	g.conn.Close()
	return os.ErrClosed
}

// TestMemoryForTheDead has a worker die before it gets the memory of a call, which it has not begun: another
// runs it.
func TestMemoryForTheDead(t *testing.T) {
	if !shm.Supported {
		t.Skip("this system has no memory without a name that processes could share")
	}
	simulate(t, PoolConfig{Workers: 1}, func(t *testing.T, s *sim) {
		s.parent = func(n int, conn transport.Conn) transport.Conn {
			if n == 1 {
				return gone{conn}
			}
			return conn
		}
		h, err := handover.New(10)
		if err != nil {
			t.Fatal(err)
		}
		defer handover.Close(h)
		out, err := simSwap.Call(context.Background(), s.pool, []simMemory{{h}})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range out {
			handover.Close(m.Handle)
		}
		if b := handover.Bytes(h)[0]; b != 1 || len(s.started()) != 2 {
			t.Errorf("the function ran %d times, %d workers were started", b, len(s.started()))
		}
	})
}

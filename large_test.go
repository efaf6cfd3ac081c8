package multiproc

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// sums counts the calls of simSum.
var sums atomic.Int32

// simSum adds up bytes.
var simSum = Register("sim.sum", func(_ context.Context, b []byte) (int, error) {
	sum := 0
	for _, x := range b {
		sum += int(x)
	}
	sums.Add(1)
	return sum, nil
})

// patient is a connection that sends no large argument before it may.
type patient struct {
	transport.Conn
	may chan struct{}
}

func (p patient) Send(frames []byte, tail wire.Tail, how transport.How) error {
	if tail != nil {
		<-p.may
	}
	return p.Conn.Send(frames, tail, how)
}

// A caller that leaves while its large argument is on the way leaves at once, may use the
// argument for something else, and the function does not get to see it.
func TestLeaveWhileSending(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1}, func(t *testing.T, s *sim) {
		may := make(chan struct{}, 1)
		s.parent = func(_ int, c transport.Conn) transport.Conn { return patient{c, may} }
		before := sums.Load()
		big := bytes.Repeat([]byte{1}, 3*wire.Large)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		_, err := simSum.Call(ctx, s.pool, big)
		if !errors.Is(err, context.Canceled) || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		clear(big) // the race detector would see that somebody reads it
		may <- struct{}{}
		synctest.Wait()
		if sums.Load() != before {
			t.Error("the function ran")
		}
		may <- struct{}{}
		if sum, err := simSum.Call(t.Context(), s.pool, bytes.Repeat([]byte{1}, 3*wire.Large)); sum != 3*wire.Large || err != nil {
			t.Errorf("the next call: %d, %v", sum, err)
		}
	})
}

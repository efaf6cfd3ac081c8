package transport

import (
	"fmt"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc/internal/wire"
)

// BenchmarkRoundTrip sends a frame to the other end, which sends it back: over each kind of
// connection, where both ends wait, and over rings where both look out.
func BenchmarkRoundTrip(b *testing.B) {
	for _, c := range []struct {
		name string
		pair func(testing.TB) (parent, worker Conn)
		spin time.Duration
	}{
		{"pipe", pairs["pipe"], 0},
		{"socket", pairs["socket"], 0},
		{"rings", pairs["rings"], 0},
		{"rings", pairs["rings"], time.Millisecond},
	} {
		b.Run(fmt.Sprintf("conn=%s/spin=%v", c.name, c.spin), func(b *testing.B) {
			parent, worker := c.pair(b)
			defer parent.Close()
			defer worker.Close()
			recv := func(c Conn, spin time.Duration) (wire.Frame, error) {
				if spin > 0 {
					if _, err := c.Poll(spin, 1); err != nil {
						return wire.Frame{}, err
					}
				}
				return Recv(c)
			}
			done := make(chan struct{})
			go func() { // ends when the connection does; waited for below
				defer close(done)
				for {
					f, err := recv(worker, c.spin)
					if err != nil || worker.Send(wire.Append(nil, f.Kind, f.ID, f.Body), nil, Now) != nil {
						return
					}
				}
			}()
			frame := wire.Append(nil, wire.Stop, 1, []byte{0})
			for b.Loop() {
				if err := parent.Send(frame, nil, Now); err != nil {
					b.Fatal(err)
				}
				if _, err := recv(parent, c.spin); err != nil {
					b.Fatal(err)
				}
			}
			parent.Close()
			worker.Close()
			<-done
		})
	}
}

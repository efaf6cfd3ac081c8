package cluster

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestMoreThanAThousandFollow has more follow the leases than a server allows by itself: each agent does.
func TestMoreThanAThousandFollow(t *testing.T) {
	t.Parallel()
	c, err := Dial(proctest.Within(t), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	js := c.link.(*natsLink).js
	for _, name := range []string{"KV_" + leasesBucket, "KV_" + agentsBucket, resultsStream + defaultUser} {
		s, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if most := s.CachedInfo().Config.MaxConsumers; most < maxConsumers {
			t.Errorf("%s: %d may follow at once", name, most)
		}
	}
	s, err := js.Stream(t.Context(), "KV_"+leasesBucket)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 1100 {
		_, err := s.CreateConsumer(proctest.Within(t), jetstream.ConsumerConfig{Name: fmt.Sprint("follower", n), AckPolicy: jetstream.AckNonePolicy})
		if err != nil {
			t.Fatalf("consumer %d: %v", n, err)
		}
	}
}

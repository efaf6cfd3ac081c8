package cluster

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestGap has a result not come that was delivered: those after it are not taken, but asked for again from there on.
func TestGap(t *testing.T) {
	e, err := embed()
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	nc, err := nats.Connect("", e.option())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	p, err := newPuller(nc, "S", "C", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close(nil)
	p.left = fetchMost                                      // so that it asks for none
	for _, m := range []string{"1.5.1", "1.7.2", "1.9.4"} { // deliveries, number in the stream, number at the consumer
		p.messages <- &nats.Msg{Sub: p.sub, Reply: "$JS.ACK.S.C." + m + ".1700000000000000000.0", Data: []byte(m)}
	}
	li := &listener{puller: p, next: 1}
	var took []string
	err = li.fetch(proctest.Within(t), nil, func(data []byte) { took = append(took, string(data)) })
	if err != errGap || len(took) != 2 || li.next != 8 {
		t.Errorf("took %v, then %v; goes on at %d, want 8", took, err, li.next)
	}
}

// newsOf is what a bucket says of a key: its value, or that it is gone.
type newsOf struct {
	jetstream.KeyValueEntry
	key  string
	gone bool
}

func (n newsOf) Key() string   { return n.key }
func (n newsOf) Value() []byte { return []byte(n.key) }
func (n newsOf) Operation() jetstream.KeyValueOp {
	if n.gone {
		return jetstream.KeyValuePurge
	}
	return jetstream.KeyValuePut
}

// TestGoneAfterAReconnection has keys not be there after a connection was lost, be it because the bucket was made anew or because
// nobody could renew them: they are gone only when they have not come back in time.
func TestGoneAfterAReconnection(t *testing.T) {
	const wait = 10 * time.Second
	for what, c := range map[string]struct {
		known []string
		says  []jetstream.KeyValueEntry
		wait  time.Duration
		want  string // what is said, and when, in seconds
	}{
		"at first, gone at once":      {nil, []jetstream.KeyValueEntry{newsOf{key: "a"}, nil, newsOf{key: "a", gone: true}}, 0, "a0 -a2"},
		"the bucket has been emptied": {[]string{"a", "b"}, []jetstream.KeyValueEntry{newsOf{key: "b"}, nil, newsOf{key: "b"}}, wait, "b0 b2 -a11"},
		"it came back":                {[]string{"a"}, []jetstream.KeyValueEntry{nil, newsOf{key: "a"}}, wait, "a1"},
		"it ran out, and came back":   {[]string{"a"}, []jetstream.KeyValueEntry{newsOf{key: "a"}, nil, newsOf{key: "a", gone: true}, newsOf{key: "a"}}, wait, "a0 a3"},
		"it ran out":                  {[]string{"a"}, []jetstream.KeyValueEntry{newsOf{key: "a"}, nil, newsOf{key: "a", gone: true}}, wait, "a0 -a12"},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*wait)
			defer cancel()
			updates := make(chan jetstream.KeyValueEntry)
			var feeding sync.WaitGroup
			defer feeding.Wait()
			feeding.Go(func() { // ends when all has been taken
				<-time.After(time.Second / 2)
				for _, entry := range c.says {
					updates <- entry
					<-time.After(time.Second)
				}
			})
			keys := keysSeen{known: map[string]bool{}, gone: map[string]time.Duration{}, patience: c.wait}
			for _, key := range c.known {
				keys.known[key] = true
			}
			began := time.Now()
			var said []string
			keys.follow(ctx, updates, nil, func() bool { return true }, func(key string, value []byte) {
				if value == nil {
					key = "-" + key
				}
				said = append(said, fmt.Sprintf("%s%d", key, time.Since(began)/time.Second))
			})
			proctest.Want(t, what, strings.Join(said, " "), c.want)
		})
	}
}

// TestGoneWhileConnectionsFlap has connections not last as long as it takes until what is not there counts as gone.
func TestGoneWhileConnectionsFlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := keysSeen{known: map[string]bool{"a": true}, gone: map[string]time.Duration{}, patience: 10 * time.Second}
		began, gone := time.Now(), time.Duration(0)
		for range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), 4500*time.Millisecond)
			updates := make(chan jetstream.KeyValueEntry, 1)
			updates <- nil
			keys.follow(ctx, updates, nil, func() bool { return true }, func(string, []byte) { gone = time.Since(began) })
			cancel()
		}
		if gone < keys.patience || gone > keys.patience+2*time.Second {
			t.Errorf("it is gone after %v", gone)
		}
	})
}

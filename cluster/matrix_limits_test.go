//go:build linux

package cluster_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/cluster"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// consumer is the name of that of the agents of this platform.
const consumer = "agents-" + runtime.GOOS + "-" + runtime.GOARCH

// large has arguments and results that are larger than a message may be.
func large(s *scene) {
	server := startServer(s.T, cluster.ServerConfig{})
	c := dial(s.T, cluster.Config{URL: server.URL()})
	s.within(cluster.AgentConfig{URL: server.URL(), Pool: workers(2)})
	in := make([][]byte, 6)
	for i := range in {
		in[i] = bytes.Repeat([]byte{byte(i)}, 3<<20+i)
	}
	s.echo(c, in)
}

// echo has arguments come back, and compares.
func (s *scene) echo(c *cluster.Cluster, in [][]byte, opts ...multiproc.MapOption) {
	s.Helper()
	out, err := proctest.Echo.Map(proctest.Within(s), c, in, opts...)
	if err != nil {
		s.Fatal(err)
	}
	now := tally{made: len(in), silent: true}
	for i := range in {
		if !bytes.Equal(in[i], out[i]) {
			now.wrong++
			s.Errorf("call %d: got %d bytes, want %d", i, len(out[i]), len(in[i]))
		}
	}
	s.note(now)
}

// tasksFull has no room on the server for what the submitter would send.
func tasksFull(s *scene) {
	server := startServer(s.T, cluster.ServerConfig{})
	c := dial(s.T, cluster.Config{URL: server.URL()})
	js := s.operator(server.URL())
	const room, size = 64 << 10, 20 << 10
	s.alter(js, tasksStream, func(cfg *jetstream.StreamConfig) { cfg.MaxBytes = room })
	all := s.works(40)
	for i := range all {
		all[i].Pad = make([]byte, size)
	}
	full := make(chan struct{})
	go func() { // ends when there is no room, or the test has failed; waited for below
		defer close(full)
		proctest.Eventually(s, proctest.Patience, "there is no room", func() bool { return left(s, js) == room/size })
		s.within(cluster.AgentConfig{URL: server.URL(), Pool: workers(2)})
	}()
	s.allRight(s.labour(c, all, nil, multiproc.WithBatch(1)))
	<-full
}

// resultsFull has no room on the server for what agents would answer, until the submitter has taken some.
func resultsFull(s *scene) {
	server := startServer(s.T, cluster.ServerConfig{})
	c := dial(s.T, cluster.Config{URL: server.URL()})
	js := s.operator(server.URL())
	const room, size = 256 << 10, 20 << 10
	s.alter(js, resultsStream, func(cfg *jetstream.StreamConfig) { cfg.MaxBytes = room })
	s.within(cluster.AgentConfig{URL: server.URL(), Pool: workers(2)})
	in := make([][]byte, 3*room/size/2)
	for i := range in {
		in[i] = bytes.Repeat([]byte{byte(i)}, size)
	}
	s.echo(c, in, multiproc.WithBatch(1))
}

// manyPulls has more agents ask for chunks than a consumer of JetStream lets by itself.
func manyPulls(s *scene) {
	const n = 600
	server := startServer(s.T, cluster.ServerConfig{})
	c := dial(s.T, cluster.Config{URL: server.URL()})
	js := s.operator(server.URL())
	nc := js.Conn()
	inbox := nats.NewInbox()
	got, err := nc.SubscribeSync(inbox)
	if err != nil {
		s.Fatal(err)
	}
	ask := []byte(fmt.Sprintf(`{"batch":1,"expires":%d,"idle_heartbeat":%d}`, 5*time.Second, time.Second))
	for range n {
		if err := nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+tasksStream+"."+consumer, inbox, ask); err != nil {
			s.Fatal(err)
		}
	}
	proctest.Eventually(s, proctest.Patience, "all of them wait", func() bool {
		found, err := js.Consumer(proctest.Within(s), tasksStream, consumer)
		return err == nil && found.CachedInfo().NumWaiting == n
	})
	got.Unsubscribe() // so that the server drops them
	s.within(cluster.AgentConfig{URL: server.URL(), Pool: workers(2)})
	s.allRight(s.labour(c, s.works(100), nil))
}

// manyBytes has chunks and results that are together more than the server lets wait for a connection, which is 64 MiB.
func manyBytes(s *scene) {
	n, ctx := 200, proctest.Within(s)
	if s.heavy {
		n, ctx = 3000, s.Context()
	}
	server := startServer(s.T, cluster.ServerConfig{})
	c := dial(s.T, cluster.Config{URL: server.URL()})
	s.within(cluster.AgentConfig{URL: server.URL(), Pool: workers(2)})
	in := func(yield func([]byte) bool) {
		for i := range n {
			if !yield(fmt.Append(make([]byte, 0, 100_000), i, string(make([]byte, 99_000)))) {
				return
			}
		}
	}
	now := tally{made: n, silent: true}
	seen := map[int]bool{}
	for r := range proctest.Echo.StreamUnordered(ctx, c, in, multiproc.WithBatch(1), multiproc.WithWindow(n)) {
		if want := fmt.Append(nil, r.Index); r.Err != nil || seen[r.Index] || !bytes.HasPrefix(r.Value, want) || len(r.Value) < 99_000 {
			now.wrong++
			s.Errorf("call %d: got %d bytes, %v", r.Index, len(r.Value), r.Err)
		}
		seen[r.Index] = true
	}
	now.lost = n - len(seen)
	s.note(now)
	if slow := server.SlowConsumers(); slow > 0 || now.lost > 0 {
		s.Errorf("the server has closed %d connections; %d calls are lost", slow, now.lost)
	}
}

// TestSmallMessages has a server that takes smaller messages than there are: that is said at once, rather than by calls
// that never end.
func TestSmallMessages(t *testing.T) {
	t.Parallel()
	s := &scene{T: t}
	server := startServer(t, cluster.ServerConfig{File: s.config("max_payload: 64KB\n")})
	_, err := cluster.Dial(proctest.Within(t), cluster.Config{URL: server.URL()})
	errAgent := cluster.RunAgent(proctest.Within(t), cluster.AgentConfig{URL: server.URL(), AllowUnsigned: true, CacheDir: t.TempDir()})
	for _, err := range []error{err, errAgent} {
		if err == nil || !strings.Contains(err.Error(), "max_payload") {
			t.Errorf("got %v, want that max_payload is too small", err)
		}
	}
}

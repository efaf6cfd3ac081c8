//go:build unix

package cluster

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestOutageIsTold has a server end and come back: both are told to who wants to know.
func TestOutageIsTold(t *testing.T) {
	t.Parallel()
	var said [2]said
	server := ServerConfig{Listen: "127.0.0.1:0", Dir: t.TempDir()}
	s, err := StartServer(server)
	if err != nil {
		t.Fatal(err)
	}
	server.Listen = strings.TrimPrefix(s.URL(), "nats://")
	c, err := Dial(proctest.Within(t), Config{URL: s.URL(), Logger: slog.New(slog.NewTextHandler(&said[0], nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	runAgent(t, AgentConfig{URL: s.URL(), AllowUnsigned: true, Logger: slog.New(slog.NewTextHandler(&said[1], nil)), Pool: multiproc.PoolConfig{Workers: 1}})
	if _, err := proctest.Square.Call(proctest.Within(t), c, 3); err != nil {
		t.Fatal(err)
	}
	s.Close()
	for i := range said {
		proctest.Eventually(t, proctest.Patience, "the loss is told", func() bool { return said[i].has("lost the connection") })
	}
	if s, err = StartServer(server); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range said {
		proctest.Eventually(t, proctest.Patience, "the return is told", func() bool { return said[i].has("connected again") })
	}
}

// TestConnectionGivenUp has options of the connection that do not let it be made again: what waits fails, and an agent ends.
func TestConnectionGivenUp(t *testing.T) {
	t.Parallel()
	s, err := StartServer(ServerConfig{Listen: "127.0.0.1:0", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := Dial(proctest.Within(t), Config{URL: s.URL(), Options: []nats.Option{nats.NoReconnect()}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ended := make(chan error, 1)
	go func() { // ends with the connection; waited for below
		ended <- RunAgent(proctest.Within(t), AgentConfig{
			URL: s.URL(), AllowUnsigned: true, CacheDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler), Options: []nats.Option{nats.NoReconnect()},
			Pool: multiproc.PoolConfig{Workers: 1},
		})
	}()
	gate := proctest.NewGate(t)
	fut := proctest.Do.Go(proctest.Within(t), c, proctest.Task{X: 3, Gate: gate.Path})
	v := gate.Next()
	s.Close()
	if _, err := fut.Wait(proctest.Within(t)); !errors.Is(err, errGivenUp) {
		t.Errorf("a call: got %v", err)
	}
	if _, err := proctest.Square.Call(proctest.Within(t), c, 3); !errors.Is(err, errGivenUp) {
		t.Errorf("a new call: got %v", err)
	}
	v.Release()
	if err := <-ended; !errors.Is(err, errGivenUp) {
		t.Errorf("the agent: got %v", err)
	}
}

// said is a log.
type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *said) has(what string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.buf.String(), what)
}

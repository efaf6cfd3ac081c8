//go:build unix

package cluster

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

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

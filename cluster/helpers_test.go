package cluster

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"

	"github.com/seed84f35039/multiproc/internal/proctest"
)

// runAgent runs an agent until the test ends, or it is told to end, which returns when it has.
func runAgent(t *testing.T, cfg AgentConfig) (end func()) {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.CacheDir, cfg.Pool.Stderr = t.TempDir(), io.Discard
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- RunAgent(ctx, cfg) }() // ends when ctx does; waited for below
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return end
}

// dialServer returns a cluster on a server of its own.
func dialServer(t *testing.T, cfg Config) (*Server, *Cluster) {
	t.Helper()
	s, err := StartServer(ServerConfig{Listen: "127.0.0.1:0", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	cfg.URL = s.URL()
	c, err := Dial(proctest.Within(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return s, c
}

// allStored waits until c has n chunks, and the server has them.
func allStored(t *testing.T, c *Cluster, n int) {
	t.Helper()
	proctest.Eventually(t, proctest.Patience, "the chunks are with the server", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		stored := 0
		for _, ch := range c.chunks {
			if ch.stored {
				stored++
			}
		}
		return stored == n && len(c.chunks) == n
	})
}

// submitted waits until the server has the only chunk of c, and returns its number.
func submitted(t *testing.T, c *Cluster) (id uint64) {
	t.Helper()
	allStored(t, c, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	for id = range c.chunks {
	}
	return id
}

//go:build unix

package cluster_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/cluster"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// startServer starts a server for a test.
func startServer(t *testing.T, cfg cluster.ServerConfig) *cluster.Server {
	t.Helper()
	cfg.Listen = "127.0.0.1:0"
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	s, err := cluster.StartServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// quietly is for agents whose words are of no interest.
var quietly = slog.New(slog.NewTextHandler(io.Discard, nil))

// startAgent runs an agent until the test ends, or stop is called.
func startAgent(t *testing.T, cfg cluster.AgentConfig) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	if cfg.CacheDir == "" {
		cfg.CacheDir = t.TempDir()
	}
	cfg.Logger = quietly
	var agent sync.WaitGroup
	agent.Go(func() {
		if err := cluster.RunAgent(ctx, cfg); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		agent.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// dial connects to a server.
func dial(t *testing.T, cfg cluster.Config) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Dial(proctest.Within(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// remote is a cluster with a server and an agent of its own.
type remote struct {
	*cluster.Cluster
	end func()
}

func (r *remote) Shutdown(ctx context.Context) error {
	err := r.Cluster.Shutdown(ctx)
	go r.Close() // ends when the Cluster has, which an earlier Shutdown may let take longer
	return err
}

func (r *remote) Close() error {
	defer r.end()
	return r.Cluster.Close()
}

// openRemote starts a server and an agent that gets this program from it, and connects.
func openRemote(o proctest.Options, cache string) (*remote, error) {
	dir, err := os.MkdirTemp(cache, "server-")
	if err != nil {
		return nil, err
	}
	s, err := cluster.StartServer(cluster.ServerConfig{Listen: "127.0.0.1:0", Dir: dir})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var agent sync.WaitGroup
	agent.Go(func() {
		cluster.RunAgent(ctx, cluster.AgentConfig{
			URL: s.URL(), Name: "remote", AllowUnsigned: true, CacheDir: cache, Logger: quietly, Grace: time.Second,
			Pool: multiproc.PoolConfig{Workers: o.Workers, KillGrace: o.Grace, Retry: o.Retry, Stderr: proctest.Quiet},
		})
	})
	r := &remote{end: sync.OnceFunc(func() {
		cancel()
		agent.Wait()
		s.Close()
	})}
	if r.Cluster, err = cluster.Dial(ctx, cluster.Config{URL: s.URL(), Pool: multiproc.PoolConfig{KillGrace: o.Grace}}); err != nil {
		r.end()
		return nil, err
	}
	return r, nil
}

// TestRemote runs the conformance suite over servers and agents that get this program from
// them.
func TestRemote(t *testing.T) {
	cache := t.TempDir()
	t.Run("calls", func(t *testing.T) {
		proctest.Conformance(t, proctest.Subject{
			Name: "cluster of a server and an agent",
			Open: func(o proctest.Options) multiproc.Executor {
				r, err := openRemote(o, cache)
				if err != nil {
					panic(err)
				}
				return r
			},
			Crashes: true, Reuses: true, NoMemory: true, Far: true,
		})
	})
}

// TestSeveralURLs has one of two servers not be there.
func TestSeveralURLs(t *testing.T) {
	s := startServer(t, cluster.ServerConfig{})
	urls := "nats://127.0.0.1:1, " + s.URL()
	if err := cluster.Setup(proctest.Within(t), cluster.SetupConfig{URL: urls}); err != nil {
		t.Fatal(err)
	}
	startAgent(t, cluster.AgentConfig{URL: urls, AllowUnsigned: true})
	c := dial(t, cluster.Config{URL: urls})
	out, err := proctest.Square.Map(proctest.Within(t), c, []int{2, 3})
	if err != nil || !slices.Equal(out, []int{4, 9}) {
		t.Errorf("got %v, %v", out, err)
	}
}

// TestTwoAgents has two agents share the calls of a Map, and one of them leave in the midst of it.
func TestTwoAgents(t *testing.T) {
	t.Parallel()
	s := startServer(t, cluster.ServerConfig{})
	c := dial(t, cluster.Config{URL: s.URL()})
	var stops []func()
	for _, name := range []string{"one", "two"} {
		stops = append(stops, startAgent(t, cluster.AgentConfig{
			URL: s.URL(), Name: name, AllowUnsigned: true, Pool: multiproc.PoolConfig{Workers: 2},
		}))
	}
	pids := map[int]bool{}
	n := 0
	for r := range pidAfter.StreamUnordered(proctest.Within(t), c, slices.Values(proctest.Numbers(400)), multiproc.WithBatch(1)) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		pids[r.Value] = true
		if n++; n == 100 {
			go stops[0]() // ends when its calls have; waited for at the end of the test
		}
	}
	if n != 400 || len(pids) < 3 {
		t.Errorf("%d results of %d processes", n, len(pids))
	}
}

// pidAfter takes some milliseconds and returns the process that ran it.
var pidAfter = multiproc.Register("cluster.pid", func(ctx context.Context, _ int) (int, error) {
	select {
	case <-time.After(5 * time.Millisecond):
	case <-ctx.Done():
	}
	return os.Getpid(), ctx.Err()
})

// TestSigned has an agent that trusts a key run what it has signed, and nothing else.
func TestSigned(t *testing.T) {
	t.Parallel()
	s := startServer(t, cluster.ServerConfig{})
	trusted, err1 := cluster.NewKey()
	other, err2 := cluster.NewKey()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	startAgent(t, cluster.AgentConfig{
		URL: s.URL(), Name: "careful", Trust: cluster.Trust{trusted.Public(): "us"}, Pool: multiproc.PoolConfig{Workers: 1},
	})
	for name, c := range map[string]struct {
		key cluster.PrivateKey
		ok  bool
	}{"trusted": {trusted, true}, "other": {other, false}, "unsigned": {cluster.PrivateKey{}, false}} {
		c1 := dial(t, cluster.Config{URL: s.URL(), Key: c.key})
		out, err := proctest.Square.Call(proctest.Within(t), c1, 3)
		refused, isRefused := errors.AsType[*cluster.RefusedError](err)
		switch {
		case c.ok && (out != 9 || err != nil):
			t.Errorf("%s: got %d, %v", name, out, err)
		case !c.ok && (!isRefused || refused.Agent != "careful"):
			t.Errorf("%s: got %d, %v", name, out, err)
		}
	}
}

// TestNoAgents has nobody there to run calls.
func TestNoAgents(t *testing.T) {
	t.Parallel()
	s := startServer(t, cluster.ServerConfig{})
	c := dial(t, cluster.Config{URL: s.URL(), AgentTimeout: time.Second})
	_, err := proctest.Square.Map(proctest.Within(t), c, proctest.Numbers(10))
	proctest.WantErr(t, err, cluster.ErrNoAgents)
	startAgent(t, cluster.AgentConfig{URL: s.URL(), AllowUnsigned: true, Pool: multiproc.PoolConfig{Workers: 1}})
	proctest.Eventually(t, proctest.Patience, "an agent runs calls", func() bool {
		out, err := proctest.Square.Call(proctest.Within(t), c, 3)
		return out == 9 && err == nil
	})
}

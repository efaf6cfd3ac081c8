//go:build unix

package multiproc_test

import (
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

var (
	pool = proctest.Subject{
		Name:    "pool",
		Open:    func(o proctest.Options) multiproc.Executor { return multiproc.NewPool(quiet(o)) },
		Crashes: true, Reuses: true, Setup: true,
	}
	sockets = proctest.Subject{
		Name:    "pool over sockets",
		Open:    func(o proctest.Options) multiproc.Executor { return multiproc.NewSocketPool(quiet(o)) },
		Crashes: true, Reuses: true, Setup: true, NoMemory: true,
	}
	concurrent = proctest.Subject{
		Name: "pool whose workers run several calls at once",
		Open: func(o proctest.Options) multiproc.Executor {
			cfg := quiet(o)
			cfg.Workers, cfg.Concurrency = 1, o.Workers
			return multiproc.NewPool(cfg)
		},
		Reuses: true, Setup: true,
	}
	pipes = proctest.Subject{
		Name:   "pool within this process",
		Open:   func(o proctest.Options) multiproc.Executor { return multiproc.NewPipePool(quiet(o)) },
		Reuses: true,
	}
	processes = proctest.Subject{
		Name:    "processes",
		Open:    func(o proctest.Options) multiproc.Executor { return multiproc.NewProcesses(quiet(o)) },
		Crashes: true, Setup: true,
	}
	spares = proctest.Subject{
		Name: "processes with spares",
		Open: func(o proctest.Options) multiproc.Executor {
			cfg := quiet(o)
			cfg.Spares = 2
			return multiproc.NewProcesses(cfg)
		},
		Crashes: true, Setup: true,
	}
)

func TestPool(t *testing.T)       { proctest.Conformance(t, pool) }
func TestSockets(t *testing.T)    { proctest.Conformance(t, sockets) }
func TestConcurrent(t *testing.T) { proctest.Conformance(t, concurrent) }
func TestPipes(t *testing.T)      { proctest.Conformance(t, pipes) }
func TestProcesses(t *testing.T)  { proctest.Conformance(t, processes) }
func TestSpares(t *testing.T)     { proctest.Conformance(t, spares) }

// TestAlike runs random histories on all executors.
func TestAlike(t *testing.T) {
	t.Parallel()
	proctest.Histories(t, threads, pool, concurrent, sockets, pipes, processes, spares)
}

// quiet is a pool's configuration for calls that crash.
func quiet(o proctest.Options) multiproc.PoolConfig {
	return multiproc.PoolConfig{Workers: o.Workers, KillGrace: o.Grace, Setup: o.Setup, Retry: o.Retry, Stderr: proctest.Quiet}
}

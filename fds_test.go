//go:build linux

package multiproc_test

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestDescriptors counts those of workers: the number does not depend on how many
// siblings there are, and nothing of the parent's is among them.
func TestDescriptors(t *testing.T) {
	t.Parallel()
	file, err := os.CreateTemp(t.TempDir(), "secret")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	const high = 900
	if err := syscall.Dup3(int(file.Fd()), high, syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(high)

	const workers = 6
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: workers})
	defer pool.Close()
	gate := proctest.NewGate(t)
	seen := map[int]int{}
	for n := 1; n <= workers; n++ {
		// All workers but one are busy, so that each gets its turn.
		view, err := proctest.Look.Call(proctest.Within(t), pool, "")
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(view.Files, func(f string) bool { return strings.Contains(f, "secret") }) {
			t.Errorf("a worker sees a file of the parent: %q", view.Files)
		}
		seen[view.PID] = len(view.Files)
		if n < workers {
			proctest.Do.Go(proctest.Within(t), pool, proctest.Task{Gate: gate.Path})
			gate.Next()
		}
	}
	if len(seen) != workers {
		t.Errorf("%d workers were seen", len(seen))
	}
	first := 0
	for _, n := range seen {
		if first == 0 {
			first = n
		}
		if n != first {
			t.Errorf("workers have different numbers of descriptors: %v", seen)
		}
	}
	gate.Open()
}

// TestSurroundings looks at what workers are given.
func TestSurroundings(t *testing.T) {
	t.Setenv("SURROUNDINGS", "of the parent")
	dir := t.TempDir()
	for name, c := range map[string]struct {
		cfg multiproc.PoolConfig
		env string
		dir string
	}{
		"inherited": {env: "of the parent"},
		"changed":   {cfg: multiproc.PoolConfig{Dir: dir, Env: []string{"SURROUNDINGS=first", "SURROUNDINGS=of the worker", "MULTIPROC_WORKER=99"}}, env: "of the worker", dir: dir},
	} {
		c.cfg.Workers, c.cfg.GOMAXPROCS = 1, 3
		if c.dir == "" {
			c.dir, _ = os.Getwd()
		}
		pool := multiproc.NewPool(c.cfg)
		view, err := proctest.Look.Call(proctest.Within(t), pool, "SURROUNDINGS")
		if err != nil {
			t.Fatal(err)
		}
		proctest.Want(t, name+": variable", view.Env, c.env)
		proctest.Want(t, name+": directory", view.Dir, c.dir)
		proctest.Want(t, name+": GOMAXPROCS", view.GOMAXPROCS, 3)
		pool.Close()
		cfg := multiproc.ProcessConfig{Dir: c.cfg.Dir, Env: c.cfg.Env, GOMAXPROCS: 3}
		p, err := proctest.Look.Start(proctest.Within(t), "SURROUNDINGS", cfg)
		if err != nil {
			t.Fatal(err)
		}
		view, err = p.Wait(proctest.Within(t))
		if err != nil {
			t.Fatal(err)
		}
		proctest.Want(t, name+": variable in a process", view.Env, c.env)
		proctest.Want(t, name+": directory of a process", view.Dir, c.dir)
		proctest.Want(t, name+": GOMAXPROCS of a process", view.GOMAXPROCS, 3)
	}
}

// TestLazyStart starts no more workers than there is work for.
func TestLazyStart(t *testing.T) {
	t.Parallel()
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 4})
	defer pool.Close()
	first := pidOf(t, pool)
	for range 2 {
		proctest.Want(t, "process", pidOf(t, pool), first)
	}
	gate := proctest.NewGate(t)
	const calls = 15 * 4
	var futures []*multiproc.Future[int]
	for _, task := range proctest.Tasks(calls, proctest.Task{Gate: gate.Path}) {
		futures = append(futures, proctest.Do.Go(proctest.Within(t), pool, task))
	}
	pids := map[int]bool{}
	for range calls {
		v := gate.Next()
		pids[v.PID] = true
		if len(pids) == 4 {
			gate.Open()
		}
	}
	for _, fut := range futures {
		if _, err := fut.Wait(proctest.Within(t)); err != nil {
			t.Error(err)
		}
	}
	if len(pids) != 4 || !pids[first] {
		t.Errorf("blocked calls used the processes %v", pids)
	}
}

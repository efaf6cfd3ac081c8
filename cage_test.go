//go:build linux

package multiproc_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// fakeCage notes who comes and goes.
type fakeCage struct {
	refuse  error // of Admit
	nothing bool  // Admit returns neither function nor error
	oom     bool  // what release says
	stuck   error // of release

	mu                 sync.Mutex
	admitted, released []int
	wrong              []string
}

func (c *fakeCage) Admit(pid int) (func() (bool, error), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.admitted = append(c.admitted, pid)
	if !proctest.Running(pid) {
		c.wrong = append(c.wrong, fmt.Sprintf("%d was admitted after its end", pid))
	}
	if c.refuse != nil || c.nothing {
		return nil, c.refuse
	}
	return func() (bool, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
			c.wrong = append(c.wrong, fmt.Sprintf("%d was released while it was there (%v)", pid, err))
		}
		c.released = append(c.released, pid)
		return c.oom, c.stuck
	}, nil
}

// set changes what the cage says from now on.
func (c *fakeCage) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

// inside returns who is there.
func (c *fakeCage) inside() (pids []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, pid := range c.admitted {
		if !slices.Contains(c.released, pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// check checks that so many were admitted, each once, among them these, and released, each once.
func (c *fakeCage) check(t *testing.T, n int, among []int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.admitted)
	slices.Sort(c.released)
	proctest.Want(t, "who was released", c.released, c.admitted)
	if len(c.admitted) != n || len(slices.Compact(slices.Clone(c.admitted))) != n {
		t.Errorf("%v were admitted, want %d, each once", c.admitted, n)
	}
	for _, pid := range among {
		if !slices.Contains(c.admitted, pid) {
			t.Errorf("%d ran a call outside of the cage %v", pid, c.admitted)
		}
	}
	for _, what := range c.wrong {
		t.Error(what)
	}
}

// TestCage has workers of every kind come and go.
func TestCage(t *testing.T) {
	t.Run("pool", func(t *testing.T) {
		t.Parallel()
		const n, k = 20, 7
		cage := &fakeCage{}
		pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2, Cage: cage, Stderr: proctest.Quiet})
		defer pool.Close()
		if err := pool.Start(proctest.Within(t)); err != nil {
			t.Fatal(err)
		}
		proctest.Want(t, "workers in the cage", len(cage.inside()), 2)
		tasks := proctest.Tasks(n, proctest.Task{Log: proctest.LogFile(t)})
		tasks[k].End = "signal 9"
		_, err := proctest.Do.Map(proctest.Within(t), pool, tasks, multiproc.CollectErrors())
		if e := proctest.CrashOf(t, err, k); e.OutOfMemory || e.Reason != "" {
			t.Errorf("the cage is blamed: %v", e)
		}
		bothWork(t, pool)
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
		cage.check(t, 3, pidsOf(proctest.ReadLog(t, tasks[0].Log)))
	})
	t.Run("killed pool", func(t *testing.T) {
		t.Parallel()
		cage := &fakeCage{}
		pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2, Cage: cage, Stderr: proctest.Quiet})
		if err := pool.Start(proctest.Within(t)); err != nil {
			t.Fatal(err)
		}
		pool.Kill()
		cage.check(t, 2, nil)
	})
	t.Run("processes", func(t *testing.T) {
		t.Parallel()
		const n = 5
		cage := &fakeCage{}
		ex := multiproc.NewProcesses(multiproc.PoolConfig{Workers: 2, Cage: cage})
		defer ex.Close()
		log := proctest.LogFile(t)
		if _, err := proctest.Do.Map(proctest.Within(t), ex, proctest.Tasks(n, proctest.Task{Log: log})); err != nil {
			t.Fatal(err)
		}
		if err := ex.Close(); err != nil {
			t.Error(err)
		}
		cage.check(t, n, pidsOf(proctest.ReadLog(t, log)))
	})
	t.Run("start", func(t *testing.T) {
		t.Parallel()
		cage := &fakeCage{}
		gate := proctest.NewGate(t)
		p, err := proctest.Do.Start(proctest.Within(t), proctest.Task{X: 3, Gate: gate.Path}, multiproc.ProcessConfig{Cage: cage})
		if err != nil {
			t.Fatal(err)
		}
		v := gate.Next()
		proctest.Want(t, "who is in the cage", cage.inside(), []int{v.PID})
		v.Release()
		if got, err := p.Wait(proctest.Within(t)); got != 9 || err != nil {
			t.Errorf("got %d, %v", got, err)
		}
		cage.check(t, 1, []int{p.PID()})
	})
	t.Run("spares", func(t *testing.T) {
		t.Parallel()
		cage := &fakeCage{}
		spares := multiproc.NewSpares(2, multiproc.ProcessConfig{Cage: cage})
		defer spares.Close()
		if err := spares.Start(proctest.Within(t)); err != nil {
			t.Fatal(err)
		}
		before := cage.inside()
		proctest.Want(t, "spares in the cage", len(before), 2)
		p, err := proctest.Square.Start(proctest.Within(t), 4, multiproc.ProcessConfig{Spares: spares})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.Wait(proctest.Within(t)); got != 16 || err != nil || !slices.Contains(before, p.PID()) {
			t.Errorf("got %d, %v, of process %d; spares were %v", got, err, p.PID(), before)
		}
		if err := spares.Start(proctest.Within(t)); err != nil {
			t.Fatal(err)
		}
		if err := spares.Close(); err != nil {
			t.Error(err)
		}
		cage.check(t, 3, []int{p.PID()})
	})
	t.Run("spares of processes", func(t *testing.T) {
		t.Parallel()
		cage := &fakeCage{}
		ex := multiproc.NewProcesses(multiproc.PoolConfig{Workers: 1, Spares: 1, Cage: cage})
		defer ex.Close()
		log := proctest.LogFile(t)
		if _, err := proctest.Do.Map(proctest.Within(t), ex, proctest.Tasks(4, proctest.Task{Log: log})); err != nil {
			t.Fatal(err)
		}
		if err := ex.Close(); err != nil {
			t.Error(err)
		}
		if left := cage.inside(); len(left) > 0 {
			t.Errorf("%v were not released", left)
		}
		cage.check(t, len(cage.admitted), pidsOf(proctest.ReadLog(t, log)))
	})
}

func pidsOf(entries []proctest.Entry) (pids []int) {
	for _, e := range entries {
		pids = append(pids, e.PID)
	}
	return pids
}

// TestCageRefuses has the cage take nobody in for a while: calls say why, no process is left, and
// when it takes workers in again the same pool goes on.
func TestCageRefuses(t *testing.T) {
	t.Parallel()
	errFull := errors.New("the cage is full; make it larger")
	cage := &fakeCage{refuse: errFull}
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Cage: cage})
	defer pool.Close()
	_, err := proctest.Square.Call(proctest.Within(t), pool, 3)
	if !errors.Is(err, errFull) || !strings.Contains(err.Error(), "put the worker into its Cage: the cage is full; make it larger") {
		t.Errorf("got %v", err)
	}
	_, err = proctest.Square.Start(proctest.Within(t), 3, multiproc.ProcessConfig{Cage: cage})
	if !errors.Is(err, errFull) || !strings.Contains(err.Error(), "put the worker into its Cage") {
		t.Errorf("Start: got %v", err)
	}
	for _, pid := range cage.inside() {
		if proctest.Running(pid) {
			t.Errorf("process %d was refused, and runs", pid)
		}
	}
	cage.set(func() { cage.refuse, cage.nothing = nil, true })
	_, err = proctest.Square.Start(proctest.Within(t), 3, multiproc.ProcessConfig{Cage: cage})
	if err == nil || !strings.Contains(err.Error(), "neither an error nor a function") {
		t.Errorf("a cage that returns nothing: got %v", err)
	}
	cage.set(func() { cage.nothing, cage.admitted = false, nil })
	if got, err := proctest.Square.Call(proctest.Within(t), pool, 3); got != 9 || err != nil {
		t.Errorf("afterwards: got %d, %v", got, err)
	}
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
	cage.check(t, 1, nil)
}

// TestCageStaysOccupied has release fail: it is the reason of a worker that has no better one, and nothing
// else.
func TestCageStaysOccupied(t *testing.T) {
	t.Parallel()
	cage := &fakeCage{stuck: errors.New("somebody is left")}
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Cage: cage, Stderr: proctest.Quiet})
	defer pool.Close()
	for end, wanted := range map[string]string{
		"signal 9": "release from the Cage: somebody is left",
		"exit 3":   "release from the Cage: somebody is left",
		"overflow": "stack overflow",
	} {
		_, err := proctest.Do.Call(proctest.Within(t), pool, proctest.Task{End: end})
		if e := proctest.CrashOf(t, err, -1); !strings.Contains(e.Reason, wanted) || e.OutOfMemory {
			t.Errorf("%s: got %v, out of memory: %t", end, err, e.OutOfMemory)
		}
	}
	p, err := proctest.Square.Start(proctest.Within(t), 3, multiproc.ProcessConfig{Cage: cage})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.Wait(proctest.Within(t)); got != 9 || err != nil {
		t.Errorf("a call that ends well: got %d, %v", got, err)
	}
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
	cage.check(t, 4, nil)
}

// TestCageRunsOutOfMemory has the cage say that something in it was killed for that: it is why a worker
// was killed, and not why one ended otherwise.
func TestCageRunsOutOfMemory(t *testing.T) {
	t.Parallel()
	cage := &fakeCage{oom: true}
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Cage: cage, Stderr: proctest.Quiet})
	defer pool.Close()
	for end, wanted := range map[string]bool{"signal 9": true, "signal 15": false, "exit 3": false} {
		_, err := proctest.Do.Call(proctest.Within(t), pool, proctest.Task{End: end})
		e := proctest.CrashOf(t, err, -1)
		proctest.Want(t, end+": out of memory", e.OutOfMemory, wanted)
		proctest.Want(t, end+": does the text say so", strings.Contains(err.Error(), "out of memory"), wanted)
	}
	p, err := proctest.Do.Start(proctest.Within(t), proctest.Task{End: "signal 9"}, multiproc.ProcessConfig{Cage: cage, Stderr: proctest.Quiet})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Wait(proctest.Within(t))
	if e, ok := errors.AsType[*multiproc.CrashError](err); !ok || !e.OutOfMemory {
		t.Errorf("Start: got %v", err)
	}
	if got, err := proctest.Square.Call(proctest.Within(t), pool, 3); got != 9 || err != nil {
		t.Errorf("afterwards: got %d, %v", got, err)
	}
}

//go:build linux

package multiproc_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// recycled has its workers replaced after every second call.
var recycled = proctest.Subject{
	Name: "pool with MaxTasks",
	Open: func(o proctest.Options) multiproc.Executor {
		cfg := quiet(o)
		cfg.MaxTasks = 2
		return multiproc.NewPool(cfg)
	},
	Crashes: true, Setup: true,
}

func TestRecycled(t *testing.T) { proctest.Conformance(t, recycled) }

// TestMaxTasksBacklog has more calls wait than the workers that there are may run: all are run,
// none by a worker that has had its share.
func TestMaxTasksBacklog(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ workers, calls, most, batch int }{{1, 6, 2, 1}, {2, 8, 2, 1}, {1, 6, 2, 6}, {2, 40, 3, 10}, {2, 20, 1, 5}} {
		log := proctest.LogFile(t)
		pool := multiproc.NewPool(multiproc.PoolConfig{Workers: c.workers, MaxTasks: c.most})
		out, err := proctest.Do.Map(proctest.Within(t), pool, proctest.Tasks(c.calls, proctest.Task{Log: log}), multiproc.WithBatch(c.batch))
		if err != nil {
			t.Error(err)
		}
		proctest.Want(t, "results", out, proctest.Squares(c.calls))
		proctest.Want(t, "log", proctest.Runs(t, log), proctest.Once(c.calls))
		ran := map[int]int{}
		for _, e := range proctest.ReadLog(t, log) {
			if ran[e.PID]++; ran[e.PID] > c.most {
				t.Errorf("%+v: process %d ran %d calls", c, e.PID, ran[e.PID])
			}
		}
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	}
}

// hoard is what grow has kept in this process.
var hoard []byte

// grow keeps memory, and uses it.
var grow = multiproc.Register("grow", func(_ context.Context, size int) (int, error) {
	hoard = make([]byte, size)
	for i := 0; i < size; i += 4096 {
		hoard[i] = 1
	}
	return len(hoard), nil
})

// TestMaxRSS has a worker keep more memory than it may: it is replaced between calls, and no call
// pays for it. One that does not stays.
func TestMaxRSS(t *testing.T) {
	t.Parallel()
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, MaxRSS: 300 << 20})
	defer pool.Close()
	small := pidOf(t, pool)
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); { // it is looked at some times
		if _, err := grow.Call(proctest.Within(t), pool, 10<<20); err != nil {
			t.Fatal(err)
		}
		proctest.Want(t, "process with little memory", pidOf(t, pool), small)
	}
	if n, err := grow.Call(proctest.Within(t), pool, 400<<20); n != 400<<20 || err != nil {
		t.Fatalf("got %d, %v", n, err)
	}
	proctest.Eventually(t, proctest.Patience, "the worker is replaced", func() bool { return pidOf(t, pool) != small })
	proctest.Eventually(t, proctest.Patience, "it has ended", func() bool { return !proctest.Running(small) })
	runtime.KeepAlive(hoard)
}

// TestTeardownOfWorkers has teardown run once in each worker that ends in an orderly way.
func TestTeardownOfWorkers(t *testing.T) {
	t.Parallel()
	log := proctest.LogFile(t)
	pool := multiproc.NewPool(multiproc.PoolConfig{
		Workers: 2, MaxTasks: 5, Teardown: proctest.Do.With(proctest.Task{X: -1, Log: log}), Stderr: proctest.Quiet,
	})
	tasks := proctest.Tasks(21, proctest.Task{Log: log})
	tasks[7].End = "signal 9"
	_, err := proctest.Do.Map(proctest.Within(t), pool, tasks, multiproc.CollectErrors())
	died := proctest.CrashOf(t, err, 7).PID
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
	calls, teardowns := map[int]int{}, map[int]int{}
	for _, e := range proctest.ReadLog(t, log) {
		switch {
		case e.X < 0:
			teardowns[e.PID]++
		case teardowns[e.PID] > 0:
			t.Errorf("process %d runs call %d after its teardown", e.PID, e.X)
		default:
			calls[e.PID]++
		}
	}
	for pid := range calls {
		if want := map[bool]int{true: 0, false: 1}[pid == died]; teardowns[pid] != want {
			t.Errorf("process %d, which was %d killed: %d teardowns, want %d", pid, died, teardowns[pid], want)
		}
	}
}

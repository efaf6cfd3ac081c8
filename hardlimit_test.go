//go:build linux

package multiproc_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestCallTimeoutOfProcesses has one call of a batch exceed the limit, whatever it does: that call
// fails, with what it has started, and the others of the batch are right.
func TestCallTimeoutOfProcesses(t *testing.T) {
	const n, k = 8, 3
	for _, end := range []string{"gate", "hang", "spin", "signal 19", "child 1"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			const limit = time.Second
			pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, CallTimeout: limit, KillGrace: grace, Stderr: proctest.Quiet})
			defer pool.Close()
			gate, log := proctest.NewGate(t), proctest.LogFile(t)
			tasks := proctest.Tasks(n, proctest.Task{Log: log})
			tasks[k].Gate = gate.Path
			group := make(chan int, 1)
			go func() {
				v := gate.Next()
				if group <- v.PID; end != "gate" {
					v.Release()
				}
			}()
			if end != "gate" { // where it sees the end of its context
				tasks[k].End, tasks[k].Deaf = end, true
			}
			out, err := proctest.Do.Map(proctest.Within(t), pool, tasks, multiproc.CollectErrors(), multiproc.WithBatch(n))
			right := proctest.Squares(n)
			right[k] = 0
			proctest.Want(t, "results", out, right)
			proctest.Want(t, "log", proctest.Runs(t, log), proctest.Once(n))
			e, ok := errors.AsType[*multiproc.TimeoutError](err)
			if !ok {
				t.Fatalf("got %v, want a *TimeoutError", err)
			}
			pid := <-group
			proctest.Want(t, "item, process, limit", []any{e.Index, e.PID, e.Limit}, []any{k, pid, limit})
			proctest.Want(t, "was it killed", e.Hard, end != "gate")
			if errs := err.(interface{ Unwrap() []error }).Unwrap(); len(errs) != 1 {
				t.Errorf("got %v, want one error", err)
			}
			if end == "gate" {
				proctest.Want(t, "process afterwards", pidOf(t, pool), pid)
			} else {
				proctest.Eventually(t, proctest.Patience, "its processes are gone", func() bool { return len(proctest.Group(pid)) == 0 })
			}
		})
	}
}

// TestQuarantineOfProcesses has a call kill each worker that it is given to: it is given up, and the others
// are right.
func TestQuarantineOfProcesses(t *testing.T) {
	t.Parallel()
	const n, k = 10, 4
	log := proctest.LogFile(t)
	pool := multiproc.NewPool(multiproc.PoolConfig{
		Workers: 2, Retry: multiproc.Retry{Attempts: 9, Backoff: time.Millisecond}, MaxCrashes: 3, Stderr: proctest.Quiet,
	})
	defer pool.Close()
	tasks := proctest.Tasks(n, proctest.Task{Log: log})
	tasks[k].End = "signal 9"
	out, err := proctest.Do.Map(proctest.Within(t), pool, tasks, multiproc.CollectErrors())
	right := proctest.Squares(n)
	right[k] = 0
	proctest.Want(t, "results", out, right)
	e := proctest.CrashOf(t, err, k)
	proctest.Want(t, "workers that it killed, attempts", [2]int{e.Crashes, e.Attempts}, [2]int{3, 3})
	runs := proctest.Once(n)
	runs[k] = 3
	proctest.Want(t, "log", proctest.Runs(t, log), runs)
	bothWork(t, pool)
}

// TestStoppedWorker stops a worker in a call that has no time limit: it gives no sign of life, is killed,
// and costs that call alone.
func TestStoppedWorker(t *testing.T) {
	t.Parallel()
	const n, k = 10, 4
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2, Heartbeat: time.Second, Stderr: proctest.Quiet})
	defer pool.Close()
	tasks := proctest.Tasks(n, proctest.Task{Log: proctest.LogFile(t)})
	tasks[k].End = "signal 19"
	out, err := proctest.Do.Map(proctest.Within(t), pool, tasks, multiproc.CollectErrors(), multiproc.WithBatch(n))
	right := proctest.Squares(n)
	right[k] = 0
	proctest.Want(t, "results", out, right)
	proctest.Want(t, "log", proctest.Runs(t, tasks[0].Log), proctest.Once(n))
	if e := proctest.CrashOf(t, err, k); !strings.Contains(e.Reason, "sign of life") || proctest.Running(e.PID) {
		t.Errorf("got %v", err)
	}
	bothWork(t, pool)
}

//go:build linux

package multiproc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// waysToDie are what ends a worker in the middle of a call, and how the caller is told.
var waysToDie = []struct {
	end    string
	signal syscall.Signal
	exit   int
	oom    bool
	quiet  bool // the runtime has nothing to say
	says   string
}{
	{end: "signal 9", signal: syscall.SIGKILL, exit: -1, quiet: true, says: "signal 9 (killed)"},
	{end: "signal 11", exit: 2, says: "SIGSEGV: segmentation violation"},
	{end: "exit 3", exit: 3, quiet: true, says: "exit code 3"},
	{end: "memory", exit: 2, oom: !raceEnabled, says: outOfMemory},
	{end: "overflow", exit: 2, says: "fatal error: stack overflow"},
	{end: "maps", exit: 2, says: mapWrites},
	{end: "close", signal: syscall.SIGKILL, exit: -1, says: "signal 9 (killed)"},
	{end: "garbage", signal: syscall.SIGKILL, exit: -1, quiet: true, says: "protocol error: "},
}

// TestWaysToDie has one of 100 calls die: it fails, and nobody else notices.
func TestWaysToDie(t *testing.T) {
	const n, k = 100, 37
	batches := map[string][]multiproc.MapOption{"adaptive": nil, "batch of 50": {multiproc.WithBatch(50)}}
	for _, way := range waysToDie {
		for name, opts := range batches {
			t.Run(way.end+"/"+name, func(t *testing.T) {
				t.Parallel()
				// Races and all: one of the ways is a race.
				pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2, Stderr: io.Discard})
				defer pool.Close()
				gate, tasks := proctest.NewGate(t), proctest.Tasks(n, proctest.Task{Log: proctest.LogFile(t)})
				tasks[k].End, tasks[k].Gate, tasks[k].Say = way.end, gate.Path, "last words\n"
				pid := make(chan int, 1)
				go func() {
					v := gate.Next() // by now its worker waits for what the parent says next
					v.Release()
					pid <- v.PID
				}()

				out, err := proctest.Do.Map(proctest.Within(t), pool, tasks, append(opts, multiproc.CollectErrors())...)

				right := proctest.Squares(n)
				right[k] = 0
				proctest.Want(t, "results", out, right)
				proctest.Want(t, "how often each call ran", proctest.Runs(t, tasks[0].Log), proctest.Once(n))
				if errs := err.(interface{ Unwrap() []error }).Unwrap(); len(errs) != 1 {
					t.Errorf("%d calls failed: %v", len(errs), err)
				}
				crash := proctest.CrashOf(t, err, k)
				proctest.Want(t, "process", crash.PID, <-pid)
				died(t, crash, way.signal, way.exit)
				proctest.Want(t, "out of memory", crash.OutOfMemory, way.oom)
				if text := err.Error(); !strings.Contains(text, way.says) || !strings.HasPrefix(text, fmt.Sprintf("do #%d (pid %d): worker died: ", k, crash.PID)) {
					t.Errorf("got %q, want %q in it", text, way.says)
				}
				if way.quiet {
					proctest.Want(t, "standard error", crash.Stderr, "last words\n")
				}
				bothWork(t, pool)
			})
		}
	}
}

// died checks how a worker has died. A runtime that has got as far as to say why may get a segmentation fault of its own when it looks
// at the stack that the signal has interrupted; while it handles one, the system takes that for the end.
func died(t *testing.T, crash *multiproc.CrashError, signal syscall.Signal, exit int) {
	t.Helper()
	if exit == 2 && crash.Signal == syscall.SIGSEGV {
		signal, exit = crash.Signal, -1
	}
	proctest.Want(t, "signal", crash.Signal, signal)
	proctest.Want(t, "exit code", crash.ExitCode, exit)
}

// bothWork checks that both workers of the pool take calls.
func bothWork(t *testing.T, pool multiproc.Executor) {
	t.Helper()
	gate := proctest.NewGate(t)
	var futures []*multiproc.Future[int]
	for _, task := range proctest.Tasks(2, proctest.Task{Gate: gate.Path}) {
		futures = append(futures, proctest.Do.Go(proctest.Within(t), pool, task))
	}
	at := gate.Visitors(2)
	if at[0].PID == at[1].PID {
		t.Error("one worker is left")
	}
	gate.Open()
	for i, fut := range futures {
		if out, err := fut.Wait(proctest.Within(t)); out != i*i || err != nil {
			t.Errorf("call %d: got %d, %v", i, out, err)
		}
	}
}

// TestCrashAlone has a worker die that has nothing else to do and to be told.
func TestCrashAlone(t *testing.T) {
	t.Parallel()
	for _, way := range waysToDie {
		t.Run(way.end, func(t *testing.T) {
			t.Parallel()
			gate := proctest.NewGate(t)
			for name, call := range map[string]func(proctest.Task) (int, error){
				"pool": func(task proctest.Task) (int, error) {
					pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Stderr: io.Discard})
					defer pool.Close()
					return proctest.Do.Call(proctest.Within(t), pool, task)
				},
				"process": func(task proctest.Task) (int, error) {
					p, err := proctest.Do.Start(proctest.Within(t), task, multiproc.ProcessConfig{Stderr: io.Discard})
					if err != nil {
						t.Fatal(err)
					}
					return p.Wait(proctest.Within(t))
				},
			} {
				go func() { gate.Next().Release() }()
				_, err := call(proctest.Task{End: way.end, Gate: gate.Path})
				crash, ok := errors.AsType[*multiproc.CrashError](err)
				if !ok {
					t.Errorf("%s: got %v, want a *CrashError", name, err)
					continue
				}
				died(t, crash, way.signal, way.exit)
				proctest.Want(t, name+": out of memory", crash.OutOfMemory, way.oom)
				if !strings.Contains(err.Error(), way.says) {
					t.Errorf("%s: got %v, want %q in it", name, err, way.says)
				}
			}
		})
	}
}

// TestManyDie has every fifth call kill its worker.
func TestManyDie(t *testing.T) {
	t.Parallel()
	const n = 60
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2, Stderr: proctest.Quiet})
	defer pool.Close()
	tasks := proctest.Tasks(n, proctest.Task{Log: proctest.LogFile(t)})
	right := proctest.Squares(n)
	for i := 0; i < n; i += 5 {
		tasks[i].End, right[i] = "signal 9", 0
	}
	out, err := proctest.Do.Map(proctest.Within(t), pool, tasks, multiproc.CollectErrors(), multiproc.WithBatch(20))
	proctest.Want(t, "results", out, right)
	proctest.Want(t, "how often each call ran", proctest.Runs(t, tasks[0].Log), proctest.Once(n))
	errs := err.(interface{ Unwrap() []error }).Unwrap()
	proctest.Want(t, "number of errors", len(errs), n/5)
	if slices.ContainsFunc(errs, func(err error) bool { _, ok := err.(*multiproc.CrashError); return !ok }) {
		t.Errorf("got %v, want crashes alone", err)
	}
	bothWork(t, pool)
}

// TestIdleWorkerDies kills workers that do nothing: no call pays for it.
func TestIdleWorkerDies(t *testing.T) {
	t.Parallel()
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
	defer pool.Close()
	for i := range 10 {
		view, err := proctest.Look.Call(proctest.Within(t), pool, "")
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if err := syscall.Kill(view.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
}

// text returns so many bytes.
var text = multiproc.Register("test.text", func(_ context.Context, n int) (string, error) {
	return strings.Repeat("x", n), nil
})

// TestResultsOfAnyLength has short calls with results around the lengths at which they travel
// in another way: each call runs once, and no worker is replaced.
func TestResultsOfAnyLength(t *testing.T) {
	t.Parallel()
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
	defer pool.Close()
	before := pidOf(t, pool)
	for _, n := range []int{0, 1, 23, 24, 250, 253, 254, 255, 256, 257, 1 << 10, 64<<10 - 20, 64 << 10, 70_000} {
		in := make([]int, 300)
		for i := range in {
			in[i] = max(0, n-i%3)
		}
		out, err := text.Map(proctest.Within(t), pool, in)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		for i := range out {
			if len(out[i]) != in[i] {
				t.Fatalf("%d bytes: result %d has %d", in[i], i, len(out[i]))
			}
		}
	}
	if after := pidOf(t, pool); after != before {
		t.Errorf("process %d before, %d after", before, after)
	}
}

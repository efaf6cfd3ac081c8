package proctest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/seed84f35039/multiproc"
)

var crashCases = []behaviour{
	{"20 worker killed in a call: that call fails, the others do not", needs{crashes: true}, killed},
	{"21 worker that exits with 99: the error says so", needs{crashes: true}, exits},
	{"22 each lost call has an error of its own", needs{crashes: true}, ownErrors},
	{"23 call that exits politely costs itself alone", needs{crashes: true}, exitsPolitely},
	{"24 crash while large arguments are on the way", needs{crashes: true}, crashUnderLoad},
	{"25 worker that dies after Close was called", needs{crashes: true}, dieWhileClosing},
	{"20 crash in a stream comes in its place", needs{crashes: true}, crashInStream},
	{"20 map that fails by a crash returns the results before", needs{crashes: true}, crashFailsMap},
	{"32 setup runs once in each worker before its calls", needs{setup: true}, setupOnce},
	{"32 failing setup is the error of calls that wait and that come later", needs{setup: true}, setupFails},
	{"32 setup that kills its worker is the error of calls", needs{setup: true}, setupDies},
	{"44 nested workers, to the depth that is allowed", needs{crashes: true}, nesting},
}

// CrashOf returns the crash that err is, which must be that of the item.
func CrashOf(t testing.TB, err error, item int) *multiproc.CrashError {
	t.Helper()
	e, ok := errors.AsType[*multiproc.CrashError](err)
	if !ok {
		t.Fatalf("got %s, want a *CrashError", clip(fmt.Sprint(err)))
	}
	if e.Index != item || e.Func == "" || e.PID == 0 {
		t.Errorf("got the crash of %v, want item %d", e.CallInfo, item)
	}
	return e
}

func killed(t *testing.T, s Subject) {
	const k = 5
	n := s.some(24)
	ex, gate := s.start(t, Options{Workers: 2}), NewGate(t)
	tasks := Tasks(n, Task{Log: LogFile(t)})
	tasks[k].Gate = gate.Path
	pid := make(chan int, 1)
	go func() {
		v := gate.Next()
		if p, err := os.FindProcess(v.PID); err == nil {
			p.Kill()
		}
		pid <- v.PID
	}()
	out, err := Do.Map(Within(t), ex, tasks, multiproc.CollectErrors())
	right := Squares(n)
	right[k] = 0
	Want(t, "results", out, right)
	e := CrashOf(t, err, k)
	Want(t, "process", e.PID, <-pid)
	Want(t, "signal", e.Signal, syscall.SIGKILL)
	Want(t, "exit code", e.ExitCode, -1)
	Want(t, "log", Runs(t, tasks[0].Log), Once(n))
	out, err = Do.Map(Within(t), ex, Tasks(n, Task{}))
	if err != nil {
		t.Error(err)
	}
	Want(t, "results afterwards", out, Squares(n))
}

func exits(t *testing.T, s Subject) {
	ex := s.start(t, Options{Workers: 1})
	_, err := Do.Call(Within(t), ex, Task{End: "exit 99"})
	e := CrashOf(t, err, -1)
	Want(t, "exit code", e.ExitCode, 99)
	Want(t, "signal", e.Signal, syscall.Signal(0))
	if !strings.Contains(err.Error(), "exit code 99") {
		t.Errorf("the exit code is not in %q", err)
	}
}

func ownErrors(t *testing.T, s Subject) {
	ex := s.start(t, Options{Workers: 2})
	tasks := Tasks(4, Task{})
	tasks[1].End, tasks[3].End = "exit 5", "exit 6"
	out, err := Do.Map(Within(t), ex, tasks, multiproc.CollectErrors())
	Want(t, "results", out, []int{0, 0, 4, 0})
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 2 {
		t.Fatalf("got %v, want two errors", err)
	}
	a, b := CrashOf(t, joined.Unwrap()[0], 1), CrashOf(t, joined.Unwrap()[1], 3)
	if a == b || a.PID == b.PID || a.ExitCode != 5 || b.ExitCode != 6 {
		t.Errorf("got %v and %v, want one of each", a, b)
	}
}

func exitsPolitely(t *testing.T, s Subject) {
	for _, code := range []int{0, 1} {
		ex := s.start(t, Options{Workers: 1})
		tasks := Tasks(5, Task{Log: LogFile(t)})
		tasks[2].End = fmt.Sprint("exit ", code)
		out, err := Do.Map(Within(t), ex, tasks, multiproc.CollectErrors(), multiproc.WithBatch(5))
		Want(t, "results", out, []int{0, 1, 0, 9, 16})
		Want(t, "exit code", CrashOf(t, err, 2).ExitCode, code)
		Want(t, "log", Runs(t, tasks[0].Log), Once(5))
	}
}

func crashUnderLoad(t *testing.T, s Subject) {
	const n = 8
	ex := s.start(t, Options{Workers: 2})
	tasks := Tasks(n, Task{Pad: bytes.Repeat([]byte{1}, 4<<20)})
	tasks[0].End, tasks[5].End = "exit 3", "signal 9"
	out, err := Do.Map(Within(t), ex, tasks, multiproc.CollectErrors(), multiproc.WithBatch(n))
	right := Squares(n)
	right[0], right[5] = 0, 0
	Want(t, "results", out, right)
	CrashOf(t, err, 0)
}

func dieWhileClosing(t *testing.T, s Subject) {
	ex, gate := s.Open(Options{Workers: 1}), NewGate(t)
	fut := Do.Go(Within(t), ex, Task{Gate: gate.Path, End: "exit 4"})
	queued := Square.Go(Within(t), ex, 3)
	v := gate.Next()
	closed := make(chan error, 1)
	go func() { closed <- ex.Close() }()
	AwaitClosing(t, ex)
	v.Release()
	_, err := fut.Wait(Within(t))
	Want(t, "exit code", CrashOf(t, err, -1).ExitCode, 4)
	if out, err := queued.Wait(Within(t)); out != 9 || err != nil {
		t.Errorf("the call behind: got %d, %v", out, err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func crashInStream(t *testing.T, s Subject) {
	const n, k = 10, 4
	ex, tasks := s.start(t, Options{Workers: 2}), Tasks(n, Task{})
	tasks[k].End = "signal 9"
	in := func(yield func(Task) bool) {
		for _, task := range tasks {
			if !yield(task) {
				return
			}
		}
	}
	i := 0
	for out, err := range Do.Stream(Within(t), ex, in) {
		if i == k {
			CrashOf(t, err, k)
		} else if out != i*i || err != nil {
			t.Errorf("item %d: got %d, %v", i, out, err)
		}
		i++
	}
	Want(t, "number of results", i, n)
}

func crashFailsMap(t *testing.T, s Subject) {
	ex, tasks := s.start(t, Options{Workers: 2}), Tasks(10, Task{})
	tasks[4].End = "exit 1"
	out, err := Do.Map(Within(t), ex, tasks)
	Want(t, "results", out, Squares(4))
	CrashOf(t, err, 4)
}

func setupOnce(t *testing.T, s Subject) {
	log := LogFile(t)
	ex := s.start(t, Options{Workers: 2, Setup: Do.With(Task{X: -1, Log: log})})
	if _, err := Do.Map(Within(t), ex, Tasks(10, Task{Log: log})); err != nil {
		t.Fatal(err)
	}
	ready, entries := map[int]bool{}, ReadLog(t, log) // read once: spares may be set up meanwhile
	for _, e := range entries {
		switch {
		case e.X >= 0 && !ready[e.PID]:
			t.Errorf("process %d ran a call before its setup", e.PID)
		case e.X < 0 && ready[e.PID]:
			t.Errorf("process %d ran its setup twice", e.PID)
		}
		ready[e.PID] = true
	}
	Want(t, "number of calls", len(entries), 10+len(ready))
}

func setupFails(t *testing.T, s Subject) {
	log := LogFile(t)
	ex := s.start(t, Options{Workers: 2, Setup: Do.With(Task{X: 7, End: "error"})})
	for range 2 {
		out, err := Do.Map(Within(t), ex, Tasks(5, Task{Log: log}), multiproc.CollectErrors())
		Want(t, "results", out, make([]int, 5))
		WantErr(t, err, ErrTask)
		if err == nil || strings.Count(err.Error(), "item 7: task failed") != 5 {
			t.Errorf("got %v, want the error of the setup for each call", err)
		}
	}
	Want(t, "calls that ran", len(ReadLog(t, log)), 0)
}

func setupDies(t *testing.T, s Subject) {
	ex := s.start(t, Options{Workers: 2, Setup: Do.With(Task{End: "exit 9"})})
	_, err := Square.Call(Within(t), ex, 3)
	if e, ok := errors.AsType[*multiproc.CrashError](err); !ok || e.ExitCode != 9 || !strings.Contains(err.Error(), "setup") {
		t.Errorf("got %v, want the exit code of the setup", err)
	}
}

func nesting(t *testing.T, s Subject) {
	ex := s.start(t, Options{Workers: 1})
	if n, err := Nest.Call(Within(t), ex, 2); n != 2 || err != nil {
		t.Errorf("two deep: got %d, %v", n, err)
	}
}

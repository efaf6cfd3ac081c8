//go:build linux

package multiproc_test

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestStart starts all workers before there is work.
func TestStart(t *testing.T) {
	t.Parallel()
	log := proctest.LogFile(t)
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 3, Setup: proctest.Do.With(proctest.Task{Log: log})})
	defer pool.Close()
	for range 2 { // the second has nothing to do
		if err := pool.Start(proctest.Within(t)); err != nil {
			t.Fatal(err)
		}
		pids := map[int]bool{}
		for _, e := range proctest.ReadLog(t, log) {
			pids[e.PID] = true
		}
		if len(pids) != 3 || len(proctest.ReadLog(t, log)) != 3 {
			t.Errorf("setup ran in %d processes", len(pids))
		}
	}
	if out, err := proctest.Do.Call(proctest.Within(t), pool, proctest.Task{X: 3, Log: log}); out != 9 || err != nil {
		t.Errorf("got %d, %v", out, err)
	}
	proctest.Want(t, "lines of the log", len(proctest.ReadLog(t, log)), 4)
}

// TestStartAfterUse starts those workers that calls have not started.
func TestStartAfterUse(t *testing.T) {
	t.Parallel()
	gate := proctest.NewGate(t)
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2, Setup: proctest.Do.With(proctest.Task{Gate: gate.Path})})
	defer pool.Close()
	fut := proctest.Square.Go(proctest.Within(t), pool, 2)
	first := gate.Next()
	started := make(chan error, 1)
	go func() { started <- pool.Start(proctest.Within(t)) }()
	gate.Next().Release()
	select {
	case err := <-started:
		t.Fatalf("Start returns %v while a worker is not ready", err)
	case <-time.After(50 * time.Millisecond):
	}
	first.Release()
	if err := <-started; err != nil {
		t.Error(err)
	}
	if out, err := fut.Wait(proctest.Within(t)); out != 4 || err != nil {
		t.Errorf("got %d, %v", out, err)
	}
}

// TestStartFails has a worker fail to start: the error is that of Start, and those
// that had come up are gone.
func TestStartFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		task proctest.Task
		says string
	}{
		"setup fails":   {proctest.Task{X: 5, End: "error"}, "multiproc: start: start worker: setup: do (pid N): item 5: task failed"},
		"setup panics":  {proctest.Task{X: 5, End: "panic"}, "multiproc: start: start worker: setup: do (pid N): panic: panic of item 5"},
		"setup crashes": {proctest.Task{End: "exit 7"}, "multiproc: start: start worker: setup: do (pid N): worker died: exit code 7"},
	} {
		log := proctest.LogFile(t)
		c.task.Log = log
		pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 3, Setup: proctest.Do.With(c.task), Stderr: io.Discard})
		defer pool.Close()
		err := pool.Start(proctest.Within(t))
		if err == nil || withoutPID(err) != c.says {
			t.Errorf("%s:\n got %v\nwant %s", name, err, c.says)
		}
		for _, e := range proctest.ReadLog(t, log) {
			if proctest.Running(e.PID) {
				t.Errorf("%s: process %d is left", name, e.PID)
			}
		}
	}
}

// withoutPID returns the text of an error with N in place of pids.
func withoutPID(err error) string {
	words := strings.Split(err.Error(), "(pid ")
	for i, word := range words[1:] {
		_, rest, _ := strings.Cut(word, ")")
		words[i+1] = "N)" + rest
	}
	return strings.Join(words, "(pid ")
}

// TestStartGivesUp ends the context of a Start whose workers take too long.
func TestStartGivesUp(t *testing.T) {
	t.Parallel()
	gate := proctest.NewGate(t)
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2, Setup: proctest.Do.With(proctest.Task{Gate: gate.Path})})
	defer pool.Close()
	ctx, cancel := context.WithCancelCause(proctest.Within(t))
	started := make(chan error, 1)
	go func() { started <- pool.Start(ctx) }()
	at := []*proctest.Visitor{gate.Next(), gate.Next()}
	cancel(errEnough)
	proctest.WantErr(t, <-started, errEnough)
	for _, v := range at {
		if proctest.Running(v.PID) {
			t.Errorf("process %d is left", v.PID)
		}
	}
}

// TestSetupRunsAgain kills workers: those that take their place run the setup too.
func TestSetupRunsAgain(t *testing.T) {
	t.Parallel()
	log := proctest.LogFile(t)
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Setup: proctest.Do.With(proctest.Task{X: 1, Log: log})})
	defer pool.Close()
	for i := range 4 {
		if err := syscall.Kill(pidOf(t, pool), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		proctest.Want(t, "runs of the setup", proctest.Runs(t, log)[1], i+1)
	}
}

// TestSetupCannotBeEncoded has a setup whose argument cannot travel.
func TestSetupCannotBeEncoded(t *testing.T) {
	t.Parallel()
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Setup: proctest.Any.With(make(chan int))})
	defer pool.Close()
	proctest.WantErr(t, pool.Start(proctest.Within(t)), multiproc.ErrEncoding)
	_, err := proctest.Square.Call(proctest.Within(t), pool, 1)
	proctest.WantErr(t, err, multiproc.ErrEncoding)
}

// TestSetupFailsForAWhile has the setup fail twice: the calls that wait are run then.
func TestSetupFailsForAWhile(t *testing.T) {
	t.Parallel()
	log := proctest.LogFile(t)
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Setup: failTwice.With(log)})
	defer pool.Close()
	if out, err := proctest.Square.Call(proctest.Within(t), pool, 5); out != 25 || err != nil {
		t.Errorf("got %d, %v", out, err)
	}
	if text, err := os.ReadFile(log); err != nil || len(text) != 3 {
		t.Errorf("the setup ran %d times, %v", len(text), err)
	}
}

// failTwice fails until its file has three bytes, of which it writes one.
var failTwice = multiproc.Register("failTwice", func(_ context.Context, path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	if err := os.WriteFile(path, append(text, '.'), 0o600); err != nil {
		return 0, err
	}
	if len(text) < 2 {
		return 0, errors.New("not yet")
	}
	return 0, nil
})

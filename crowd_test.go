//go:build linux

package multiproc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestManyWorkers has more workers at work at once than some systems can wait for (Windows, 61).
func TestManyWorkers(t *testing.T) {
	const workers = 70
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: workers, GOMAXPROCS: 1})
	defer pool.Close()
	gate := proctest.NewGate(t)
	var futures []*multiproc.Future[int]
	for _, task := range proctest.Tasks(workers, proctest.Task{Gate: gate.Path}) {
		futures = append(futures, proctest.Do.Go(proctest.Within(t), pool, task))
	}
	pids := map[int]bool{}
	for _, v := range gate.Visitors(workers) {
		pids[v.PID] = true
	}
	proctest.Want(t, "workers", len(pids), workers)
	gate.Open()
	for i, fut := range futures {
		if out, err := fut.Wait(proctest.Within(t)); out != i*i || err != nil {
			t.Errorf("call %d: got %d, %v", i, out, err)
		}
	}
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
	for pid := range pids {
		if proctest.Running(pid) {
			t.Errorf("process %d is left", pid)
		}
	}
}

// twoMay succeeds in the first two processes that call it for a directory.
var twoMay = multiproc.Register("twoMay", func(_ context.Context, dir string) (int, error) {
	for i := range 2 {
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprint(i)), os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			return 0, f.Close()
		}
	}
	return 0, errors.New("two are enough")
})

// TestOneFailsToStart has one worker fail to start while the others come up: the error is that of
// Start, and the others are gone.
func TestOneFailsToStart(t *testing.T) {
	t.Parallel()
	variable, members := family(t)
	dir := t.TempDir()
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 3, Setup: twoMay.With(dir), Env: []string{variable}, Stderr: io.Discard})
	defer pool.Close()
	err := pool.Start(proctest.Within(t))
	if want := "multiproc: start: start worker: setup: twoMay (pid N): two are enough"; err == nil || withoutPID(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	proctest.Want(t, "workers that came up", len(entries), 2)
	// Those that had come up might have got calls meanwhile: they are told to end.
	proctest.Eventually(t, proctest.Patience, "the others are gone", func() bool { return len(members()) == 0 })
}

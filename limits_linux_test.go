package multiproc_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/child"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// kept is what calls of hog leave in their worker.
var kept [][]byte

// hog allocates so many MiB and keeps them; with 0, all that it gets. It returns the process.
var hog = multiproc.Register("hog", func(_ context.Context, mib int) (int, error) {
	for i := 0; i < mib || mib == 0; i++ {
		kept = append(kept, bytes.Repeat([]byte{1}, 1<<20))
	}
	return os.Getpid(), nil
})

// TestMemoryLimit has a call take all memory that it can get. That costs the call.
func TestMemoryLimit(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector needs more memory than programs do")
	}
	t.Parallel()
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, MemoryLimit: 100 << 20, Stderr: proctest.Quiet})
	defer pool.Close()
	out, err := hog.Map(proctest.Within(t), pool, []int{10, 0, 50}, multiproc.CollectErrors())
	e, ok := errors.AsType[*multiproc.CrashError](err.(interface{ Unwrap() []error }).Unwrap()[0])
	if !ok || !e.OutOfMemory || e.Index != 1 || !strings.Contains(e.Reason, "out of memory") {
		t.Errorf("got %#v", err)
	}
	if out[0] == 0 || out[2] == 0 || out[0] == out[2] {
		t.Errorf("the other calls: %v", out)
	}
	p, err := hog.Start(proctest.Within(t), 0, multiproc.ProcessConfig{MemoryLimit: 20 << 20, Stderr: proctest.Quiet})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Wait(proctest.Within(t))
	if e, ok := errors.AsType[*multiproc.CrashError](err); !ok || !e.OutOfMemory {
		t.Errorf("Start: got %v", err)
	}
}

// spin computes for so many milliseconds of CPU time, whatever its context says.
var spin = multiproc.Register("spin", func(_ context.Context, ms int) (int, error) {
	n := 0
	for before := child.SelfCPU(); child.SelfCPU()-before < time.Duration(ms)*time.Millisecond; {
		n++
	}
	return n, nil
})

// rest waits for so many milliseconds.
var rest = multiproc.Register("rest", func(ctx context.Context, ms int) (struct{}, error) {
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
	case <-ctx.Done():
	}
	return struct{}{}, ctx.Err()
})

// TestCPUTime has a call compute for too long; one that waits as long is not ended.
func TestCPUTime(t *testing.T) {
	t.Parallel()
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, CPUTime: 100 * time.Millisecond, KillGrace: grace})
	defer pool.Close()
	_, err := spin.Call(proctest.Within(t), pool, 60_000)
	if e, ok := errors.AsType[*multiproc.TimeoutError](err); !ok || !e.CPU || !e.Hard {
		t.Errorf("got %v", err)
	}
	if _, err := rest.Call(proctest.Within(t), pool, 500); err != nil {
		t.Errorf("a call that waits: %v", err)
	}
}

// grandchild starts a process that cleans up when it is asked to end, and then waits.
var grandchild = multiproc.Register("grandchild", func(_ context.Context, file string) (struct{}, error) {
	cmd := exec.Command("sh", "-c", "trap 'echo > "+file+".cleaned; exit' TERM; echo > "+file+"; while :; do sleep 0.01; done")
	if err := cmd.Run(); err != nil {
		return struct{}{}, err
	}
	return struct{}{}, nil
})

// TestHardLimitOfGroup has a call with a grandchild exceed its time limit: the grandchild is
// asked to end before all are killed.
func TestHardLimitOfGroup(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/file"
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, CallTimeout: grace, KillGrace: grace, Stderr: proctest.Quiet})
	defer pool.Close()
	_, err := grandchild.Call(proctest.Within(t), pool, file)
	if e, ok := errors.AsType[*multiproc.TimeoutError](err); !ok || !e.Hard {
		t.Fatalf("got %v", err)
	}
	for _, name := range []string{file, file + ".cleaned"} {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
}

// TestLimitsOfWorkers checks that limits are checked, and reach workers.
func TestLimitsOfWorkers(t *testing.T) {
	t.Parallel()
	bad := multiproc.NewPool(multiproc.PoolConfig{MemoryLimit: 1, OpenFiles: 3, Nice: 99, CPUs: []int{-1}})
	defer bad.Close()
	_, err := spin.Call(proctest.Within(t), bad, 0)
	for _, want := range []string{"MemoryLimit", "OpenFiles", "Nice", "CPU -1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q too", err, want)
		}
	}
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, OpenFiles: 64, Nice: 1})
	defer pool.Close()
	got, err := limitsOf.Call(proctest.Within(t), pool, struct{}{})
	if err != nil || got.Files != 64 {
		t.Errorf("got %+v, %v", got, err)
	}
}

type limits struct{ Files uint64 }

var limitsOf = multiproc.Register("limitsOf", func(context.Context, struct{}) (limits, error) {
	var l syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l)
	return limits{l.Cur}, err
})

// TestSnapshotOfProcesses looks at real workers.
func TestSnapshotOfProcesses(t *testing.T) {
	t.Parallel()
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2})
	defer pool.Close()
	f := spin.Go(proctest.Within(t), pool, 300)
	if _, err := f.Wait(proctest.Within(t)); err != nil {
		t.Fatal(err)
	}
	s := pool.Snapshot()
	if len(s.Workers) != 1 || s.Workers[0].RSS < 1<<20 || s.Workers[0].CPU < 200*time.Millisecond || s.Latency.P50 < 300*time.Millisecond {
		t.Errorf("got %+v", s)
	}
	runtime.KeepAlive(f)
}

package shared_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
	"github.com/seed84f35039/multiproc/shared"
)

// fdFiles is where a worker has its end of the way for descriptors.
const fdFiles = 5

// attack sends something else before its result, and says that it came through.
var attack = multiproc.Register("attack", func(_ context.Context, what string) (shared.Memory, error) {
	fd, n := 0, 1
	switch what {
	case "a socket":
		fd = fdFiles
	case "a file":
		f, err := os.Open("/proc/self/status")
		if err != nil {
			return shared.Memory{}, err
		}
		fd = int(f.Fd())
	default:
		var err error
		if fd, err = unix.MemfdCreate("multiproc attack", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING); err != nil {
			return shared.Memory{}, err
		}
		if err := unix.Ftruncate(fd, 1<<20); err != nil {
			return shared.Memory{}, err
		}
	}
	switch what {
	case "sealed memory":
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL); err != nil {
			return shared.Memory{}, err
		}
	case "a flood":
		n = 100_000
	}
	fds := []int{fd}
	if what == "a flood" {
		for len(fds) < 200 {
			fds = append(fds, fd)
		}
	}
	for range n {
		err := unix.Sendmsg(fdFiles, []byte{0}, unix.UnixRights(fds...), nil, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ETOOMANYREFS) {
			break
		}
		if err != nil {
			return shared.Memory{}, fmt.Errorf("attack: %w", err)
		}
	}
	if fd != fdFiles {
		unix.Close(fd)
	}
	return shared.NewMemory(10)
})

// TestHostile has workers send descriptors of all kinds that nobody asked for: their
// calls fail, other workers do not notice, and nothing of it stays.
func TestHostile(t *testing.T) {
	innocent := multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
	defer innocent.Close()
	m := newMemory(t, 10)
	for _, what := range []string{"a socket", "a file", "unsealed memory", "sealed memory", "a flood"} {
		pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
		before := descriptors(t)
		if err := pool.Start(proctest.Within(t)); err != nil {
			t.Fatal(err)
		}
		ofWorker := descriptors(t) - before
		for range 2 { // the second gets what the first has left
			out, err := attack.Call(proctest.Within(t), pool, what)
			proctest.WantErr(t, err, multiproc.ErrEncoding)
			if out.Bytes() != nil || err == nil || !strings.Contains(err.Error(), "attack") {
				t.Errorf("%s: got %v, %v", what, out, err)
			}
		}
		if n := descriptors(t); n > before+ofWorker {
			t.Errorf("%s: %d descriptors, %d before", what, n, before+ofWorker)
		}
		if out, err := size.Call(proctest.Within(t), innocent, m); out != 10 || err != nil {
			t.Errorf("%s: an innocent call: %d, %v", what, out, err)
		}
		pool.Kill()
	}
}

// descriptors counts those of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// resources are the descriptors and mappings of shared memory that a process has.
type resources struct{ Descriptors, Mappings int }

var look = multiproc.Register("resources", func(context.Context, struct{}) (r resources, err error) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return r, err
	}
	r.Mappings = strings.Count(string(maps), "/memfd:multiproc shared")
	entries, err := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if target, _ := os.Readlink("/proc/self/fd/" + e.Name()); strings.Contains(target, "memfd:multiproc shared") {
			r.Descriptors++
		}
	}
	return r, err
})

// TestWorkerKeepsNothing looks at what is left in a worker of calls that have ended, in
// whatever way.
func TestWorkerKeepsNothing(t *testing.T) {
	t.Parallel()
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Stderr: proctest.Quiet})
	defer pool.Close()
	ctx := proctest.Within(t)
	var marks []proctest.Mark
	for i := range 100 {
		marks = append(marks, proctest.Mark{Memory: newMemory(t, 10), At: i % 11}) // the last place does not exist
	}
	out, err := proctest.Write.Map(ctx, pool, marks, multiproc.CollectErrors(), multiproc.WithBatch(20))
	if err == nil {
		t.Error("a place outside of the memory")
	}
	for _, m := range out {
		m.Close()
	}
	made, err := proctest.Make.Map(ctx, pool, []int{1, 2, 3, 4, 5, 6, 7, 8})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range made {
		m.Close()
	}
	cancelled, cancel := context.WithCancel(ctx)
	gate := proctest.NewGate(t)
	first := proctest.Do.Go(ctx, pool, proctest.Task{Gate: gate.Path})
	visitor := gate.Next()
	var behind []*multiproc.Future[int]
	for _, m := range marks[:20] {
		behind = append(behind, proctest.Set.Go(cancelled, pool, m))
	}
	cancel()
	for _, fut := range behind {
		if _, err := fut.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	visitor.Release()
	if _, err := first.Wait(ctx); err != nil {
		t.Error(err)
	}
	left, err := look.Call(ctx, pool, struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	proctest.Want(t, "what the worker has", left, resources{})
}

// TestMappedOnce has memory come back to the process that has it.
func TestMappedOnce(t *testing.T) {
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2})
	defer pool.Close()
	ctx := proctest.Within(t)
	ex := multiproc.NewThreads(multiproc.ThreadsConfig{}) // to look at this process
	defer ex.Close()
	before, err := look.Call(ctx, ex, struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	m := newMemory(t, 10)
	marks := make([]proctest.Mark, 50)
	for i := range marks {
		marks[i].Memory = m
	}
	out, err := proctest.Write.Map(ctx, pool, marks)
	if err != nil {
		t.Fatal(err)
	}
	now, err := look.Call(ctx, ex, struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	proctest.Want(t, "more than before", resources{now.Descriptors - before.Descriptors, now.Mappings - before.Mappings}, resources{1, 1})
	for _, m := range out {
		m.Close()
	}
}

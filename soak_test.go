//go:build linux

package multiproc_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestSoak uses a pool in every way at once while workers are killed and stopped at random,
// and checks every result. It lasts 3 seconds, or as long as SOAK says ("make soak"): then
// it also shows what it has done.
func TestSoak(t *testing.T) {
	length := 3 * time.Second
	if s := os.Getenv("SOAK"); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatalf("SOAK: %v", err)
		}
	} else {
		t.Parallel()
	}
	s := &soak{t: t}
	s.pool = multiproc.NewPool(multiproc.PoolConfig{
		Workers: 3, MaxTasks: 2000, MaxAge: 3 * time.Second, Spares: 1, Heartbeat: 100 * time.Millisecond,
		CallTimeout: time.Second, KillGrace: 100 * time.Millisecond, Stderr: proctest.Quiet,
		Observe: s.observe,
	})
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	var users sync.WaitGroup
	for n := range 4 {
		users.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(n), 7))
			for ctx.Err() == nil {
				s.use(rng)
			}
		})
	}
	users.Go(func() { s.harm(ctx) })
	var before, after usage
	users.Go(func() {
		select {
		case <-time.After(length / 4):
			before = usageNow(s.pool)
		case <-ctx.Done():
		}
	})
	ended := make(chan struct{})
	go func() { // ends when the users have; waited for below
		users.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(length + 2*proctest.Patience):
		t.Fatalf("it hangs: %+v", s.pool.Snapshot())
	}
	after = usageNow(s.pool)
	s.pool.Close()
	s.report(length, before, after)
}

// soak is what a run counts.
type soak struct {
	t    *testing.T
	pool *multiproc.Pool

	calls, wrong, faults, harmed, killed, stopped atomic.Int64

	mu        sync.Mutex
	died      time.Time // when a worker was killed last, and none has become ready since; or zero
	replaced  []time.Duration
	deadlines []time.Duration // from deadline to error, of calls that do not look
}

// usage is what the process uses.
type usage struct{ heap, goroutines, files, shm int }

func usageNow(p *multiproc.Pool) usage {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	fds, _ := os.ReadDir("/proc/self/fd")
	shm, _ := os.ReadDir("/dev/shm")
	return usage{int(m.HeapAlloc >> 10), runtime.NumGoroutine(), len(fds), len(shm)}
}

// use makes calls in one of the ways that there are.
func (s *soak) use(rng *rand.Rand) {
	ends := []string{"error", "panic", "goexit", "exit 3", "signal 9", "hang"}
	switch rng.IntN(5) {
	case 0: // a Map with a call that fails
		tasks := proctest.Tasks(1+rng.IntN(60), proctest.Task{})
		bad := rng.IntN(len(tasks))
		tasks[bad].End = ends[rng.IntN(len(ends)-1)]
		out, err := proctest.Do.Map(context.Background(), s.pool, tasks, multiproc.CollectErrors())
		s.faults.Add(1)
		errs := map[int]error{}
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, err := range joined.Unwrap() {
				errs[indexOf(err)] = err
			}
		}
		for i := range tasks {
			switch {
			case i == bad && errs[i] == nil:
				s.isWrong("call %d ended with %d instead of %q", i, out[i], tasks[i].End)
			case i != bad:
				s.check(i, out[i], errs[i])
			}
		}
	case 1: // a Stream that is left
		left := rng.IntN(300)
		n := 0
		for out, err := range proctest.Square.Stream(context.Background(), s.pool, numbers(250)) {
			s.check(n, out, err)
			if n++; n == left {
				break
			}
		}
	case 2: // a call that is cancelled
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rng.IntN(3000))*time.Microsecond)
		out, err := proctest.Square.Call(ctx, s.pool, 12)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			s.check(12, out, err)
		}
	case 3: // many small calls
		out, err := proctest.Square.Map(context.Background(), s.pool, proctest.Numbers(2000), multiproc.CollectErrors())
		failed := map[int]error{}
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, err := range joined.Unwrap() {
				failed[indexOf(err)] = err
			}
		}
		for i := range out {
			s.check(i, out[i], failed[i])
		}
	case 4: // a call that hangs, seldom
		if rng.IntN(20) > 0 {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		_, err := proctest.Do.Call(ctx, s.pool, proctest.Task{End: "hang"})
		deadline, _ := ctx.Deadline()
		s.mu.Lock()
		s.deadlines = append(s.deadlines, time.Since(deadline))
		s.mu.Unlock()
		s.faults.Add(1)
		if err == nil {
			s.isWrong("a call that hangs has a result")
		}
	}
}

func numbers(n int) func(func(int) bool) { return slices.Values(proctest.Numbers(n)) }

// indexOf returns the index that an error of a call tells.
func indexOf(err error) int {
	if e, ok := errors.AsType[*multiproc.CrashError](err); ok {
		return e.Index
	}
	if e, ok := errors.AsType[*multiproc.PanicError](err); ok {
		return e.Index
	}
	if e, ok := errors.AsType[*multiproc.RemoteError](err); ok {
		return e.Index
	}
	if e, ok := errors.AsType[*multiproc.TimeoutError](err); ok {
		return e.Index
	}
	return -1
}

// check checks the outcome of a call of x that has done nothing wrong. It may have been
// harmed: then it is a crash, or, where its worker was stopped, its time has run out.
func (s *soak) check(x, out int, err error) {
	s.calls.Add(1)
	if err == nil {
		if out != x*x {
			s.isWrong("call of %d: got %d", x, out)
		}
		return
	}
	s.harmed.Add(1)
	crash, crashed := errors.AsType[*multiproc.CrashError](err)
	if crashed && crash.Signal == syscall.SIGKILL {
		return
	}
	if _, late := errors.AsType[*multiproc.TimeoutError](err); !late {
		s.isWrong("call of %d: %v", x, err)
	}
}

func (s *soak) isWrong(format string, args ...any) {
	s.wrong.Add(1)
	s.t.Errorf(format, args...)
}

// harm kills and stops workers until ctx ends.
func (s *soak) harm(ctx context.Context) {
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if n%4 == 3 {
			if multiproc.SignalAny(s.pool, syscall.SIGSTOP) {
				s.stopped.Add(1)
			}
			continue
		}
		s.mu.Lock()
		if multiproc.SignalAny(s.pool, syscall.SIGKILL) {
			s.killed.Add(1)
			s.died = time.Now()
		}
		s.mu.Unlock()
	}
}

// observe measures how long it takes from the death of a worker until one is ready.
func (s *soak) observe(e multiproc.Event) {
	if e.Kind != multiproc.WorkerStarted {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.died.IsZero() {
		s.replaced = append(s.replaced, time.Since(s.died))
		s.died = time.Time{}
	}
}

func (s *soak) report(length time.Duration, before, after usage) {
	if harmed, most := s.harmed.Load(), s.killed.Load()+s.stopped.Load(); harmed > most {
		s.t.Errorf("%d innocent calls were lost to %d faults, which may cost one each", harmed, most)
	}
	if s.calls.Load() == 0 || s.killed.Load() == 0 {
		s.t.Errorf("nothing has happened: %d calls, %d kills", s.calls.Load(), s.killed.Load())
	}
	if os.Getenv("SOAK") == "" {
		return
	}
	line := func(what string, ds []time.Duration) string {
		if len(ds) == 0 {
			return what + ": none"
		}
		slices.Sort(ds)
		return fmt.Sprintf("%s: median %v, p99 %v of %d", what, ds[len(ds)/2].Round(time.Microsecond), ds[len(ds)*99/100].Round(time.Microsecond), len(ds))
	}
	s.t.Logf("%v: %d calls, %d of them wrong; %d calls that fail by themselves; %d workers killed and %d stopped, which cost %d calls",
		length, s.calls.Load(), s.wrong.Load(), s.faults.Load(), s.killed.Load(), s.stopped.Load(), s.harmed.Load())
	s.t.Log(line("kill of a worker to another ready", s.replaced))
	s.t.Log(line("deadline of a call to its error", s.deadlines))
	s.t.Logf("after a quarter, and at the end: heap %d and %d KiB, goroutines %d and %d, descriptors %d and %d, files in /dev/shm %d and %d",
		before.heap, after.heap, before.goroutines, after.goroutines, before.files, after.files, before.shm, after.shm)
}

//go:build linux

package multiproc_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

var errEnough = errors.New("enough")

// TestCancelRunning ends the contexts of calls that see it: they end at once, and
// their worker stays.
func TestCancelRunning(t *testing.T) {
	t.Parallel()
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, KillGrace: time.Hour})
	defer pool.Close()
	gate := proctest.NewGate(t)
	for name, call := range cancellable(pool) {
		ctx, cancel := context.WithCancelCause(proctest.Within(t))
		ended := make(chan error, 1)
		go func() { ended <- call(ctx, proctest.Task{Gate: gate.Path}) }()
		v := gate.Next()
		cancel(errEnough)
		err := <-ended
		if !errors.Is(err, errEnough) || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want the context's error and its cause", name, err)
		}
		v.AwaitEnd(t)
		view, err := proctest.Look.Call(proctest.Within(t), pool, "")
		if err != nil || view.PID != v.PID {
			t.Errorf("%s: afterwards process %d, %v, before %d", name, view.PID, err, v.PID)
		}
	}
}

// cancellable are the ways to make a call whose context can end.
func cancellable(ex multiproc.Executor) map[string]func(context.Context, proctest.Task) error {
	return map[string]func(context.Context, proctest.Task) error{
		"Call": func(ctx context.Context, task proctest.Task) error {
			_, err := proctest.Do.Call(ctx, ex, task)
			return err
		},
		"Go": func(ctx context.Context, task proctest.Task) error {
			_, err := proctest.Do.Go(ctx, ex, task).Wait(context.Background())
			return err
		},
		"Map": func(ctx context.Context, task proctest.Task) error {
			_, err := proctest.Do.Map(ctx, ex, []proctest.Task{task})
			return err
		},
		"Stream": func(ctx context.Context, task proctest.Task) (last error) {
			for _, err := range proctest.Do.Stream(ctx, ex, slices.Values([]proctest.Task{task})) {
				last = err
			}
			return last
		},
	}
}

// TestCancelDeaf ends the contexts of calls that do not see it: the caller goes on at
// once, the worker is killed after KillGrace with what it has started, and replaced.
func TestCancelDeaf(t *testing.T) {
	t.Parallel()
	for _, task := range []proctest.Task{{End: "hang"}, {End: "spin"}, {End: "signal 19"}, {End: "child 1"}} {
		t.Run(task.End, func(t *testing.T) {
			t.Parallel()
			pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, KillGrace: grace})
			defer pool.Close()
			gate := proctest.NewGate(t)
			task.Gate, task.Deaf = gate.Path, true
			for name, call := range cancellable(pool) {
				ctx, cancel := context.WithCancelCause(proctest.Within(t))
				ended := make(chan error, 1)
				go func() { ended <- call(ctx, task) }()
				v := gate.Next()
				v.Release()
				if task.End == "signal 19" {
					proctest.Eventually(t, proctest.Patience, "the worker is stopped", func() bool { return proctest.Stopped(v.PID) })
				}
				cancel(errEnough)
				began := time.Now()
				proctest.WantErr(t, <-ended, errEnough)
				if took := time.Since(began); took > grace {
					t.Errorf("%s returns %v after the end of its context", name, took)
				}
				view, err := proctest.Look.Call(proctest.Within(t), pool, "")
				if err != nil || view.PID == v.PID {
					t.Errorf("%s: afterwards process %d, %v, before %d", name, view.PID, err, v.PID)
				}
				if took := time.Since(began); took < grace/2 || took > 10*within {
					t.Errorf("%s: the worker was replaced after %v", name, took)
				}
				proctest.Eventually(t, time.Second, "its processes are gone", func() bool { return len(proctest.Group(v.PID)) == 0 })
			}
		})
	}
}

// TestCancelNotStarted ends the context of a call that was handed to a worker that is
// stopped and so does not begin it.
func TestCancelNotStarted(t *testing.T) {
	t.Parallel()
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, KillGrace: grace})
	defer pool.Close()
	pid := pidOf(t, pool)
	stop(t, pid)
	ctx, cancel := context.WithTimeout(proctest.Within(t), grace)
	defer cancel()
	_, err := proctest.Square.Call(ctx, pool, 3)
	proctest.WantErr(t, err, context.DeadlineExceeded)
	ctx, cancel = context.WithTimeout(proctest.Within(t), 5*time.Second)
	defer cancel()
	if out, err := proctest.Square.Call(ctx, pool, 4); out != 16 || err != nil {
		t.Errorf("afterwards: got %d, %v", out, err)
	}
}

// TestFirstFailureIsTheFirst has many calls fail at once: Map returns the first in the
// order of the inputs, and all results before it.
func TestFirstFailureIsTheFirst(t *testing.T) {
	t.Parallel()
	const n = 40
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2})
	defer pool.Close()
	for round := range 100 {
		k := round % n
		tasks := proctest.Tasks(n, proctest.Task{})
		for i := k; i < n; i += 1 + round%3 {
			tasks[i].End = "error"
		}
		var opts []multiproc.MapOption
		if round%2 == 1 {
			opts = append(opts, multiproc.WithBatch(1+round%7))
		}
		out, err := proctest.Do.Map(proctest.Within(t), pool, tasks, opts...)
		if e, ok := errors.AsType[*multiproc.RemoteError](err); !ok || e.Index != k {
			t.Errorf("got %v, want the error of item %d", err, k)
		}
		proctest.Want(t, fmt.Sprint("results before item ", k), out, proctest.Squares(k))
	}
}

// TestFailureCancelsTheRest has an item fail while others wait and one runs: those that
// wait never run, and the one that runs sees its context end.
func TestFailureCancelsTheRest(t *testing.T) {
	t.Parallel()
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2, KillGrace: time.Hour})
	defer pool.Close()
	gate := proctest.NewGate(t)
	tasks := proctest.Tasks(100, proctest.Task{Log: proctest.LogFile(t), Gate: gate.Path})
	tasks[0].End = "error"
	failed := make(chan error, 1)
	go func() {
		_, err := proctest.Do.Map(proctest.Within(t), pool, tasks, multiproc.WithBatch(1))
		failed <- err
	}()
	at := gate.Visitors(2)
	at[0].Release()
	proctest.WantErr(t, <-failed, proctest.ErrTask)
	if ran := len(proctest.ReadLog(t, tasks[0].Log)); ran > 3 { // one may have been handed out in the same moment
		t.Errorf("%d calls ran", ran)
	}
}

// TestFailureEndsDeafCalls has an item fail while another takes no notice: its worker
// is killed, so that Map comes to an end.
func TestFailureEndsDeafCalls(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"hang", "spin", "signal 19"} {
		pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2, KillGrace: grace})
		defer pool.Close()
		gate := proctest.NewGate(t)
		tasks := proctest.Tasks(4, proctest.Task{Gate: gate.Path})
		tasks[0].End, tasks[1].End, tasks[1].Deaf = "error", end, true
		failed := make(chan error, 1)
		go func() {
			_, err := proctest.Do.Map(context.Background(), pool, tasks, multiproc.WithBatch(1))
			failed <- err
		}()
		at := gate.Visitors(2)
		at[1].Release()
		at[0].Release()
		select {
		case err := <-failed:
			proctest.WantErr(t, err, proctest.ErrTask)
		case <-time.After(proctest.Patience):
			t.Fatalf("%s: Map does not return", end)
		}
	}
}

// waitFor returns its process id, at once if the first byte of a large argument is 0,
// otherwise when its context ends.
var waitFor = multiproc.Register("test.waitFor", func(ctx context.Context, b []byte) (int, error) {
	if b[0] == 0 {
		return os.Getpid(), nil
	}
	<-ctx.Done()
	return 0, ctx.Err()
})

// TestCancelBehindLargeArguments cancels a call while more has been handed out than fits on
// the way to the worker: it hears of that, and need not be killed.
func TestCancelBehindLargeArguments(t *testing.T) {
	t.Parallel()
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
	defer pool.Close()
	ctx, cancel := context.WithCancel(proctest.Within(t))
	const size = 1 << 20
	in := make([][]byte, 5)
	for i := range in {
		in[i] = make([]byte, size)
		in[i][0] = byte(min(i, 1))
	}
	before, err := waitFor.Call(ctx, pool, in[0])
	if err != nil {
		t.Fatal(err)
	}
	// Whether the second call runs by then or waits, it does not end the worker.
	first := make(chan struct{})
	go func() { // ends with the loop; waited for through first
		defer close(first)
		for range waitFor.Stream(ctx, pool, slices.Values(in), multiproc.WithBatch(2), multiproc.WithWindow(4)) {
			cancel()
		}
	}()
	<-first
	after, err := waitFor.Call(proctest.Within(t), pool, in[0])
	if err != nil || after != before {
		t.Errorf("process %d before, %d after (%v)", before, after, err)
	}
}

//go:build linux

package multiproc_test

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// grace is short, and the time after it within which hanging workers have to be gone
// is what is promised.
const (
	grace  = 100 * time.Millisecond
	within = grace + time.Second
)

// killer is what Pool and Processes have in common.
type killer interface {
	multiproc.Executor
	Kill()
}

func both(cfg multiproc.PoolConfig) map[string]killer {
	return map[string]killer{"pool": multiproc.NewPool(cfg), "processes": multiproc.NewProcesses(cfg)}
}

// TestCloseWhileHanging closes executors in every way while calls hang in every way.
func TestCloseWhileHanging(t *testing.T) {
	hangs := map[string]proctest.Task{
		"blocked":          {End: "hang"},
		"computing":        {End: "spin"},
		"stopped":          {End: "signal 19"},
		"with a child":     {End: "child 1"},
		"deaf at the gate": {Deaf: true},
	}
	ways := map[string]func(killer) error{
		"Close": func(ex killer) error {
			if ex.Close() == nil {
				return errors.New("Close tells nothing")
			}
			return nil
		},
		"Shutdown": func(ex killer) error {
			ctx, cancel := context.WithTimeout(context.Background(), grace)
			defer cancel()
			if err := ex.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("Shutdown returns %v", err)
			}
			return nil
		},
		"Kill": func(ex killer) error { ex.Kill(); return nil },
	}
	for state, task := range hangs {
		for how, end := range ways {
			t.Run(state+"/"+how, func(t *testing.T) {
				t.Parallel()
				for name, ex := range both(multiproc.PoolConfig{Workers: 2, KillGrace: grace, Stderr: proctest.Quiet}) {
					gate := proctest.NewGate(t)
					task, pass := task, !task.Deaf
					task.Gate, task.Deaf = gate.Path, true
					var futures []*multiproc.Future[int]
					for range 5 {
						futures = append(futures, proctest.Do.Go(context.Background(), ex, task))
					}
					at := []*proctest.Visitor{gate.Next(), gate.Next()}
					if pass {
						at[0].Release()
						at[1].Release()
					}
					if task.End == "signal 19" {
						proctest.Eventually(t, proctest.Patience, "the workers are stopped", func() bool {
							return proctest.Stopped(at[0].PID) && proctest.Stopped(at[1].PID)
						})
					}

					began := time.Now()
					if err := end(ex); err != nil {
						t.Errorf("%s: %v", name, err)
					}
					if took := time.Since(began); took > within {
						t.Errorf("%s: it took %v, at most %v are allowed", name, took, within)
					}

					for i, fut := range futures {
						select {
						case <-fut.Done():
						case <-time.After(proctest.Patience):
							t.Fatalf("%s: call %d is not done", name, i)
						}
						_, err := fut.Wait(context.Background())
						proctest.WantErr(t, err, multiproc.ErrClosed)
					}
					for _, v := range at {
						// What the worker started was killed with it, and is nobody's child here.
						proctest.Eventually(t, time.Second, "its processes are gone", func() bool { return len(proctest.Group(v.PID)) == 0 })
					}
				}
			})
		}
	}
}

// TestCloseIdle closes pools whose idle workers are stopped, or were killed.
func TestCloseIdle(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]syscall.Signal{"stopped": syscall.SIGSTOP, "killed": syscall.SIGKILL, "fine": 0} {
		pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, KillGrace: grace})
		view, err := proctest.Look.Call(proctest.Within(t), pool, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(view.PID, signal); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := pool.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > within {
			t.Errorf("%s: Close took %v", name, took)
		}
	}
}

// TestKillCutsCloseShort has Kill end a Close that waits.
func TestKillCutsCloseShort(t *testing.T) {
	t.Parallel()
	for name, ex := range both(multiproc.PoolConfig{Workers: 1, KillGrace: time.Hour}) {
		gate := proctest.NewGate(t)
		fut := proctest.Do.Go(context.Background(), ex, proctest.Task{Gate: gate.Path, Deaf: true})
		v := gate.Next()
		closed := make(chan error, 1)
		go func() { closed <- ex.Close() }()
		proctest.AwaitClosing(t, ex)
		ex.Kill()
		select {
		case <-closed:
		case <-time.After(proctest.Patience):
			t.Fatalf("%s: Close goes on waiting", name)
		}
		_, err := fut.Wait(proctest.Within(t))
		proctest.WantErr(t, err, multiproc.ErrClosed)
		if proctest.Running(v.PID) {
			t.Errorf("%s: process %d is left", name, v.PID)
		}
		ex.Kill() // once more, and of one that is closed
	}
}

// TestKillUnused kills executors that never had a worker.
func TestKillUnused(t *testing.T) {
	t.Parallel()
	for _, ex := range both(multiproc.PoolConfig{}) {
		ex.Kill()
		ex.Kill()
		if err := ex.Close(); err != nil {
			t.Error(err)
		}
		_, err := proctest.Square.Call(proctest.Within(t), ex, 2)
		proctest.WantErr(t, err, multiproc.ErrClosed)
	}
}

// TestCloseInTheMidst closes executors at any moment of a Map's life.
func TestCloseInTheMidst(t *testing.T) {
	t.Parallel()
	const n = 20
	for round := 0; round < n; round += 5 {
		for name, ex := range both(multiproc.PoolConfig{Workers: 2, KillGrace: 10 * time.Second}) {
			started := make(chan struct{})
			mapped := make(chan error, 1)
			go func() {
				first := true
				in := func(yield func(int) bool) {
					for i := range n {
						if !yield(i) {
							return
						}
						if i >= round && first {
							first = false
							close(started)
						}
					}
				}
				var last error
				got := 0
				for out, err := range proctest.Square.Stream(context.Background(), ex, in) {
					if last = err; err == nil && out != got*got {
						last = fmt.Errorf("item %d is %d", got, out)
					}
					got++
				}
				if last == nil && got != n {
					last = fmt.Errorf("%d items of %d", got, n)
				}
				mapped <- last
			}()
			<-started
			if err := ex.Close(); err != nil {
				t.Errorf("%s: Close: %v", name, err)
			}
			if err := <-mapped; err != nil && !errors.Is(err, multiproc.ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

//go:build linux

package multiproc_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestKillWhileReplacing kills executors at any moment while workers end and others take their
// places, with spares and without: none of them escapes, and what has started and has not ended is
// never told to have.
func TestKillWhileReplacing(t *testing.T) {
	for _, spares := range []int{0, 2} {
		for when := range 8 {
			t.Run(fmt.Sprintf("spares=%d/when=%d", spares, when), func(t *testing.T) {
				t.Parallel()
				variable, members := family(t)
				for name, ex := range both(multiproc.PoolConfig{Workers: 3, Spares: spares, MaxTasks: 2, Env: []string{variable}, Stderr: proctest.Quiet}) {
					gate := proctest.NewGate(t)
					held := proctest.Do.Go(context.Background(), ex, proctest.Task{X: 5, Gate: gate.Path, Deaf: true})
					gate.Next()
					tasks := proctest.Tasks(100, proctest.Task{})
					for i := 0; i < len(tasks); i += 2 {
						tasks[i].End = "exit 3"
					}
					done := 0
					for r := range proctest.Do.StreamUnordered(context.Background(), ex, slices.Values(tasks), multiproc.WithBatch(1)) {
						switch _, crashed := errors.AsType[*multiproc.CrashError](r.Err); {
						case r.Err == nil && (r.Index%2 == 0 || r.Value != r.Index*r.Index), crashed && r.Index%2 == 1:
							t.Errorf("%s: call %d: got %d, %v", name, r.Index, r.Value, r.Err)
						case r.Err != nil && !crashed && !errors.Is(r.Err, multiproc.ErrClosed):
							t.Errorf("%s: call %d: got %v", name, r.Index, r.Err)
						}
						if done++; done == when+1 {
							ex.Kill() // while the next ones are being started
						}
					}
					proctest.Want(t, name+": processes after Kill", len(members()), 0)
					_, err := held.Wait(proctest.Within(t))
					proctest.WantErr(t, err, multiproc.ErrClosed)
				}
			})
		}
	}
}

// TestKillDead kills executors whose workers have been killed before.
func TestKillDead(t *testing.T) {
	t.Parallel()
	for name, ex := range both(multiproc.PoolConfig{Workers: 2, Stderr: proctest.Quiet}) {
		gate := proctest.NewGate(t)
		var futures []*multiproc.Future[int]
		for range 2 {
			futures = append(futures, proctest.Do.Go(context.Background(), ex, proctest.Task{Gate: gate.Path}))
		}
		for range 2 {
			if err := syscall.Kill(gate.Next().PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		proctest.Promptly(t, name+": Kill", ex.Kill)
		for _, fut := range futures {
			_, err := fut.Wait(proctest.Within(t))
			if _, crashed := errors.AsType[*multiproc.CrashError](err); !crashed && !errors.Is(err, multiproc.ErrClosed) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if err := ex.Close(); err != nil {
			t.Errorf("%s: Close: %v", name, err)
		}
	}
}

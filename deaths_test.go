//go:build unix

package multiproc_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
	"github.com/seed84f35039/multiproc/internal/transport"
)

// tally counts how often calls have run, of workers in this process.
type tally struct {
	mu   sync.Mutex
	runs map[int]int
}

// tallies are those of the tests that run, by name.
var tallies sync.Map

// counted is the argument of count.
type counted struct {
	Tally string
	X     int
	Time  time.Duration // how long it takes
}

// count counts and returns X squared.
var count = multiproc.Register("faults.count", func(ctx context.Context, c counted) (int, error) {
	v, _ := tallies.Load(c.Tally)
	v.(*tally).add(c.X)
	if c.Time > 0 {
		select {
		case <-time.After(c.Time):
		case <-ctx.Done(): // the worker is gone
		}
	}
	return c.X * c.X, nil
})

func (y *tally) add(x int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.runs[x]++
}

// newTally returns a tally and the arguments of n calls that it counts.
func newTally(t *testing.T, n int) (*tally, []counted) {
	t.Helper()
	y := &tally{runs: map[int]int{}}
	name := fmt.Sprintf("%p", y)
	tallies.Store(name, y)
	t.Cleanup(func() { tallies.Delete(name) })
	args := make([]counted, n)
	for i := range args {
		args[i] = counted{Tally: name, X: i}
	}
	return y, args
}

// checkDeaths checks the outcome of a Map with CollectErrors: each call has its result, and
// ran once, or ended in a crash of its own, of which there are so many at most.
func (y *tally) checkDeaths(t *testing.T, f *proctest.Faults, n int, out []int, err error, most int) {
	t.Helper()
	failed := map[int]bool{}
	if err != nil {
		for _, err := range err.(interface{ Unwrap() []error }).Unwrap() {
			crash, ok := errors.AsType[*multiproc.CrashError](err)
			if !ok {
				t.Fatalf("%v: got %v, want crashes alone", f, err)
			}
			failed[crash.Index] = true
		}
	}
	if len(failed) > most {
		t.Errorf("%v: %d calls failed, want at most %d", f, len(failed), most)
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	for i := range n {
		if !failed[i] && out[i] != i*i {
			t.Errorf("%v: item %d: got %d", f, i, out[i])
		}
		if runs := y.runs[i]; runs > 1 || runs == 0 && !failed[i] {
			t.Errorf("%v: call %d ran %d times", f, i, runs)
		}
	}
}

// TestRandomDeaths has workers die between any two frames: each call is answered
// once, with its result or a crash of its own, and none has run twice.
func TestRandomDeaths(t *testing.T) {
	seeds := 100
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(uint64(seed), 0))
				o := ordeal(t, "kill 4-120", seed) // not before it has started a call
				pool := multiproc.Via{Pipes: true, Wrap: o.Faults.Wrap}.NewPool(multiproc.PoolConfig{Workers: 1 + seed%4})
				const n = 300
				y, args := newTally(t, n)
				for i := range args {
					args[i].Time = time.Duration(rng.IntN(3)) * time.Duration(rng.IntN(2000)) * time.Microsecond
				}
				opts := []multiproc.MapOption{multiproc.CollectErrors()}
				if batch := rng.IntN(40); batch > 0 {
					opts = append(opts, multiproc.WithBatch(batch))
				}
				out, err := count.Map(t.Context(), pool, args, opts...)
				synctest.Wait()
				y.checkDeaths(t, o.Faults, n, out, err, o.Faults.Injected())
				if err := pool.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestKillAtEveryFrame kills the first worker at the first frame, the second, and so on
// until there are no more: each call has its result, but for the one that runs.
func TestKillAtEveryFrame(t *testing.T) {
	const n = 8
	for _, way := range []string{"", " in", " out"} {
		for name, run := range map[string]func(t *testing.T, via multiproc.Via, args []counted) ([]int, error){
			"pool": func(t *testing.T, via multiproc.Via, args []counted) ([]int, error) {
				return mapCounted(t, via.NewPool(multiproc.PoolConfig{Workers: 1}), args)
			},
			"pool, one at a time": func(t *testing.T, via multiproc.Via, args []counted) ([]int, error) {
				return mapCounted(t, via.NewPool(multiproc.PoolConfig{Workers: 1}), args, multiproc.WithBatch(1))
			},
			"two workers": func(t *testing.T, via multiproc.Via, args []counted) ([]int, error) {
				for i := range args {
					args[i].Time = time.Duration(i) * time.Millisecond // so that they take from each other
				}
				return mapCounted(t, via.NewPool(multiproc.PoolConfig{Workers: 2}), args)
			},
			"processes": func(t *testing.T, via multiproc.Via, args []counted) ([]int, error) {
				return mapCounted(t, via.NewProcesses(multiproc.PoolConfig{Workers: 1}), args)
			},
			"start": func(t *testing.T, via multiproc.Via, args []counted) (out []int, err error) {
				var errs []error
				spares := via.NewSpares(0, multiproc.ProcessConfig{})
				defer spares.Close()
				for i, arg := range args {
					x, err := startCounted(t, arg, multiproc.ProcessConfig{Spares: spares})
					if crash, ok := errors.AsType[*multiproc.CrashError](err); ok {
						crash.Index = i
					}
					out = append(out, x)
					if err != nil {
						errs = append(errs, err)
					}
				}
				return out, errors.Join(errs...)
			},
		} {
			t.Run(name+way, func(t *testing.T) {
				frames := 0
				for alive := false; !alive; frames++ {
					synctest.Test(t, func(t *testing.T) {
						o := ordeal(t, fmt.Sprintf("kill %d%s", frames+1, way), 0)
						var first sync.Once
						via := multiproc.Via{Pipes: true, Wrap: func(conn transport.Conn, kill func()) transport.Conn {
							first.Do(func() { conn = o.Faults.Wrap(conn, kill) })
							return conn
						}}
						y, args := newTally(t, n)
						out, err := run(t, via, args)
						synctest.Wait()
						y.checkDeaths(t, o.Faults, n, out, err, 1)
						alive = o.Faults.Injected() == 0
					})
					if frames > 10*n {
						t.Fatal("there is no end to it")
					}
				}
				t.Logf("%d frames", frames-1)
				if frames < 3 {
					t.Errorf("the worker was killed at %d frames", frames-1)
				}
			})
		}
	}
}

func mapCounted(t *testing.T, ex multiproc.Executor, args []counted, opts ...multiproc.MapOption) ([]int, error) {
	out, err := count.Map(t.Context(), ex, args, append(opts, multiproc.CollectErrors())...)
	if err := ex.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	return out, err
}

func startCounted(t *testing.T, arg counted, cfg multiproc.ProcessConfig) (int, error) {
	p, err := count.Start(t.Context(), arg, cfg)
	if err != nil {
		return 0, err
	}
	return p.Wait(t.Context())
}

//go:build unix

package multiproc_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// faults are texts for proctest.ParseFaults.
var faults = []string{
	"drop 4%",
	"delay 2ms 20%",
	"truncate 4%",
	"corrupt 4%",
	"kill 2-30",
	"kill 2-30 in",
	"kill 2-30 out",
	"drop 4% in | delay 3ms 5% out",
	"drop 4% out | truncate 4% in",
	"drop 1% | delay 2ms 5% | truncate 1% | corrupt 1% | kill 17",
}

// faultyExecutors are those that have connections.
var faultyExecutors = map[string]func(v multiproc.Via, o proctest.Ordeal, t *testing.T){
	"pool": func(v multiproc.Via, o proctest.Ordeal, t *testing.T) {
		endure(t, o, v.NewPool(enduring(o)))
	},
	"pool with spares": func(v multiproc.Via, o proctest.Ordeal, t *testing.T) {
		cfg := enduring(o)
		cfg.Spares = 1
		endure(t, o, v.NewPool(cfg))
	},
	"pool with limits": func(v multiproc.Via, o proctest.Ordeal, t *testing.T) {
		cfg := enduring(o)
		cfg.CallTimeout, cfg.MaxTasks = o.Deadline/2, 30
		cfg.Retry = multiproc.Retry{Attempts: 2}
		endure(t, o, v.NewPool(cfg))
	},
	"pool with concurrency": func(v multiproc.Via, o proctest.Ordeal, t *testing.T) {
		cfg := enduring(o)
		cfg.Concurrency = 3
		endure(t, o, v.NewPool(cfg))
	},
	"pool with setup": func(v multiproc.Via, o proctest.Ordeal, t *testing.T) {
		cfg := enduring(o)
		cfg.Setup = proctest.Square.With(3)
		endure(t, o, v.NewPool(cfg))
	},
	"processes": func(v multiproc.Via, o proctest.Ordeal, t *testing.T) {
		endure(t, o, v.NewProcesses(enduring(o)))
	},
	"start": func(v multiproc.Via, o proctest.Ordeal, t *testing.T) {
		spares := v.NewSpares(0, multiproc.ProcessConfig{KillGrace: graceOf(o), StartTimeout: startTimeoutOf(o), Stderr: proctest.Quiet})
		o.RunEach(t, func(ctx context.Context, task proctest.Task) (int, error) {
			p, err := proctest.Do.Start(ctx, task, multiproc.ProcessConfig{Spares: spares})
			if err != nil {
				return 0, err
			}
			out, err := p.Result(ctx)
			p.Kill()
			<-p.Done()
			return out, err
		})
		if err := spares.Close(); err != nil {
			t.Error(err)
		}
	},
}

func graceOf(o proctest.Ordeal) time.Duration { return o.Deadline / 10 }

// startTimeoutOf is how long workers may take to say hello, which may be lost.
func startTimeoutOf(o proctest.Ordeal) time.Duration {
	if o.Exact {
		return o.Deadline / 10
	}
	return 3 * o.Deadline
}

func enduring(o proctest.Ordeal) multiproc.PoolConfig {
	return multiproc.PoolConfig{Workers: o.Workers, KillGrace: graceOf(o), StartTimeout: startTimeoutOf(o), Stderr: proctest.Quiet}
}

// endure runs the history on the executor and closes it, which takes no longer than
// KillGrace and a second.
func endure(t *testing.T, o proctest.Ordeal, ex multiproc.Executor) {
	o.Run(t, ex)
	began := time.Now()
	proctest.Promptly(t, o.Faults.String()+": Close", func() { ex.Close() })
	if took := time.Since(began); o.Exact && took > graceOf(o)+time.Second {
		t.Errorf("%v: Close took %v", o.Faults, took)
	}
}

// suits reports whether the executor can be expected to live with the faults: a setup
// function may take as long as it wants, and nobody can tell that from a frame that was lost.
func suits(executor, text string) bool {
	return executor != "pool with setup" || !strings.Contains(text, "drop") && !strings.Contains(text, "corrupt")
}

// ordeal parses faults that tests have written.
func ordeal(t *testing.T, text string, seed int) proctest.Ordeal {
	t.Helper()
	f, err := proctest.ParseFaults(text, uint64(seed))
	if err != nil {
		t.Fatal(err)
	}
	return proctest.Ordeal{Faults: f, Workers: 1 + seed%3}
}

// TestFaults runs random histories of calls over connections with faults, in a bubble in
// which delays cost no time. FAULT_SEEDS is how many of them, for each executor and text.
func TestFaults(t *testing.T) {
	seeds := 20
	if n, err := strconv.Atoi(os.Getenv("FAULT_SEEDS")); err == nil {
		seeds = n
	} else if testing.Short() || raceEnabled {
		seeds = 4
	}
	for name, run := range faultyExecutors {
		for _, text := range faults {
			if !suits(name, text) {
				continue
			}
			t.Run(name+"/"+text, func(t *testing.T) {
				injected := 0
				for seed := range seeds {
					synctest.Test(t, func(t *testing.T) {
						o := ordeal(t, text, seed)
						o.Deadline, o.Exact = 20*time.Second, true
						run(multiproc.Via{Pipes: true, Wrap: o.Faults.Wrap}, o, t)
						injected += o.Faults.Injected()
					})
				}
				if t.Logf("%d faults", injected); injected == 0 && seeds > 4 {
					t.Error("nothing went wrong")
				}
			})
		}
	}
}

// TestFaultsOfProcesses is TestFaults with real processes, which wait for real: each executor has
// some of the texts over rings and others over sockets, or all with FAULT_SEEDS.
func TestFaultsOfProcesses(t *testing.T) {
	t.Parallel()
	for k, name := range slices.Sorted(maps.Keys(faultyExecutors)) {
		run := faultyExecutors[name]
		for way, sockets := range map[string]bool{"rings": false, "sockets": true} {
			if sockets {
				k += 2
			}
			for i, text := range faults {
				if !suits(name, text) || (i+k)%4 != 0 && os.Getenv("FAULT_SEEDS") == "" {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%s", name, way, text), func(t *testing.T) {
					t.Parallel()
					o := ordeal(t, text, i)
					o.Deadline = time.Second
					run(multiproc.Via{Sockets: sockets, Wrap: o.Faults.Wrap}, o, t)
					t.Logf("%v: %d faults", o.Faults, o.Faults.Injected())
				})
			}
		}
	}
}

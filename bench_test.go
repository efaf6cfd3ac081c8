package multiproc_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
)

var benchSquare = multiproc.Register("bench.square", func(_ context.Context, x int) (int, error) { return x * x, nil })

var benchBytes = multiproc.Register("bench.bytes", func(_ context.Context, b []byte) ([]byte, error) { return b, nil })

// executors runs a benchmark on each executor, started and warm.
func executors(b *testing.B, workers int, bench func(b *testing.B, ex multiproc.Executor)) {
	for _, e := range []struct {
		name string
		open func() multiproc.Executor
	}{
		{"threads", func() multiproc.Executor { return multiproc.NewThreads(multiproc.ThreadsConfig{Workers: workers}) }},
		{"pool", func() multiproc.Executor { return multiproc.NewPool(multiproc.PoolConfig{Workers: workers}) }},
		{"processes", func() multiproc.Executor { return multiproc.NewProcesses(multiproc.PoolConfig{Workers: workers}) }},
	} {
		b.Run("executor="+e.name, func(b *testing.B) {
			ex := e.open()
			defer ex.Close()
			if _, err := benchSquare.Call(b.Context(), ex, 1); err != nil {
				b.Fatal(err)
			}
			bench(b, ex)
		})
	}
}

// BenchmarkCall is one call at a time.
func BenchmarkCall(b *testing.B) {
	executors(b, 2, func(b *testing.B, ex multiproc.Executor) {
		var took []time.Duration
		b.ReportAllocs()
		for b.Loop() {
			began := time.Now()
			if _, err := benchSquare.Call(b.Context(), ex, 7); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2])/1e3, "p50-µs")
		b.ReportMetric(float64(took[len(took)*99/100])/1e3, "p99-µs")
	})
}

// BenchmarkStart is a call in a process of its own, from Start to the result.
func BenchmarkStart(b *testing.B) {
	for _, c := range []struct {
		process string
		spares  int
	}{{"cold", 0}, {"spare", 1}} {
		b.Run("process="+c.process, func(b *testing.B) {
			spares := multiproc.NewSpares(c.spares, multiproc.ProcessConfig{})
			defer spares.Close()
			var took []time.Duration
			for b.Loop() {
				b.StopTimer()
				if err := spares.Start(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				began := time.Now()
				p, err := benchSquare.Start(b.Context(), 7, multiproc.ProcessConfig{Spares: spares})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := p.Result(b.Context()); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
				b.StopTimer()
				<-p.Done()
				b.StartTimer()
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2])/1e3, "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100])/1e3, "p99-µs")
		})
	}
}

// BenchmarkMap is x² over n ints, in the ways of each executor and by a pool of
// goroutines around a channel.
func BenchmarkMap(b *testing.B) {
	const n = 20_000
	in := make([]int, n)
	for i := range in {
		in[i] = i
	}
	rate := func(b *testing.B) { b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "calls/s") }
	b.Run("executor=channel", func(b *testing.B) {
		for b.Loop() {
			out := make([]int, n)
			work := make(chan int, 128)
			done := make(chan struct{})
			for range 2 {
				go func() {
					for i := range work {
						out[i] = in[i] * in[i]
					}
					done <- struct{}{}
				}()
			}
			for i := range in {
				work <- i
			}
			close(work)
			<-done
			<-done
		}
		rate(b)
	})
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			executors(b, workers, func(b *testing.B, ex multiproc.Executor) {
				if _, ok := ex.(*multiproc.Processes); ok {
					b.Skip("a process for each of 20,000 calls says no more than BenchmarkCall")
				}
				b.ReportAllocs()
				for b.Loop() {
					if _, err := benchSquare.Map(b.Context(), ex, in); err != nil {
						b.Fatal(err)
					}
				}
				rate(b)
			})
		})
	}
}

// BenchmarkStream is x² over a stream of inputs; an iteration is one input. It reports
// the memory of this process after a tenth of them and after the last:
//
//	go test -run '^$' -bench Stream -benchtime 10000000x
func BenchmarkStream(b *testing.B) {
	executors(b, 2, func(b *testing.B, ex multiproc.Executor) {
		b.ReportAllocs()
		in := func(yield func(int) bool) {
			for i := 0; i < b.N && yield(i); i++ {
			}
		}
		n := 0
		var tenth float64
		for x, err := range benchSquare.Stream(b.Context(), ex, in) {
			if err != nil || x != n*n {
				b.Fatalf("input %d: got %d, %v", n, x, err)
			}
			if n++; n == b.N/10 {
				tenth = residentMiB()
			}
		}
		b.ReportMetric(tenth, "MiB-at-10%")
		b.ReportMetric(residentMiB(), "MiB-at-end")
	})
}

// residentMiB returns the memory that this process holds, or 0 where the system does
// not tell.
func residentMiB() float64 {
	stat, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, resident int
	fmt.Sscan(string(stat), &size, &resident)
	return float64(resident*os.Getpagesize()) / (1 << 20)
}

// BenchmarkBytes sends bytes there and back.
func BenchmarkBytes(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20, 16 << 20} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			executors(b, 1, func(b *testing.B, ex multiproc.Executor) {
				if _, ok := ex.(*multiproc.Processes); ok {
					b.Skip("the start of a process hides what the bytes cost")
				}
				data := make([]byte, size)
				b.SetBytes(2 * int64(size))
				for b.Loop() {
					if _, err := benchBytes.Call(b.Context(), ex, data); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkSnapshot is one Snapshot of a pool of two workers.
func BenchmarkSnapshot(b *testing.B) {
	in := make([]int, 20_000)
	for _, load := range []string{"none", "map"} {
		b.Run("load="+load, func(b *testing.B) {
			pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2})
			defer pool.Close()
			if err := pool.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			if load == "map" {
				defer keepBusy(b, pool, in)()
			}
			b.ReportAllocs()
			for b.Loop() {
				pool.Snapshot()
			}
		})
	}
}

// keepBusy runs small calls until the function that it returns is called.
func keepBusy(b *testing.B, ex multiproc.Executor, in []int) (stop func()) {
	ctx, cancel := context.WithCancel(b.Context())
	var user sync.WaitGroup
	user.Go(func() {
		for ctx.Err() == nil {
			if _, err := benchSquare.Map(ctx, ex, in); err != nil && ctx.Err() == nil {
				b.Error(err)
				return
			}
		}
	})
	return func() {
		cancel()
		user.Wait()
	}
}

// benchDeaf logs when its context will end, and goes on after that.
var benchDeaf = multiproc.Register("bench.deaf", func(ctx context.Context, spin bool) (int, error) {
	deadline, _ := ctx.Deadline()
	slog.InfoContext(ctx, "", "pid", os.Getpid(), "deadline", deadline)
	for i := 1; spin && i != 0; {
		i = i*3 | 1
	}
	select {}
})

// deathWatch measures how long workers live after the end of the context of benchDeaf.
type deathWatch struct {
	slog.Handler // of no use but for being one
	mu           sync.Mutex
	deadlines    map[int]time.Time // by process id
	dead         chan death
}

// death is when the context of a call ended, and its worker.
type death struct{ deadline, end time.Time }

func (w *deathWatch) Enabled(context.Context, slog.Level) bool { return true }

func (w *deathWatch) Handle(_ context.Context, r slog.Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	pid := 0
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "pid":
			pid = int(a.Value.Int64())
		case "deadline":
			w.deadlines[pid] = a.Value.Time()
		}
		return true
	})
	return nil
}

func (w *deathWatch) observe(e multiproc.Event) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if at, ok := w.deadlines[e.PID]; ok && e.Kind == multiproc.WorkerEnded {
		w.dead <- death{at, now}
		delete(w.deadlines, e.PID)
	}
}

// BenchmarkHardDeadline is a call that goes on after its CallTimeout and is killed KillGrace
// later. It reports how long after that moment the process is dead and reaped, and how long
// after it the caller has its error:
//
//	go test -run '^$' -bench HardDeadline -benchtime 400x
func BenchmarkHardDeadline(b *testing.B) {
	const limit, grace = 10 * time.Millisecond, 50 * time.Millisecond
	for _, c := range []struct {
		call, load string
		spin       bool
	}{{"waits", "none", false}, {"spins", "none", true}, {"waits", "map", false}} {
		b.Run("call="+c.call+"/load="+c.load, func(b *testing.B) {
			w := &deathWatch{deadlines: map[int]time.Time{}, dead: make(chan death, 1)}
			pool := multiproc.NewPool(multiproc.PoolConfig{
				Workers: 2, CallTimeout: limit, KillGrace: grace, Logger: slog.New(w), Observe: w.observe,
			})
			defer pool.Close()
			if err := pool.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			if c.load == "map" {
				defer keepBusy(b, pool, make([]int, 20_000))()
			}
			var dead, told []time.Duration
			for b.Loop() {
				_, err := benchDeaf.Call(b.Context(), pool, c.spin)
				now := time.Now()
				e, ok := errors.AsType[*multiproc.TimeoutError](err)
				if !ok || !e.Hard {
					b.Fatalf("got %v, want a hard TimeoutError", err)
				}
				d := <-w.dead
				hard := d.deadline.Add(grace)
				dead = append(dead, d.end.Sub(hard))
				told = append(told, now.Sub(hard))
			}
			report(b, "dead", dead)
			report(b, "told", told)
		})
	}
}

// report reports the median and the 99th percentile.
func report(b *testing.B, name string, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2])/1e3, name+"-p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100])/1e3, name+"-p99-µs")
}

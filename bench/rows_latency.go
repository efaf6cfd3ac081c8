package main

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed84f35039/multiproc"
)

// Calls that are timed in one round. Peers make fewer, since they take so much longer.
const (
	timedCalls, quickTimedCalls           = 20_000, 1_000
	peerTimedCalls, quickPeerTimedCalls   = 4_000, 200
	apartTimedCalls, quickApartTimedCalls = 2_000, 100
)

// apart is how long a worker sleeps between two calls that are apart.
const apart = time.Millisecond

var percentileMetrics = []metric{{key: "p50", title: "p50, µs", unit: 1e-6}, {key: "p99", title: "p99, µs", unit: 1e-6}}

func latencyRow() row {
	const pool, apply = "Pool of 1, Call", "Python Pool.apply"
	return row{
		name:    "latency",
		title:   "One call at a time",
		about:   "x→x², each call made when the last one has come back, so that a core is idle. A round times 20,000 calls (peers 4,000).",
		metrics: percentileMetrics,
		contenders: []contender{
			{pool, ours, poolLatency(0, timedCalls, quickTimedCalls)},
			{"goroutine and channel", plain, goroutineLatency(0, timedCalls, quickTimedCalls)},
			pingPong("spinning, a CPU each", timedCalls, quickTimedCalls, "spin", "0", "each"),
			pingPong("sleeping, a CPU each", timedCalls, quickTimedCalls, "sleep", "0", "each"),
			pingPong("sleeping", timedCalls, quickTimedCalls, "sleep", "0", "any"),
			python("Pool.apply", "latency_pool", peerTimedCalls, quickPeerTimedCalls, "0"),
			python("ProcessPoolExecutor.submit", "latency_executor", peerTimedCalls, quickPeerTimedCalls, "0"),
			pythonPackage("mpire", "apply", "latency_mpire", peerTimedCalls, quickPeerTimedCalls, "0"),
			pythonPackage("loky", "submit", "latency_loky", peerTimedCalls, quickPeerTimedCalls, "0"),
			pythonPackage("pebble", "schedule", "latency_pebble", peerTimedCalls, quickPeerTimedCalls, "0"),
			goPlugin("netrpc", "", "latency", peerTimedCalls, quickPeerTimedCalls),
			goPlugin("grpc", "", "latency", peerTimedCalls, quickPeerTimedCalls),
		},
		goals: []goal{
			{text: "p50 ≤ 3 µs", of: figure{pool, "p50"}, most: 3e-6},
			{text: "p50 ≤ 1/40 of Python Pool.apply", of: figure{apply, "p50"}, per: figure{pool, "p50"}, least: 40},
		},
	}
}

func latencyApartRow() row {
	const pool = "Pool of 1, Call"
	const sleeping, backToBack = "sleeping, 1 ms apart", "sleeping, back to back, a CPU each"
	us := strconv.Itoa(int(apart.Microseconds()))
	return row{
		name:  "latency-1ms",
		title: "One call a millisecond",
		about: "As in the row latency, but the caller sleeps for 1 ms before each call, so that both sides are asleep by then. A round times 2,000 calls. " +
			"The kernel places processes as it likes, if not with a CPU each.",
		metrics: percentileMetrics,
		contenders: []contender{
			{pool, ours, poolLatency(apart, apartTimedCalls, quickApartTimedCalls)},
			pingPong(sleeping, apartTimedCalls, quickApartTimedCalls, "sleep", us, "any"),
			pingPong("sleeping, 1 ms apart, a CPU each", apartTimedCalls, quickApartTimedCalls, "sleep", us, "each"),
			pingPong(backToBack, timedCalls, quickTimedCalls, "sleep", "0", "each"),
			{"goroutine and channel", plain, goroutineLatency(apart, apartTimedCalls, quickApartTimedCalls)},
			python("Pool.apply", "latency_pool", apartTimedCalls, quickApartTimedCalls, us),
		},
		goals: []goal{
			{text: "p50 ≤ 2× the raw ping-pong, 1 ms apart as well", of: figure{pool, "p50"}, per: figure{futex + sleeping, "p50"}, most: 2},
			{text: "p50 ≤ 2× the raw ping-pong back to back with a CPU each", of: figure{pool, "p50"}, per: figure{futex + backToBack, "p50"}, most: 2},
		},
	}
}

func latencyLoadedRow() row {
	const processes, goroutines = "Pool of 1, Call; busy processes", "Pool of 1, Call; busy goroutines"
	load := max(1, runtime.NumCPU()-1)
	ourCall, plainCall := poolLatency(0, timedCalls, quickTimedCalls), goroutineLatency(0, timedCalls, quickTimedCalls)
	raw := pingPong("sleeping", timedCalls, quickTimedCalls, "sleep", "0", "any")
	apply := python("", "latency_pool", peerTimedCalls, quickPeerTimedCalls, "0")
	return row{
		name:  "latency-loaded",
		title: "One call at a time while all other cores compute",
		about: fmt.Sprintf("As in the row latency, beside %d busy processes (a Pool of their own) or %[1]d busy goroutines of the caller. "+
			"A round times 20,000 calls (Python 4,000), or as many as 8 s have room for.", load),
		metrics: percentileMetrics,
		contenders: []contender{
			{processes, ours, besideProcesses(load, ourCall)},
			{goroutines, ours, besideGoroutines(load, ourCall)},
			{"goroutine and channel; busy processes", plain, besideProcesses(load, plainCall)},
			{"goroutine and channel; busy goroutines", plain, besideGoroutines(load, plainCall)},
			{raw.name + "; busy processes", limit, besideProcesses(load, raw.measure)},
			{"Python Pool.apply; busy processes", peer, besideProcesses(load, apply.measure)},
		},
		goals: []goal{
			{text: "p99 ≤ 1 ms beside busy processes", of: figure{processes, "p99"}, most: 1e-3},
			{text: "p99 ≤ 1 ms beside busy goroutines", of: figure{goroutines, "p99"}, most: 1e-3},
		},
	}
}

// futex begins the names of the limits of latency.
const futex = "futex between two C processes, "

func pingPong(name string, full, quick int, how, us, cpus string) contender {
	return limitOf(futex+name, "pingpong", full, quick, how, us, cpus)
}

type measure = func(context.Context, *env) (figures, error)

func poolLatency(gap time.Duration, full, quick int) measure {
	return func(ctx context.Context, e *env) (figures, error) {
		return withPool(ctx, multiproc.PoolConfig{Workers: 1}, func(p *multiproc.Pool) (figures, error) {
			return latencies(ctx, e.pick(full, quick), gap, func(i int) error {
				x, err := square.Call(ctx, p, i)
				if err == nil && x != i*i {
					err = fmt.Errorf("the square of %d came out as %d", i, x)
				}
				return err
			})
		})
	}
}

func goroutineLatency(gap time.Duration, full, quick int) measure {
	return func(ctx context.Context, e *env) (figures, error) {
		in, out := make(chan int), make(chan int)
		var wg sync.WaitGroup
		wg.Go(func() {
			for x := range in {
				out <- x * x
			}
		})
		defer wg.Wait()
		defer close(in)
		return latencies(ctx, e.pick(full, quick), gap, func(i int) error {
			in <- i
			if x := <-out; x != i*i {
				return fmt.Errorf("the square of %d came out as %d", i, x)
			}
			return nil
		})
	}
}

// busy computes until nobody wants it to any more.
var busy = multiproc.Register("bench.busy", func(ctx context.Context, _ struct{}) (int, error) {
	n := 0
	for ctx.Err() == nil {
		n = spin(n)
	}
	return n, nil
})

// spin takes some microseconds.
func spin(n int) int {
	for i := range 10_000 {
		n += i ^ n
	}
	return n
}

// warmUp is how long a load runs before it counts as steady.
const warmUp = 50 * time.Millisecond

func besideProcesses(n int, m measure) measure {
	return func(ctx context.Context, e *env) (figures, error) {
		return withPool(ctx, multiproc.PoolConfig{Workers: n}, func(p *multiproc.Pool) (figures, error) {
			loadCtx, stop := context.WithCancel(ctx)
			defer stop() // before the pool is closed
			for range n {
				busy.Go(loadCtx, p, struct{}{})
			}
			time.Sleep(warmUp)
			return m(ctx, e)
		})
	}
}

func besideGoroutines(n int, m measure) measure {
	return func(ctx context.Context, e *env) (figures, error) {
		var stop atomic.Bool
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				for x := 0; !stop.Load(); {
					x = spin(x)
				}
			})
		}
		defer wg.Wait()
		defer stop.Store(true)
		time.Sleep(warmUp)
		return m(ctx, e)
	}
}

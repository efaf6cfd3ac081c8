package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed84f35039/multiproc"
)

// Calls of the row crash, and how many of them come to one that kills its worker.
const (
	fragileCalls, quickFragileCalls = 20_000, 1_000
	oneInSo                         = 100
)

// fragile squares a number; a negative one kills the worker.
var fragile = multiproc.Register("bench.fragile", func(ctx context.Context, x int) (int, error) {
	if x < 0 {
		return 0, die(ctx)
	}
	return x * x, nil
})

// die kills this process.
func die(ctx context.Context) error {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err != nil {
		return err
	}
	<-ctx.Done() // never: the process ends first
	return ctx.Err()
}

func crashRow() row {
	const crashes, none = "Pool of 2, 1 % of the calls kill their worker", "Pool of 2, no call does"
	const possible = "starts of an empty Go program, two at a time"
	on := func(every, spares int) measure {
		return func(ctx context.Context, e *env) (figures, error) {
			return withPool(ctx, multiproc.PoolConfig{Workers: workers, Spares: spares}, func(p *multiproc.Pool) (figures, error) {
				return crashFigures(ctx, p, e.pick(fragileCalls, quickFragileCalls), every)
			})
		}
	}
	return row{
		name:  "crash",
		title: "x→x², where one call in 100 kills its worker",
		about: "Calls and replacements a second are those of a Map of 20,000. How long a call takes, and how much a crash nearby slows it, shows in " +
			"a StreamUnordered of the same: from the moment an input is pulled until its result is there, crashed calls left out. With calls " +
			"this short most of that is waiting for others; how much a call itself is slowed shows in what a function that computes for about " +
			"1 ms measures of itself.",
		metrics: []metric{
			{key: "rate", title: "1,000 calls/s", unit: 1e3},
			{key: "replacements", title: "replacements/s", unit: 1},
			{key: "p99", title: "p99 of innocent calls, ms", unit: 1e-3},
			{key: "runs", title: "p99 of how long 1 ms of work takes, ms", unit: 1e-3},
		},
		contenders: []contender{
			{crashes, ours, on(oneInSo, 0)},
			{crashes + ", 4 spares", ours, on(oneInSo, 4)},
			{none, ours, on(0, 0)},
			{possible, limit, func(ctx context.Context, e *env) (figures, error) {
				return withMany(e.firstByte, e.pick(starts, quickStarts), func(pids []int, took time.Duration) (figures, error) {
					return figures{"replacements": float64(len(pids)) / took.Seconds()}, nil
				})
			}},
			pythonPackage("pebble", "map, chunksize=1", "crash_pebble", 500, 200),
		},
		goals: []goal{
			{
				text: "calls/s with crashes ≥ 50× the replacements/s that are possible",
				of:   figure{crashes, "rate"}, per: figure{possible, "replacements"}, least: 50,
			},
			{text: "1 ms of work beside crashes ≤ 2× that without, p99", of: figure{crashes, "runs"}, per: figure{none, "runs"}, most: 2},
		},
	}
}

// crashFigures makes n calls, of which one in every kills its worker; 0 is none.
func crashFigures(ctx context.Context, p *multiproc.Pool, n, every int) (figures, error) {
	in := ints(n)
	crashes := 0
	for i := range in {
		if every > 0 && i%every == every/2 {
			in[i] = -1
			crashes++
		}
	}
	if _, err := fragile.Map(ctx, p, ints(n)); err != nil { // to warm up
		return nil, err
	}
	began := time.Now()
	out, err := fragile.Map(ctx, p, in, multiproc.CollectErrors())
	took := time.Since(began).Seconds()
	if err := checkCrashes(in, out, err, crashes); err != nil {
		return nil, err
	}
	f := figures{"rate": float64(n) / took}
	if crashes > 0 {
		f["replacements"] = float64(crashes) / took
	}
	innocent, err := innocentCalls(ctx, p, in)
	if err != nil {
		return nil, err
	}
	f["p99"] = innocent["p99"]
	if f["runs"], err = runTime(ctx, p, in[:len(in)/20]); err != nil {
		return nil, err
	}
	return f, nil
}

// runTime returns how long 1 ms of work takes, where a negative number kills the worker instead.
func runTime(ctx context.Context, p *multiproc.Pool, in []int) (float64, error) {
	var took []time.Duration
	for r := range work.StreamUnordered(ctx, p, values(in)) {
		if _, crashed := errors.AsType[*multiproc.CrashError](r.Err); crashed {
			continue
		}
		if r.Err != nil {
			return 0, r.Err
		}
		took = append(took, r.Value)
	}
	return percentiles(took)["p99"], nil
}

// work computes for about 1 ms and returns how long that took.
var work = multiproc.Register("bench.work", func(ctx context.Context, x int) (time.Duration, error) {
	if x < 0 {
		return 0, die(ctx)
	}
	began := time.Now()
	h := uint64(x)
	for range 1_000_000 {
		h = h*6364136223846793005 + 1442695040888963407
	}
	sunk.Store(h)
	return time.Since(began), nil
})

// sunk keeps the compiler from leaving work out.
var sunk atomic.Uint64

// checkCrashes reports whether all calls have their results, but for those that crash.
func checkCrashes(in, out []int, err error, crashes int) error {
	for i, x := range in {
		if x >= 0 && out[i] != x*x {
			return fmt.Errorf("call %d: the square of %d came out as %d: %w", i, x, out[i], err)
		}
	}
	var all []error
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	if len(all) != crashes {
		return fmt.Errorf("%d calls failed, and not %d: %w", len(all), crashes, err)
	}
	for _, err := range all {
		if _, ok := errors.AsType[*multiproc.CrashError](err); !ok {
			return fmt.Errorf("a call did not crash, but failed: %w", err)
		}
	}
	return nil
}

// innocentCalls times each call of a stream that does not kill its worker.
func innocentCalls(ctx context.Context, p *multiproc.Pool, in []int) (figures, error) {
	var mu sync.Mutex // the sequence runs on a goroutine of its own
	pulled := make([]time.Time, 0, len(in))
	inputs := func(yield func(int) bool) {
		for _, x := range in {
			mu.Lock()
			pulled = append(pulled, time.Now())
			mu.Unlock()
			if !yield(x) {
				return
			}
		}
	}
	took := make([]time.Duration, 0, len(in))
	for r := range fragile.StreamUnordered(ctx, p, inputs) {
		_, crashed := errors.AsType[*multiproc.CrashError](r.Err)
		if r.Err != nil && (!crashed || r.Index < 0 || in[r.Index] >= 0) {
			return nil, r.Err
		}
		if crashed {
			continue
		}
		mu.Lock()
		took = append(took, time.Since(pulled[r.Index]))
		mu.Unlock()
	}
	return percentiles(took), nil
}

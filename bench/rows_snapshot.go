package main

import (
	"context"
	"sync"
	"time"

	"github.com/seed84f35039/multiproc"
)

// How often a pool is watched and not watched in a round, and for how long each time.
const (
	watchTurns, quickWatchTurns = 8, 1
	watchTime, quickWatchTime   = 500, 100 // ms
)

func snapshotRow() row {
	const slow, fast = "Pool of 2, Map, a Snapshot every 100 ms", "Pool of 2, Map, a Snapshot every ms"
	return row{
		name:  "snapshot",
		title: "Map of x→x² while somebody watches",
		about: "Maps of 100,000 ints, one after the other. In a round the same pool is watched for half a second and not watched for another, " +
			"8 times each, as one pool is not as fast as the next; the ratio is that of a round.",
		metrics: []metric{
			{key: "alone", title: "M calls/s, not watched", unit: 1e6},
			{key: "watched", title: "M calls/s, watched", unit: 1e6},
		},
		contenders: []contender{
			{slow, ours, watched(100 * time.Millisecond)},
			{fast, ours, watched(time.Millisecond)},
		},
		goals: []goal{
			{text: "a Snapshot every 100 ms costs ≤ 2 %", of: figure{slow, "watched"}, per: figure{slow, "alone"}, least: 0.98},
			{text: "a Snapshot every ms costs ≤ 10 %", of: figure{fast, "watched"}, per: figure{fast, "alone"}, least: 0.9},
		},
	}
}

// watched measures calls a second of a pool of which a Snapshot is taken so often, and of the same
// pool by itself.
func watched(every time.Duration) func(context.Context, *env) (figures, error) {
	return func(ctx context.Context, e *env) (figures, error) {
		in := ints(e.pick(calls/10, quickCalls))
		length := time.Duration(e.pick(watchTime, quickWatchTime)) * time.Millisecond
		return withPool(ctx, multiproc.PoolConfig{Workers: workers}, func(p *multiproc.Pool) (figures, error) {
			if _, err := callsFor(ctx, p, in, length); err != nil { // warms up
				return nil, err
			}
			sums := figures{}
			turns := e.pick(watchTurns, quickWatchTurns)
			for i := range 2 * turns {
				key, stop := "alone", func() {}
				if (i+1)/2%2 == 1 { // alone, watched, watched, alone, …
					key, stop = "watched", watch(p, every)
				}
				rate, err := callsFor(ctx, p, in, length)
				stop()
				if err != nil {
					return nil, err
				}
				sums[key] += rate / float64(turns)
			}
			return sums, nil
		})
	}
}

// callsFor runs Maps for so long, and returns the calls a second.
func callsFor(ctx context.Context, p *multiproc.Pool, in []int, length time.Duration) (float64, error) {
	n, began := 0, time.Now()
	for time.Since(began) < length {
		out, err := square.Map(ctx, p, in)
		if err == nil {
			err = checkSquares(out)
		}
		if err != nil {
			return 0, err
		}
		n += len(in)
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// watch takes Snapshots until stop is called.
func watch(p *multiproc.Pool, every time.Duration) (stop func()) {
	done := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.Snapshot()
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		watcher.Wait()
	}
}

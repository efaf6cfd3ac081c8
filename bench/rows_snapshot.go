package main

import (
	"context"
	"sync"
	"time"

	"github.com/seed84f35039/multiproc"
)

func snapshotRow() row {
	const without, with = "Pool of 2, Map", "Pool of 2, Map, a Snapshot every 100 ms"
	return row{
		name:  "snapshot",
		title: "Map of x→x² while somebody watches",
		about: "Maps of 1 M ints, one after the other, for 2 s, as in the row map. Meanwhile Pool.Snapshot is called so often.",
		metrics: []metric{
			{key: "rate", title: "M calls/s", unit: 1e6},
		},
		contenders: []contender{
			{without, ours, watched(0)},
			{with, ours, watched(100 * time.Millisecond)},
			{"Pool of 2, Map, a Snapshot every ms", ours, watched(time.Millisecond)},
		},
		goals: []goal{
			{text: "a Snapshot every 100 ms costs ≤ 2 %", of: figure{with, "rate"}, per: figure{without, "rate"}, least: 0.98},
		},
	}
}

// watched measures calls a second of a pool of which a Snapshot is taken so often; 0: never.
func watched(every time.Duration) func(context.Context, *env) (figures, error) {
	return func(ctx context.Context, e *env) (figures, error) {
		in := ints(e.pick(calls, quickCalls))
		length := time.Duration(e.pick(2000, 100)) * time.Millisecond
		return withPool(ctx, multiproc.PoolConfig{Workers: workers}, func(p *multiproc.Pool) (figures, error) {
			var watcher sync.WaitGroup
			done := make(chan struct{})
			if every > 0 {
				watcher.Go(func() { watch(p, every, done) })
			}
			defer watcher.Wait()
			defer close(done)
			n, began := -len(in), time.Time{} // the first is for warming up
			for n <= 0 || time.Since(began) < length {
				if n == 0 {
					began = time.Now()
				}
				out, err := square.Map(ctx, p, in)
				if err == nil {
					err = checkSquares(out)
				}
				if err != nil {
					return nil, err
				}
				n += len(in)
			}
			return figures{"rate": float64(n) / time.Since(began).Seconds()}, nil
		})
	}
}

// watch takes Snapshots until done is closed.
func watch(p *multiproc.Pool, every time.Duration, done <-chan struct{}) {
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
}

package main

import (
	"context"
	"fmt"
	"io"
	"iter"
	"sync"

	"github.com/seed84f35039/multiproc"
)

var square = multiproc.Register("bench.square", func(_ context.Context, x int) (int, error) { return x * x, nil })

// How many calls a row makes: a million, or less where a peer is too slow for that.
const (
	calls, quickCalls         = 1_000_000, 50_000
	slowCalls, quickSlowCalls = 50_000, 2_000
)

// workers is how many processes, or goroutines, share the work.
const workers = 2

func mapRow() row {
	const pool, threads, channel = "Pool of 2, Map", "Threads of 2, Map", "2 goroutines, a channel of 128"
	const chunked = "Python Pool.map, default chunks"
	return row{
		name:  "map",
		title: "Map of x→x² over 1 M ints, 2 workers",
		about: "Everything is running and warm. A contender at less than 1 M calls/s may do fewer of them.",
		metrics: []metric{
			{key: "rate", title: "M calls/s", unit: 1e6},
		},
		contenders: []contender{
			{pool, ours, func(ctx context.Context, e *env) (figures, error) {
				return withPool(ctx, multiproc.PoolConfig{Workers: workers}, func(p *multiproc.Pool) (figures, error) { return mapRate(ctx, p, e.pick(calls, quickCalls)) })
			}},
			{threads, ours, func(ctx context.Context, e *env) (figures, error) {
				return withThreads(func(t *multiproc.Threads) (figures, error) { return mapRate(ctx, t, e.pick(calls, quickCalls)) })
			}},
			{channel, plain, channelRate},
			{"2 goroutines, a channel of 128 for inputs and one for results", plain, channelsRate},
			{"2 goroutines, half of the ints each", plain, func(ctx context.Context, e *env) (figures, error) {
				in := ints(e.pick(calls, quickCalls))
				return rate(ctx, len(in), func() error { return checkSquares(splitSquares(in)) })
			}},
			python("Pool.map, default chunks", "map_pool", calls, quickCalls),
			python("Pool.map, chunksize=1", "map_pool_1", slowCalls, quickSlowCalls),
			python("ProcessPoolExecutor.map, chunksize=100", "map_executor", calls/4, quickSlowCalls),
			pythonPackage("mpire", "map", "map_mpire", calls/4, quickSlowCalls),
			pythonPackage("loky", "map, chunksize=100", "map_loky", calls/4, quickSlowCalls),
			pythonPackage("pebble", "map, chunksize=1000", "map_pebble", calls, quickCalls),
			goPlugin("netrpc", "16 calls under way a worker", "rate", slowCalls, quickSlowCalls),
			goPlugin("grpc", "16 calls under way a worker", "rate", slowCalls, quickSlowCalls),
		},
		goals: []goal{
			{text: "Pool ≥ 2× a goroutine pool over a channel of 128", of: figure{pool, "rate"}, per: figure{channel, "rate"}, least: 2},
			{text: "Pool ≥ 2× Python Pool.map with default chunks", of: figure{pool, "rate"}, per: figure{chunked, "rate"}, least: 2},
		},
	}
}

func streamRow() row {
	const pool, channel = "Pool of 2, Stream", "2 goroutines, a channel of 128"
	streamOn := func(stream func(context.Context, multiproc.Executor, []int) error) func(context.Context, *env) (figures, error) {
		return func(ctx context.Context, e *env) (figures, error) {
			in := ints(e.pick(calls, quickCalls))
			return withPool(ctx, multiproc.PoolConfig{Workers: workers}, func(p *multiproc.Pool) (figures, error) {
				return rate(ctx, len(in), func() error { return stream(ctx, p, in) })
			})
		}
	}
	return row{
		name:  "stream",
		title: "Stream of x→x² over 1 M ints, 2 workers",
		about: "As in the row map, but inputs come from a sequence, and results are taken one by one.",
		metrics: []metric{
			{key: "rate", title: "M calls/s", unit: 1e6},
		},
		contenders: []contender{
			{pool, ours, streamOn(streamSquares)},
			{"Pool of 2, StreamUnordered", ours, streamOn(streamSquaresUnordered)},
			{"Threads of 2, Stream", ours, func(ctx context.Context, e *env) (figures, error) {
				in := ints(e.pick(calls, quickCalls))
				return withThreads(func(t *multiproc.Threads) (figures, error) {
					return rate(ctx, len(in), func() error { return streamSquares(ctx, t, in) })
				})
			}},
			{channel, plain, channelRate},
			{"2 goroutines, a channel of 128 for inputs and one for results", plain, channelsRate},
			python("Pool.imap, chunksize=100", "stream_imap", calls/2, quickCalls, "100"),
			python("Pool.imap_unordered, chunksize=100", "stream_imap_unordered", calls/2, quickCalls, "100"),
			python("Pool.imap_unordered, chunksize=1", "stream_imap_unordered", slowCalls, quickSlowCalls, "1"),
		},
		goals: []goal{
			{text: "Stream ≥ 1× a goroutine pool over a channel of 128", of: figure{pool, "rate"}, per: figure{channel, "rate"}, least: 1},
		},
	}
}

// withPool runs fn with a pool whose workers are running, and what they print dropped.
func withPool(ctx context.Context, cfg multiproc.PoolConfig, fn func(*multiproc.Pool) (figures, error)) (figures, error) {
	cfg.Stdout, cfg.Stderr = io.Discard, io.Discard
	pool := multiproc.NewPool(cfg)
	defer pool.Close()
	if err := pool.Start(ctx); err != nil {
		return nil, err
	}
	return fn(pool)
}

func withThreads(fn func(*multiproc.Threads) (figures, error)) (figures, error) {
	threads := multiproc.NewThreads(multiproc.ThreadsConfig{Workers: workers})
	defer threads.Close()
	return fn(threads)
}

func mapRate(ctx context.Context, ex multiproc.Executor, n int) (figures, error) {
	in := ints(n)
	return rate(ctx, n, func() error {
		out, err := square.Map(ctx, ex, in)
		if err != nil {
			return err
		}
		return checkSquares(out)
	})
}

func ints(n int) []int {
	in := make([]int, n)
	for i := range in {
		in[i] = i
	}
	return in
}

// values is the sequence of the elements of in, with no more to each than a program has to do.
func values(in []int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for _, x := range in {
			if !yield(x) {
				return
			}
		}
	}
}

// checkSquares looks at some of the results, so few that it costs nothing.
func checkSquares(out []int) error {
	step := max(1, len(out)/100)
	for i := 0; i < len(out); i += step {
		if out[i] != i*i {
			return fmt.Errorf("the square of %d came out as %d", i, out[i])
		}
	}
	return nil
}

func streamSquares(ctx context.Context, ex multiproc.Executor, in []int) error {
	i := 0
	for x, err := range square.Stream(ctx, ex, values(in)) {
		if err != nil {
			return err
		}
		if x != i*i {
			return fmt.Errorf("the square of %d came out as %d", i, x)
		}
		i++
	}
	if i != len(in) {
		return fmt.Errorf("%d inputs gave %d results", len(in), i)
	}
	return nil
}

func streamSquaresUnordered(ctx context.Context, ex multiproc.Executor, in []int) error {
	n := 0
	for r := range square.StreamUnordered(ctx, ex, values(in)) {
		if r.Err != nil {
			return r.Err
		}
		if r.Value != r.Index*r.Index {
			return fmt.Errorf("the square of %d came out as %d", r.Index, r.Value)
		}
		n++
	}
	if n != len(in) {
		return fmt.Errorf("%d inputs gave %d results", len(in), n)
	}
	return nil
}

// channelRate is what a program in Go does without a library: goroutines that take work from a
// buffered channel.
func channelRate(ctx context.Context, e *env) (figures, error) {
	in := ints(e.pick(calls, quickCalls))
	return rate(ctx, len(in), func() error {
		out := make([]int, len(in))
		work := make(chan int, 128)
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for i := range work {
					out[i] = in[i] * in[i]
				}
			})
		}
		for i := range in {
			work <- i
		}
		close(work)
		wg.Wait()
		return checkSquares(out)
	})
}

// channelsRate is channelRate where results come back by a channel too, as they must where
// they are wanted one by one.
func channelsRate(ctx context.Context, e *env) (figures, error) {
	in := ints(e.pick(calls, quickCalls))
	type result struct{ i, x int }
	return rate(ctx, len(in), func() error {
		out := make([]int, len(in))
		work, results := make(chan int, 128), make(chan result, 128)
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for i := range work {
					results <- result{i, in[i] * in[i]}
				}
			})
		}
		go func() { // ends with the inputs; the loop below waits for what it closes
			for i := range in {
				work <- i
			}
			close(work)
			wg.Wait()
			close(results)
		}()
		for r := range results {
			out[r.i] = r.x
		}
		return checkSquares(out)
	})
}

// splitSquares is what is possible without handing anything over.
func splitSquares(in []int) []int {
	out := make([]int, len(in))
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w * len(in) / workers; i < (w+1)*len(in)/workers; i++ {
				out[i] = in[i] * in[i]
			}
		})
	}
	wg.Wait()
	return out
}

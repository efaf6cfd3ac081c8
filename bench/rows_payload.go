package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/shared"
)

// payload is how many bytes go to a worker and come back.
const payload, quickPayload = 100_000_000, 4_000_000

// page is how far apart the bytes are that both sides look at, so that none gets away with a page that
// was never brought in.
const page = 4096

// echo and echoFloats give back what they got, once they have seen every page of it.
var (
	echo = multiproc.Register("bench.echo", func(_ context.Context, b []byte) ([]byte, error) {
		if touch(b, page) == 0 {
			return nil, errors.New("the bytes did not arrive")
		}
		return b, nil
	})
	echoFloats = multiproc.Register("bench.echoFloats", func(_ context.Context, x []float64) ([]float64, error) {
		if touch(x, page/8) == 0 {
			return nil, errors.New("the numbers did not arrive")
		}
		return x, nil
	})
)

// touch adds up the elements that are step apart.
func touch[T byte | float64](xs []T, step int) float64 {
	sum := 0.0
	for i := 0; i < len(xs); i += step {
		sum += float64(xs[i])
	}
	return sum
}

func payloadRow() row {
	const pool, floats = "Pool of 1, 100 MB []byte", "Pool of 1, 12.5 M float64"
	const copies, apply = "four copies through warm shared memory, two C processes", "Python Pool.apply, bytes"
	return row{
		name:  "payload",
		title: "100 MB to a worker and back",
		about: "A function returns its argument, and both sides look at a byte of each page. A round takes the median of 5 calls after 6 to warm up: until a heap of this size has been collected once, pages are touched for the first time.",
		metrics: []metric{
			{key: "seconds", title: "ms", unit: 1e-3},
		},
		contenders: []contender{
			{pool, ours, func(ctx context.Context, e *env) (figures, error) {
				in := make([]byte, e.pick(payload, quickPayload))
				for i := range in {
					in[i] = byte(i) | 1
				}
				return echoSeconds(ctx, echo, in, page)
			}},
			{floats, ours, func(ctx context.Context, e *env) (figures, error) {
				in := make([]float64, e.pick(payload, quickPayload)/8)
				for i := range in {
					in[i] = float64(i + 1)
				}
				return echoSeconds(ctx, echoFloats, in, page/8)
			}},
			limitOf(copies, "copies", payload, quickPayload),
			limitOf("one copy of warm memory, C", "memcpy", payload, quickPayload),
			python("Pool.apply, bytes", "payload_pool", payload, quickPayload, "bytes"),
			python("Pool.apply, array of 12.5 M doubles", "payload_pool", payload, quickPayload, "array"),
			python("ProcessPoolExecutor.submit, bytes", "payload_executor", payload, quickPayload),
			goPlugin("netrpc", "[]byte", "payload", payload, quickPayload),
			goPlugin("grpc", "bytes", "payload", payload, quickPayload),
		},
		goals: []goal{
			{text: "[]byte ≤ 1.5× four warm copies through shared memory", of: figure{pool, "seconds"}, per: figure{copies, "seconds"}, most: 1.5},
			{text: "[]byte ≤ 1/5 of Python Pool.apply", of: figure{apply, "seconds"}, per: figure{pool, "seconds"}, least: 5},
		},
	}
}

func echoSeconds[T byte | float64](ctx context.Context, f *multiproc.Func[[]T, []T], in []T, step int) (figures, error) {
	want := touch(in, step)
	return withPool(ctx, multiproc.PoolConfig{Workers: 1}, func(p *multiproc.Pool) (figures, error) {
		echo := func() error {
			out, err := f.Call(ctx, p, in)
			if err != nil {
				return err
			}
			if got := touch(out, step); len(out) != len(in) || got != want {
				return fmt.Errorf("%d elements came back as %d, with the sum %v instead of %v", len(in), len(out), got, want)
			}
			return nil
		}
		for range 5 {
			if err := echo(); err != nil {
				return nil, err
			}
		}
		return seconds(ctx, 5, nothing, echo)
	})
}

// handover is the size of the memory that changes hands without being copied.
const handover, quickHandover = 1 << 30, 16 << 20

// handovers is how often it does in a round.
const handovers = 1000

// firstWord returns the first word of memory.
var firstWord = multiproc.Register("bench.firstWord", func(_ context.Context, m shared.Memory) (uint64, error) {
	return shared.View[uint64](m)[0], nil
})

func zeroCopyRow() row {
	const memory, raw = "shared.Memory as an argument", "memfd between two C processes: SCM_RIGHTS, mmap, first word, answer"
	return row{
		name:    "zero-copy",
		title:   "1 GiB handed over without a copy",
		about:   "Memory that is filled already goes to a worker, which answers with its first word. The size does not matter, as nothing is copied.",
		metrics: percentileMetrics,
		contenders: []contender{
			{memory, ours, func(ctx context.Context, e *env) (figures, error) {
				m, err := shared.NewMemory(e.pick(handover, quickHandover))
				if err != nil {
					return nil, err
				}
				defer m.Close()
				words := shared.View[uint64](m)
				for i := range words {
					words[i] = uint64(i) + 1
				}
				return withPool(ctx, multiproc.PoolConfig{Workers: 1}, func(p *multiproc.Pool) (figures, error) {
					return latencies(ctx, handovers, 0, func(i int) error {
						words[0] = uint64(i)
						got, err := firstWord.Call(ctx, p, m)
						if err == nil && got != uint64(i) {
							err = fmt.Errorf("the first word is %d, not %d", got, i)
						}
						return err
					})
				})
			}},
			limitOf(raw, "handover", handover, quickHandover, strconv.Itoa(handovers)),
		},
		goals: []goal{
			{text: "p50 ≤ 100 µs", of: figure{memory, "p50"}, most: 100e-6},
		},
	}
}

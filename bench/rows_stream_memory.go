package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/seed84f35039/multiproc"
)

// Inputs of the row stream-memory. Python gets fewer.
const longStream, quickLongStream = 10_000_000, 200_000

// The slow consumer takes a hundredth of the results at a time, and then a break.
const breaks = 100

// breakTime is in milliseconds.
const breakTime, quickBreakTime = 50, 1

func streamMemoryRow() row {
	const stream = "Pool of 2, Stream of 10 M inputs"
	return row{
		name:  "stream-memory",
		title: "Memory of the parent in a long stream with a slow consumer",
		about: "The consumer takes a hundredth of the results, rests for 50 ms, and so on. The memory is the RSS of a parent that does nothing " +
			"else, looked at in each break; it grows from what it is after a tenth of the inputs to the most it is later. Python has fewer inputs, " +
			"or it would take minutes.",
		metrics: []metric{
			{key: "growth", title: "growth after 10 %, MiB", unit: mib, signed: true},
			{key: "tenth", title: "after 10 %, MiB", unit: mib},
			{key: "end", title: "at the end, MiB", unit: mib},
			{key: "seconds", title: "took, s", unit: 1},
		},
		contenders: []contender{
			{stream, ours, func(ctx context.Context, e *env) (figures, error) {
				return ownRole(ctx, "stream-memory", e.pick(longStream, quickLongStream), e.pick(breakTime, quickBreakTime))
			}},
			pythonStreamMemory("Pool.imap of 100,000 inputs", 100_000, 1),
			pythonStreamMemory("Pool.imap of 1 M inputs, chunksize=100", 1_000_000, 100),
		},
		goals: []goal{
			{text: "flat: grows by ≤ 5 MiB", of: figure{stream, "growth"}, most: 5 * mib},
		},
	}
}

func pythonStreamMemory(name string, n, chunk int) contender {
	return contender{"Python " + name, peer, func(ctx context.Context, e *env) (figures, error) {
		return e.python.figures(ctx, "stream_memory", strconv.Itoa(e.pick(n, n/100)),
			strconv.Itoa(chunk), strconv.Itoa(e.pick(breakTime, quickBreakTime)))
	}}
}

// streamMemory is what a process of its own does for the row stream-memory: its memory is not that of
// rows before.
func streamMemory(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	rest, err := time.ParseDuration(args[1] + "ms")
	if err != nil {
		return err
	}
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: workers})
	defer pool.Close()
	in := func(yield func(int) bool) {
		for i := 0; i < n && yield(i); i++ {
		}
	}
	began := time.Now()
	taken, tenth, most, end := 0, 0, 0, 0
	for x, err := range square.Stream(context.Background(), pool, in) {
		if err == nil && x != taken*taken {
			err = fmt.Errorf("the square of %d came out as %d", taken, x)
		}
		if err != nil {
			return err
		}
		if taken++; taken%(n/breaks) != 0 {
			continue
		}
		time.Sleep(rest)
		if end, err = memoryOf("/proc/self/status", "VmRSS"); err != nil {
			return err
		}
		if taken >= n/10 && tenth == 0 {
			tenth = end
		}
		if tenth > 0 {
			most = max(most, end)
		}
	}
	if taken != n {
		return fmt.Errorf("%d inputs gave %d results", n, taken)
	}
	return json.NewEncoder(os.Stdout).Encode(figures{
		"growth": float64(most - tenth), "tenth": float64(tenth), "end": float64(end), "seconds": time.Since(began).Seconds(),
	})
}

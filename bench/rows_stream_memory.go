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

// Inputs of the row stream-memory. Python's take 100 times as long.
const (
	longStream, quickLongStream     = 10_000_000, 200_000
	pythonStream, quickPythonStream = 100_000, 4_000
)

// The slow consumer takes a hundredth of the results at a time, and then a break.
const breaks = 100

// breakTime is in milliseconds.
const breakTime, quickBreakTime = 50, 1

func streamMemoryRow() row {
	const stream = "Pool of 2, Stream of 10 M inputs"
	return row{
		name:  "stream-memory",
		title: "Memory of the parent in a long stream with a slow consumer",
		about: "The consumer takes a hundredth of the results, rests for 50 ms, and so on. RSS of a parent that does nothing else. " +
			"Python has 100,000 inputs only, as it would take 100 times as long.",
		metrics: []metric{
			{key: "growth", title: "growth from 10 % to the end, MiB", unit: mib, signed: true},
			{key: "end", title: "at the end, MiB", unit: mib},
			{key: "seconds", title: "took, s", unit: 1},
		},
		contenders: []contender{
			{stream, ours, func(ctx context.Context, e *env) (figures, error) {
				return ownRole(ctx, "stream-memory", e.pick(longStream, quickLongStream), e.pick(breakTime, quickBreakTime))
			}},
			pythonStreamMemory("Pool.imap, 100,000 inputs", 1),
			pythonStreamMemory("Pool.imap, chunksize=100, 100,000 inputs", 100),
		},
		goals: []goal{
			{text: "flat: grows by ≤ 5 MiB", of: figure{stream, "growth"}, most: 5 * mib},
		},
	}
}

func pythonStreamMemory(name string, chunk int) contender {
	return contender{"Python " + name, peer, func(ctx context.Context, e *env) (figures, error) {
		return e.python.figures(ctx, "stream_memory", strconv.Itoa(e.pick(pythonStream, quickPythonStream)),
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
	taken, tenth := 0, 0
	for x, err := range square.Stream(context.Background(), pool, in) {
		if err == nil && x != taken*taken {
			err = fmt.Errorf("the square of %d came out as %d", taken, x)
		}
		if err != nil {
			return err
		}
		if taken++; taken == n/10 {
			if tenth, err = memoryOf("/proc/self/status", "VmRSS"); err != nil {
				return err
			}
		}
		if taken%(n/breaks) == 0 {
			time.Sleep(rest)
		}
	}
	end, err := memoryOf("/proc/self/status", "VmRSS")
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(figures{
		"growth": float64(end - tenth), "end": float64(end), "seconds": time.Since(began).Seconds(),
	})
}

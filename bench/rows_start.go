package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/seed84f35039/multiproc/internal/child"
)

// Processes started one after the other in a round.
const (
	starts, quickStarts         = 200, 20
	slowStarts, quickSlowStarts = 20, 2
)

func startRow() row {
	const start, empty = "Func.Start, to its Result", "empty Go program, started by C, to its first byte"
	const emptyByGo = "empty Go program, started by internal/child, to its first byte"
	return row{
		name:  "start",
		title: "A process for one call, cold",
		about: "From the start of a process to its first result, one at a time. Ours is a small program, bench/small; Result returns " +
			"before the process has ended, Wait afterwards. An empty program writes one byte.",
		metrics: []metric{{key: "p50", title: "p50, ms", unit: 1e-3}, {key: "p99", title: "p99, ms", unit: 1e-3}},
		contenders: []contender{
			small(start, "result", starts, quickStarts),
			small("Func.Start, to the end of the process", "wait", starts, quickStarts),
			small("Pool of 1, NewPool to its first result", "pool", starts, quickStarts),
			startLimit(empty, func(e *env) tool { return e.firstByte }),
			startLimit("static C program, started by C, to its first byte", func(e *env) tool { return e.cChild }),
			{emptyByGo, limit, func(ctx context.Context, e *env) (figures, error) {
				return firstBytes(ctx, e.pick(starts, quickStarts), e.firstByte)
			}},
			{"empty Go program, started by internal/child, to its end", limit, func(ctx context.Context, e *env) (figures, error) {
				return latencies(ctx, e.pick(starts, quickStarts), 0, func(int) error {
					_, err := e.empty.output(ctx, "")
					return err
				})
			}},
			python("Process, fork", "start", starts, quickStarts, "fork"),
			python("Process, forkserver", "start", slowStarts, quickSlowStarts, "forkserver"),
			python("Process, spawn", "start", slowStarts, quickSlowStarts, "spawn"),
		},
		goals: []goal{
			{text: "p50 ≤ 1.25× an empty Go program, both started by Go", of: figure{start, "p50"}, per: figure{emptyByGo, "p50"}, most: 1.25},
			{text: "p50 ≤ 1.25× an empty Go program started by C", of: figure{start, "p50"}, per: figure{empty, "p50"}, most: 1.25},
		},
	}
}

func startSpareRow() row {
	const spare = "Func.Start with a warm spare"
	return row{
		name:    "start-spare",
		title:   "A process for one call, with a warm spare",
		about:   "As the first of the row start, when a process stands ready.",
		metrics: percentileMetrics,
		contenders: []contender{
			small(spare, "spare", starts, quickStarts),
			pingPong("sleeping, 1 ms apart, a CPU each", apartTimedCalls, quickApartTimedCalls, "sleep", strconv.Itoa(int(apart.Microseconds())), "each"),
		},
		goals: []goal{
			{text: "p50 ≤ 100 µs", of: figure{spare, "p50"}, most: 100e-6},
		},
	}
}

func startLimit(name string, of func(*env) tool) contender {
	return contender{name, limit, func(ctx context.Context, e *env) (figures, error) {
		path, err := of(e).path()
		if err != nil {
			return nil, err
		}
		return e.limits.figures(ctx, "start", fmt.Sprint(e.pick(starts, quickStarts)), path)
	}}
}

// firstBytes times starts of a program to the first byte that it writes.
func firstBytes(ctx context.Context, n int, t tool) (figures, error) {
	took := make([]time.Duration, 0, n)
	for range n {
		began := time.Now()
		p, err := startProgram(t, nil)
		took = append(took, time.Since(began))
		if err != nil {
			return nil, err
		}
		p.Reap()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return percentiles(took), nil
}

// byteTimeout bounds how long a program may take to write its first byte.
const byteTimeout = 20 * time.Second

// startProgram starts a program and returns when it has written its first byte.
func startProgram(t tool, stdin io.Reader) (*child.Child, error) {
	path, err := t.path()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	p, err := child.Start(child.Config{Path: path, Env: os.Environ(), Stdin: stdin, Stdout: w})
	w.Close()
	if err != nil {
		return nil, err
	}
	r.SetReadDeadline(time.Now().Add(byteTimeout))
	if _, err := r.Read(make([]byte, 1)); err != nil {
		p.Reap()
		return nil, fmt.Errorf("%s: first byte: %w", path, err)
	}
	return p, nil
}

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/child"
)

// Processes started one after the other in a round.
const (
	starts, quickStarts         = 200, 20
	slowStarts, quickSlowStarts = 20, 2
)

func startRow() row {
	const start, empty = "Func.Start, to its Result", "empty Go program, started by C, to its first byte"
	return row{
		name:  "start",
		title: "A process for one call, cold",
		about: "From the start of a process to its first result, one at a time. Ours is this benchmark's own program; Wait returns when the " +
			"process has ended, Result before. An empty program writes one byte.",
		metrics: []metric{{key: "p50", title: "p50, ms", unit: 1e-3}, {key: "p99", title: "p99, ms", unit: 1e-3}},
		contenders: []contender{
			{start, ours, func(ctx context.Context, e *env) (figures, error) {
				return results(ctx, e.pick(starts, quickStarts), multiproc.ProcessConfig{})
			}},
			{"Func.Start, to the end of the process", ours, func(ctx context.Context, e *env) (figures, error) {
				return latencies(ctx, e.pick(starts, quickStarts), 0, func(i int) error {
					p, err := square.Start(ctx, i, multiproc.ProcessConfig{})
					if err != nil {
						return err
					}
					x, err := p.Wait(ctx)
					return check(i, x, err)
				})
			}},
			{"Pool of 1, NewPool to its first result", ours, func(ctx context.Context, e *env) (figures, error) {
				return poolStarts(ctx, e.pick(starts, quickStarts))
			}},
			startLimit(empty, func(e *env) tool { return e.firstByte }),
			startLimit("static C program, started by C, to its first byte", func(e *env) tool { return e.cChild }),
			{"empty Go program, started by internal/child, to its first byte", limit, func(ctx context.Context, e *env) (figures, error) {
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
			{text: "p50 ≤ 1.25× an empty Go program", of: figure{start, "p50"}, per: figure{empty, "p50"}, most: 1.25},
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
			{spare, ours, func(ctx context.Context, e *env) (figures, error) {
				spares := multiproc.NewSpares(1, multiproc.ProcessConfig{})
				defer spares.Close()
				return results(ctx, e.pick(starts, quickStarts), multiproc.ProcessConfig{Spares: spares})
			}},
			pingPong("sleeping, 1 ms apart, a CPU each", apartTimedCalls, quickApartTimedCalls, "sleep", strconv.Itoa(int(apart.Microseconds())), "each"),
		},
		goals: []goal{
			{text: "p50 ≤ 100 µs", of: figure{spare, "p50"}, most: 100e-6},
		},
	}
}

// results times Func.Start to the result of the call. The end of the process, and that a
// spare is ready again, are waited for off the clock.
func results(ctx context.Context, n int, cfg multiproc.ProcessConfig) (figures, error) {
	took := make([]time.Duration, 0, n)
	for i := range n {
		if cfg.Spares != nil {
			if err := cfg.Spares.Start(ctx); err != nil {
				return nil, err
			}
		}
		began := time.Now()
		p, err := square.Start(ctx, i, cfg)
		if err != nil {
			return nil, err
		}
		x, err := p.Result(ctx)
		took = append(took, time.Since(began))
		if err := check(i, x, err); err != nil {
			return nil, err
		}
		if _, err := p.Wait(ctx); err != nil {
			return nil, err
		}
	}
	return percentiles(took), nil
}

// check returns what is wrong with the answer to a call of square.
func check(i, x int, err error) error {
	if err == nil && x != i*i {
		err = fmt.Errorf("the square of %d came out as %d", i, x)
	}
	return err
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

// poolStarts times new pools to their first result, and closes them off the clock.
func poolStarts(ctx context.Context, n int) (figures, error) {
	took := make([]time.Duration, 0, n)
	for i := range n {
		began := time.Now()
		pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
		_, err := square.Call(ctx, pool, i)
		took = append(took, time.Since(began))
		pool.Close()
		if err != nil {
			return nil, err
		}
	}
	return percentiles(took), nil
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

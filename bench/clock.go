package main

import (
	"context"
	"slices"
	"time"
)

// callsTime bounds how long latencies measures: a contender that is slow makes fewer calls.
const callsTime = 8 * time.Second

// latencies makes n calls one after the other, gap apart, and returns how long the middle one took
// and one in a hundred. A tenth more come before, to warm up.
func latencies(ctx context.Context, n int, gap time.Duration, call func(i int) error) (figures, error) {
	warm := n/10 + 1
	took := make([]time.Duration, 0, n)
	end := time.Now().Add(callsTime)
	for i := range warm + n {
		if gap > 0 {
			time.Sleep(gap)
		}
		began := time.Now()
		if err := call(i); err != nil {
			return nil, err
		}
		now := time.Now()
		if i >= warm {
			took = append(took, now.Sub(began))
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if now.After(end) && len(took) > 0 {
			break
		}
	}
	return percentiles(took), nil
}

// percentiles returns the 50th and the 99th.
func percentiles(took []time.Duration) figures {
	slices.Sort(took)
	return figures{"p50": percentile(took, 0.50).Seconds(), "p99": percentile(took, 0.99).Seconds()}
}

// rate does a job of n calls once to warm up, then a few times, and returns the calls a second.
func rate(ctx context.Context, n int, job func() error) (figures, error) {
	const times = 3
	var began time.Time
	for i := range 1 + times {
		if i == 1 {
			began = time.Now()
		}
		if err := job(); err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return figures{"rate": float64(times*n) / time.Since(began).Seconds()}, nil
}

// seconds does a job once to warm up, then several times, and returns the time of the middle one. Before each
// prepare is called, off the clock.
func seconds(ctx context.Context, times int, prepare, job func() error) (figures, error) {
	took := make([]float64, 0, times)
	for i := range 1 + times {
		if err := prepare(); err != nil {
			return nil, err
		}
		began := time.Now()
		if err := job(); err != nil {
			return nil, err
		}
		if i > 0 {
			took = append(took, time.Since(began).Seconds())
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	s, _ := spreadOf(took)
	return figures{"seconds": s.median}, nil
}

func nothing() error { return nil }

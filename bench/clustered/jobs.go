package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/seed84f35039/multiproc"
)

type figures map[string]float64

// measure does a job. It is warm by then, as each job does some of it first.
func measure(ctx context.Context, ex multiproc.Executor, what string, n, batch int) (figures, error) {
	var mapping []multiproc.MapOption
	var streaming []multiproc.StreamOption
	if batch > 0 {
		mapping, streaming = append(mapping, multiproc.WithBatch(batch)), append(streaming, multiproc.WithBatch(batch))
	}
	switch what {
	case "call":
		return call(ctx, ex, n)
	case "map":
		return squares(n, func(in []int) error {
			out, err := square.Map(ctx, ex, in, mapping...)
			if err != nil {
				return err
			}
			for i := 0; i < n; i += max(1, n/100) {
				if out[i] != i*i {
					return fmt.Errorf("the square of %d came out as %d", i, out[i])
				}
			}
			return nil
		})
	case "unordered":
		return squares(n, func(in []int) error {
			came := 0
			for r := range square.StreamUnordered(ctx, ex, slices.Values(in), streaming...) {
				if r.Err != nil {
					return r.Err
				}
				if r.Value != r.Index*r.Index {
					return fmt.Errorf("the square of %d came out as %d", r.Index, r.Value)
				}
				came++
			}
			if came != n {
				return fmt.Errorf("%d inputs gave %d results", n, came)
			}
			return nil
		})
	case "length":
		return payload(n, 1, func(in []byte) error {
			got, err := length.Call(ctx, ex, in)
			if err == nil && got != len(in) {
				err = fmt.Errorf("%d bytes arrived as %d", len(in), got)
			}
			return err
		})
	case "echo":
		return payload(n, 2, func(in []byte) error {
			out, err := echo.Call(ctx, ex, in)
			if err == nil && !bytes.Equal(out, in) {
				err = fmt.Errorf("%d bytes came back as %d others", len(in), len(out))
			}
			return err
		})
	}
	return nil, fmt.Errorf("%q is no job", what)
}

// argument is how many bytes a single call has.
const argument = 100

// callsTime bounds how long call measures, as in the benchmark.
const callsTime = 8 * time.Second

func call(ctx context.Context, ex multiproc.Executor, n int) (figures, error) {
	in := make([]byte, argument)
	warm := n/10 + 1
	took := make([]time.Duration, 0, n)
	end := time.Now().Add(callsTime)
	for i := range warm + n {
		in[0], in[1] = byte(i), byte(i>>8)
		began := time.Now()
		out, err := echo.Call(ctx, ex, in)
		if err != nil {
			return nil, err
		}
		now := time.Now()
		if !bytes.Equal(in, out) {
			return nil, fmt.Errorf("call %d: another result came back", i)
		}
		if i >= warm {
			took = append(took, now.Sub(began))
		}
		if now.After(end) && len(took) > 0 {
			break
		}
	}
	slices.Sort(took)
	return figures{"p50": took[len(took)/2].Seconds(), "p99": took[len(took)*99/100].Seconds()}, nil
}

func squares(n int, job func(in []int) error) (figures, error) {
	const times = 3
	in := make([]int, n)
	for i := range in {
		in[i] = i
	}
	var began time.Time
	for i := range 1 + times {
		if i == 1 {
			began = time.Now()
		}
		if err := job(in); err != nil {
			return nil, err
		}
	}
	return figures{"rate": float64(times*n) / time.Since(began).Seconds()}, nil
}

// payload returns how many bytes a second get to the other side, or there and back.
func payload(size, ways int, job func(in []byte) error) (figures, error) {
	in := make([]byte, size)
	rand.Read(in)
	var took []time.Duration
	for i := range 4 {
		began := time.Now()
		if err := job(in); err != nil {
			return nil, err
		}
		if i > 0 {
			took = append(took, time.Since(began))
		}
	}
	slices.Sort(took)
	return figures{"rate": float64(size*ways) / took[len(took)/2].Seconds()}, nil
}

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/child"
)

// numbers is how many each of two jobs appends.
const numbers, quickNumbers = 10_000_000, 100_000

// listAppend is the tutorial's job. The list stays where it was made, and its length comes back.
var listAppend = multiproc.Register("bench.listAppend", func(_ context.Context, n int) (int, error) { return appendNumbers(n), nil })

func appendNumbers(n int) int {
	var list []float64
	for range n {
		list = append(list, rand.Float64())
	}
	return len(list)
}

// listAppendByHand is the job as a role.
func listAppendByHand(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err == nil && appendNumbers(n) != n {
		err = fmt.Errorf("the list does not have %d numbers", n)
	}
	return err
}

func listAppendRow() row {
	const pool, goroutines, byHand = "Pool of 2, Map", "2 goroutines", "2 processes, started by hand"
	return row{
		name:  "list-append",
		title: "Two jobs that each append 10 M random numbers to a list",
		about: "Pool and goroutines are warm; processes started by hand run this program anew, without multiproc. What is faster than one after the " +
			"other is the speed-up.",
		metrics: []metric{
			{key: "seconds", title: "s", unit: 1},
		},
		contenders: []contender{
			{pool, ours, func(ctx context.Context, e *env) (figures, error) {
				return withPool(ctx, multiproc.PoolConfig{Workers: workers}, func(p *multiproc.Pool) (figures, error) {
					n := e.pick(numbers, quickNumbers)
					return seconds(ctx, 1, nothing, func() error {
						_, err := listAppend.Map(ctx, p, []int{n, n})
						return err
					})
				})
			}},
			{goroutines, plain, func(ctx context.Context, e *env) (figures, error) {
				return seconds(ctx, 1, nothing, func() error {
					var wg sync.WaitGroup
					for range workers {
						wg.Go(func() { appendNumbers(e.pick(numbers, quickNumbers)) })
					}
					wg.Wait()
					return nil
				})
			}},
			{byHand, plain, func(ctx context.Context, e *env) (figures, error) {
				return seconds(ctx, 1, nothing, func() error { return twoProcesses(ctx, e.pick(numbers, quickNumbers)) })
			}},
			{"one after the other", plain, func(ctx context.Context, e *env) (figures, error) {
				return seconds(ctx, 1, nothing, func() error {
					for range workers {
						appendNumbers(e.pick(numbers, quickNumbers))
					}
					return nil
				})
			}},
			python("Pool of 2, map", "list_pool", numbers, quickNumbers),
		},
		goals: []goal{
			{text: "speed-up ≥ 0.97× that of goroutines", of: figure{goroutines, "seconds"}, per: figure{pool, "seconds"}, least: 0.97},
			{text: "speed-up ≥ 0.97× that of processes started by hand", of: figure{byHand, "seconds"}, per: figure{pool, "seconds"}, least: 0.97},
		},
	}
}

// twoProcesses runs the role list-append twice, side by side.
func twoProcesses(ctx context.Context, n int) error {
	self, err := child.Self()
	if err != nil {
		return err
	}
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { _, errs[i] = tool{argv: []string{self}}.output(ctx, "", "list-append", strconv.Itoa(n)) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

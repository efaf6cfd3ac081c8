package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/child"
)

const mib = 1 << 20

// pid answers with the worker that it runs in, slowly enough for each worker to get a call.
var pid = multiproc.Register("bench.pid", func(context.Context, struct{}) (int, error) {
	time.Sleep(time.Millisecond)
	return os.Getpid(), nil
})

// settling is how long a worker is left alone before its memory is looked at.
const settling = 200 * time.Millisecond

func memoryRow() row {
	const pool = "Pool of 2"
	return row{
		name:  "memory",
		title: "Private memory of an idle worker",
		about: "Private_Clean + Private_Dirty + Private_Hugetlb of /proc/PID/smaps_rollup, the mean of two processes: workers that have run calls and rest, or empty programs.",
		metrics: []metric{
			{key: "bytes", title: "MiB", unit: mib},
		},
		contenders: []contender{
			{pool, ours, func(ctx context.Context, _ *env) (figures, error) {
				return withPool(ctx, multiproc.PoolConfig{Workers: workers}, func(p *multiproc.Pool) (figures, error) {
					answers, err := pid.Map(ctx, p, make([]struct{}, 50))
					if err != nil {
						return nil, err
					}
					time.Sleep(settling)
					return meanPrivate(answers)
				})
			}},
			{"empty Go program", limit, func(_ context.Context, e *env) (figures, error) {
				return withMany(e.firstByte, workers, func(pids []int, _ time.Duration) (figures, error) {
					time.Sleep(settling)
					return meanPrivate(pids)
				})
			}},
			python("Pool of 2, fork", "memory", workers, workers, "fork"),
			python("Pool of 2, forkserver", "memory", workers, workers, "forkserver"),
			python("Pool of 2, spawn", "memory", workers, workers, "spawn"),
		},
		goals: []goal{
			{text: "≤ 3 MiB", of: figure{pool, "bytes"}, most: 3 * mib},
		},
	}
}

// manyWorkers is how many workers start at once.
const manyWorkers, quickManyWorkers = 200, 20

func manyWorkersRow() row {
	const pool = "Pool of 200, Start"
	return row{
		name:  "start-200",
		title: "Start of 200 workers",
		about: "Until all of them are ready for calls. Empty programs are started by two goroutines.",
		metrics: []metric{
			{key: "seconds", title: "s", unit: 1},
		},
		contenders: []contender{
			{pool, ours, func(ctx context.Context, e *env) (figures, error) {
				pool := multiproc.NewPool(multiproc.PoolConfig{Workers: e.pick(manyWorkers, quickManyWorkers)})
				defer pool.Close()
				began := time.Now()
				err := pool.Start(ctx)
				return figures{"seconds": time.Since(began).Seconds()}, err
			}},
			{"200 empty Go programs, to the first byte of each", limit, func(_ context.Context, e *env) (figures, error) {
				return withMany(e.firstByte, e.pick(manyWorkers, quickManyWorkers), func(_ []int, took time.Duration) (figures, error) {
					return figures{"seconds": took.Seconds()}, nil
				})
			}},
			python("Pool of 200, fork", "start_many", manyWorkers, quickManyWorkers, "fork"),
		},
		goals: []goal{
			{text: "200 workers start in < 0.3 s", of: figure{pool, "seconds"}, most: 0.3},
		},
	}
}

// withMany starts n programs, by two at a time, that wait for the end of their input. When each has
// written its first byte it calls fn with their process ids and how long that took. They have ended when it returns.
func withMany(t tool, n int, fn func(pids []int, took time.Duration) (figures, error)) (figures, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	var (
		mu   sync.Mutex
		all  []*child.Child
		pids []int
		errs []error
		wg   sync.WaitGroup
	)
	defer func() {
		w.Close()
		r.Close()
		for _, p := range all {
			p.Reap()
		}
	}()
	began := time.Now()
	for range workers {
		wg.Go(func() {
			for range n / workers {
				p, err := startProgram(t, r)
				mu.Lock()
				if errs = append(errs, err); err == nil {
					all, pids = append(all, p), append(pids, p.PID())
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return fn(pids, took)
}

// meanPrivate returns the mean of what the processes, each of which may be named several times,
// share with nobody.
func meanPrivate(pids []int) (figures, error) {
	seen, sum := map[int]bool{}, 0
	for _, pid := range pids {
		if seen[pid] {
			continue
		}
		seen[pid] = true
		n, err := memoryOf(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Private_")
		if err != nil {
			return nil, err
		}
		sum += n
	}
	return figures{"bytes": float64(sum) / float64(len(seen))}, nil
}

// memoryOf adds up the lines of a file of /proc that begin with prefix, in bytes.
func memoryOf(name, prefix string) (int, error) {
	text, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) && runtime.GOOS != "linux" {
		return 0, missing(name + " is there on Linux alone")
	}
	if err != nil {
		return 0, err
	}
	sum, found := 0, false
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		key, value, ok := strings.Cut(lines.Text(), ":")
		var kib int
		if ok && strings.HasPrefix(key, prefix) {
			if _, err := fmt.Sscan(value, &kib); err != nil {
				return 0, fmt.Errorf("%s: %s: %w", name, key, err)
			}
			sum, found = sum+kib<<10, true
		}
	}
	if !found {
		return 0, fmt.Errorf("%s has no line with %s", name, prefix)
	}
	return sum, nil
}

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/scale"
)

// The kinds of executor to measure, besides scale.Sequential.
const (
	threads = "threads" // multiproc.Threads
	process = "process" // multiproc.Processes: a process for each task
	pool    = "pool"    // multiproc.Pool
)

var kinds = []string{threads, process, pool}

// job says what one run does: a workload of that size, on an executor of that kind and width. With
// scale.Sequential there is no executor.
type job struct {
	Kind     string
	Workers  int
	Workload string
	Size     int
	Dir      string // for files
}

// measure does a job and tells what it cost. Each job has a process of its own, so that none finds
// the memory or the threads that another one left.
var measure = multiproc.Register("scale.measure", measureJob)

func measureJob(ctx context.Context, j job) (scale.Sample, error) {
	w, err := findWorkload(j.Workload)
	if err != nil {
		return scale.Sample{}, err
	}
	tasks := w.tasks(j.Size, j.Workers, j.Dir)
	user, sys := cpuTime()
	began := time.Now()
	outcomes, err := j.do(ctx, w, tasks)
	s := scale.Sample{Real: time.Since(began)}
	if err != nil {
		return scale.Sample{}, err
	}
	s.User, s.Sys = cpuTime()
	s.User -= user
	s.Sys -= sys
	s.PeakMemory = peakMemory(j.Workers, peakExact(), outcomes)
	done := 0
	for _, o := range outcomes {
		done += o.Count
	}
	return s, enough(done, j.Size)
}

// enough says what is wrong with a run that did done of size units.
func enough(done, size int) error {
	if done != size {
		return fmt.Errorf("did %d of %d", done, size)
	}
	return nil
}

// do does the tasks, from nothing being started to nothing being left.
func (j job) do(ctx context.Context, w workload, tasks []task) (outcomes []outcome, err error) {
	if j.Kind == scale.Sequential {
		for _, t := range tasks {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			check, err := w.perform(ctx, t)
			if err != nil {
				return nil, err
			}
			outcomes = append(outcomes, outcome{Count: t.Count, Check: check, PID: os.Getpid()})
		}
		return outcomes, nil
	}
	ex, err := newExecutor(j.Kind, j.Workers)
	if err != nil {
		return nil, err
	}
	var opts []multiproc.MapOption
	if w.shares {
		opts = append(opts, multiproc.WithBatch(1)) // a share for each worker, not two for one
	}
	outcomes, err = perform.Map(ctx, ex, tasks, opts...)
	// After a Map that came to its end there is nothing left to wait for but the workers' end; when
	// ctx has ended, Shutdown kills them.
	if closing := ex.Shutdown(ctx); err == nil {
		err = closing
	}
	return outcomes, err
}

func newExecutor(kind string, workers int) (multiproc.Executor, error) {
	switch kind {
	case threads:
		return multiproc.NewThreads(multiproc.ThreadsConfig{Workers: workers}), nil
	case process:
		return multiproc.NewProcesses(multiproc.PoolConfig{Workers: workers}), nil
	case pool:
		return multiproc.NewPool(multiproc.PoolConfig{Workers: workers}), nil
	default:
		return nil, fmt.Errorf("unknown kind %q", kind)
	}
}

// peakMemory adds the peak of this process, own, and those of as many other processes as can have
// been there at once: the largest ones. It is 0 when a peak is not known.
func peakMemory(workers int, own int64, outcomes []outcome) int64 {
	peaks := make(map[int]int64)
	for _, o := range outcomes {
		if o.PID != os.Getpid() {
			peaks[o.PID] = max(peaks[o.PID], o.Peak)
		}
	}
	var sorted []int64
	for _, peak := range peaks {
		if peak == 0 {
			return 0
		}
		sorted = append(sorted, peak)
	}
	slices.Sort(sorted)
	slices.Reverse(sorted)
	sum := own
	for _, peak := range sorted[:min(workers, len(sorted))] {
		sum += peak
	}
	if own == 0 {
		return 0
	}
	return sum
}

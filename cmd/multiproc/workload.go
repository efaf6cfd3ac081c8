package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/seed84f35039/multiproc"
)

// A workload is something to do, in a number of tasks.
type workload struct {
	name    string
	unit    string // of its size
	size    int    // when none is given
	shares  bool   // each worker has one task, its share of the size; otherwise each unit is a task
	perform func(context.Context, task) (check float64, err error)
}

// The first workload is the default one.
var workloads = []workload{
	{name: "list-append", unit: "numbers", size: 10_000_000, shares: true, perform: listAppend},
	{name: "files", unit: "files", size: 200, perform: writeFile},
	{name: "sleep", unit: "tasks of 10 ms", size: 100, perform: sleep},
}

func findWorkload(name string) (workload, error) {
	for _, w := range workloads {
		if w.name == name {
			return w, nil
		}
	}
	return workload{}, fmt.Errorf("unknown workload %q", name)
}

// task is the argument of one call.
type task struct {
	Workload string
	Index    int
	Count    int // how much of the workload's size it is
	Dir      string
}

// outcome is the result of one call.
type outcome struct {
	Count int     // how much was done
	Check float64 // depends on the work, so that no compiler can leave it out
	PID   int     // the process that did it
	Peak  int64   // its peak resident memory until then, in bytes; 0 when not known
}

var perform = multiproc.Register("scale.task", performTask)

func performTask(ctx context.Context, t task) (outcome, error) {
	w, err := findWorkload(t.Workload)
	if err != nil {
		return outcome{}, err
	}
	check, err := w.perform(ctx, t)
	if err != nil {
		return outcome{}, err
	}
	return outcome{Count: t.Count, Check: check, PID: os.Getpid(), Peak: peakNow()}, nil
}

// tasks divides size units of the workload among the workers.
func (w workload) tasks(size, workers int, dir string) []task {
	n := size
	if w.shares {
		n = workers
	}
	tasks := make([]task, n)
	for i, count := range divide(size, n) {
		tasks[i] = task{Workload: w.name, Index: i, Count: count, Dir: dir}
	}
	return tasks
}

// divide returns n numbers that differ by 1 at most and add up to total.
func divide(total, n int) []int {
	parts := make([]int, n)
	for i := range parts {
		parts[i] = total / n
		if i < total%n {
			parts[i]++
		}
	}
	return parts
}

// listAppend appends random numbers to a list that begins empty, and stays where it is.
func listAppend(_ context.Context, t task) (float64, error) {
	var list []float64
	for range t.Count {
		list = append(list, rand.Float64())
	}
	if len(list) == 0 {
		return 0, nil
	}
	return list[len(list)-1], nil
}

// linesPerFile is how many lines writeFile writes.
const linesPerFile = 1000

// writeFile creates a file, writes to it, closes it and removes it.
func writeFile(_ context.Context, t task) (written float64, err error) {
	name := filepath.Join(t.Dir, fmt.Sprintf("file-%d", t.Index))
	f, err := os.Create(name)
	if err != nil {
		return 0, err
	}
	w := bufio.NewWriter(f)
	for i := range linesPerFile {
		n, _ := fmt.Fprintf(w, "line %d\n", i) // Flush tells of errors
		written += float64(n)
	}
	return written, cmp.Or(errors.Join(w.Flush(), f.Close()), os.Remove(name))
}

// sleep waits, as for an answer from another machine.
func sleep(ctx context.Context, _ task) (float64, error) {
	select {
	case <-time.After(10 * time.Millisecond):
		return 0, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

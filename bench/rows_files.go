package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/seed84f35039/multiproc"
)

// files is how many tiny files are written.
const files = 8

// How often a round does the job of the row files.
const fileJobs, quickFileJobs = 20, 3

// writeFile creates a file of one line.
var writeFile = multiproc.Register("bench.writeFile", func(_ context.Context, name string) (struct{}, error) {
	return struct{}{}, writeLine(name)
})

func writeLine(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = f.WriteString("line 0\n")
	return errors.Join(err, f.Close())
}

func filesRow() row {
	const processes, pool = "Processes, one for each file, 2 at a time", "Pool of 2, warm, Map"
	const goroutines, process = "8 goroutines", "Python Process, one for each file, all at once"
	const atOnce = "Processes, one for each file, all at once"
	return row{
		name:  "files",
		title: "8 tiny files",
		about: "Each file is created, gets one line and is closed; files are removed off the clock. A round takes the median of 20 times. " +
			"Processes are those of a small program, bench/small.",
		metrics: []metric{
			{key: "seconds", title: "ms", unit: 1e-3},
		},
		contenders: []contender{
			processesFiles(processes, workers, 0),
			processesFiles(atOnce, files, 0),
			processesFiles("Processes with 8 spares", files, files),
			{pool, ours, func(ctx context.Context, e *env) (figures, error) {
				return withPool(ctx, multiproc.PoolConfig{Workers: workers}, func(p *multiproc.Pool) (figures, error) { return mapFiles(ctx, e, p) })
			}},
			{"Threads of 2, Map", ours, func(ctx context.Context, e *env) (figures, error) {
				return withThreads(func(t *multiproc.Threads) (figures, error) { return mapFiles(ctx, e, t) })
			}},
			{goroutines, plain, func(ctx context.Context, e *env) (figures, error) {
				return fileSeconds(ctx, e, goroutinesFiles)
			}},
			{"one after the other", plain, func(ctx context.Context, e *env) (figures, error) {
				return fileSeconds(ctx, e, func(names []string) error {
					var errs []error
					for _, name := range names {
						errs = append(errs, writeLine(name))
					}
					return errors.Join(errs...)
				})
			}},
			python("Process, one for each file, all at once", "files_process", fileJobs, quickFileJobs),
			python("Pool of 2, made and ended", "files_pool", fileJobs, quickFileJobs),
			python("Pool of 2, warm", "files_warm_pool", fileJobs, quickFileJobs),
		},
		goals: []goal{
			{text: "one process for each file, all at once: faster than Python's Process", of: figure{process, "seconds"}, per: figure{atOnce, "seconds"}, least: 1},
			{text: "warm Pool ≤ 1.5× goroutines", of: figure{pool, "seconds"}, per: figure{goroutines, "seconds"}, most: 1.5},
		},
	}
}

// processesFiles returns a contender of bench/small.
func processesFiles(name string, atOnce, spares int) contender {
	return contender{name, ours, func(ctx context.Context, e *env) (figures, error) {
		dir, err := os.MkdirTemp(e.dir, "files-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		return e.small.figures(ctx, "files", strconv.Itoa(e.pick(fileJobs, quickFileJobs)), dir, strconv.Itoa(files), strconv.Itoa(atOnce), strconv.Itoa(spares))
	}}
}

func mapFiles(ctx context.Context, e *env, ex multiproc.Executor) (figures, error) {
	return fileSeconds(ctx, e, func(names []string) error {
		_, err := writeFile.Map(ctx, ex, names)
		return err
	})
}

func goroutinesFiles(names []string) error {
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { errs[i] = writeLine(name) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// fileSeconds times the writing of the files in a new folder.
func fileSeconds(ctx context.Context, e *env, job func(names []string) error) (figures, error) {
	dir, err := os.MkdirTemp(e.dir, "files-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	names := make([]string, files)
	for i := range names {
		names[i] = filepath.Join(dir, strconv.Itoa(i))
	}
	clear := func() error {
		for _, name := range names {
			if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return nil
	}
	f, err := seconds(ctx, e.pick(fileJobs, quickFileJobs), clear, func() error { return job(names) })
	for _, name := range names {
		if info, statErr := os.Stat(name); err == nil && (statErr != nil || info.Size() == 0) {
			err = errors.New("a file was not written: " + name)
		}
	}
	return f, err
}

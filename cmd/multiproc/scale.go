package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/scale"
)

const scaleHelp = `Measure how a workload scales with the number of workers.

The workload is done in a plain loop (sequential), which is what the rest is compared with, and
by threads, by a process for each task and by a pool of worker processes. Each run has a process
of its own, whose start does not count; starting and ending the workers does.

Workloads, each of a fixed --size in all:
  list-append  computing: random numbers are appended to lists, one list for each worker
  files        input and output: files are created, written, closed and removed
  sleep        waiting: tasks that take 10 ms and do nothing

Columns:
  real       time from start to end, the median of the runs; MAD is how far they stray from it
  user, sys  processor time in programs and in the kernel, of all processes together
  memory     peak resident memory of all processes that ran at once, added up
  speed-up   how many times faster than sequential
  eff.       efficiency, the speed-up for each worker
  serial     serial fraction: the share of the work that behaves as if it could not be divided`

const scaleExample = `  multiproc scale
  multiproc scale sleep --kind threads,pool --workers 1,10,100
  multiproc scale files --size 1000 --runs 9 --json
  multiproc scale --python`

func scaleCommand() *cobra.Command {
	var flags scaleFlags
	cmd := &cobra.Command{
		Use:       "scale [list-append|files|sleep]",
		Short:     "Measure how a workload scales with the number of workers",
		Long:      scaleHelp,
		Example:   scaleExample,
		ValidArgs: strings.Split(workloadNames(), ", "),
		Args:      cobra.ArbitraryArgs, // plan checks them together with the flags
		RunE: func(cmd *cobra.Command, args []string) error {
			flags.sizeSet = cmd.Flags().Changed("size")
			p, err := flags.plan(args)
			if err != nil {
				return &failure{code: codeUsage, err: err}
			}
			return p.run(cmd.Context(), flags, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.IntVar(&flags.size, "size", 0, "how much there is to do, in all (default "+defaultSizes()+")")
	f.StringVar(&flags.kinds, "kind", strings.Join(kinds, ","), "what to measure besides sequential")
	f.StringVar(&flags.workers, "workers", defaultWidths(), "numbers of workers")
	f.IntVar(&flags.runs, "runs", 5, "runs of each case, of which the medians are shown")
	f.BoolVar(&flags.json, "json", false, "print JSON, with every single run, instead of a table")
	f.BoolVar(&flags.python, "python", false, "do the same in Python as well (needs python3)")
	return cmd
}

func defaultSizes() string {
	var sizes []string
	for _, w := range workloads {
		sizes = append(sizes, fmt.Sprintf("%d %s", w.size, w.unit))
	}
	return strings.Join(sizes, ", ")
}

// run measures, and prints what was measured even when that is not all.
func (p plan) run(ctx context.Context, flags scaleFlags, stdout, stderr io.Writer) error {
	var py *python
	if flags.python {
		path, err := lookPath("python3")
		if err != nil {
			return &failure{codeFailure, fmt.Errorf("--python: %w", err), "install Python 3, or leave out --python"}
		}
		py = &python{path: path}
	}
	report, err := p.measure(ctx, py, stderr)
	if report != nil {
		write := report.WriteTable
		if flags.json {
			write = report.WriteJSON
		}
		if err := write(stdout); err != nil {
			return &failure{code: codeFailure, err: fmt.Errorf("write report: %w", err)}
		}
	}
	return explain(err)
}

// measure does everything that needs cleaning up afterwards, and cleans up.
func (p plan) measure(ctx context.Context, py *python, stderr io.Writer) (*scale.Report, error) {
	dir := filepath.Join(os.TempDir(), "multiproc-scale-"+rand.Text())
	ctx, release := untilSignal(ctx, func() { remove(dir) })
	defer release()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	defer remove(dir)
	size := fmt.Sprintf("%d %s", p.size, p.workload.unit)
	if py != nil {
		if err := py.install(ctx, dir); err != nil {
			return nil, err
		}
		size += ", Python " + py.version
	}
	progress := newProgress(stderr)
	defer progress.clear()
	cases := p.cases(dir, py)
	report, err := scale.Measure(ctx, cases, scale.Options{
		Workload: p.workload.name, Size: size, Runs: p.runs, Progress: progress.show,
	})
	var by stopped
	if err != nil && errors.As(context.Cause(ctx), &by) {
		runs := 0
		for _, row := range report.Rows {
			runs += len(row.Samples)
		}
		err = fmt.Errorf("%w after %d of %d runs", by, runs, len(cases)*p.runs)
	}
	return report, err
}

// cases are what is to be measured; those of Python are compared with Python.
func (p plan) cases(dir string, py *python) []scale.Case {
	var cases []scale.Case
	add := func(kind string, workers int) {
		j := job{Kind: kind, Workers: workers, Workload: p.workload.name, Size: p.size, Dir: dir}
		cases = append(cases, scale.Case{Kind: kind, Workers: workers, Run: j.run})
	}
	addPython := func(kind string, workers int) {
		j := job{Kind: kind, Workers: workers, Workload: p.workload.name, Size: p.size, Dir: dir}
		run := func(ctx context.Context) (scale.Sample, error) { return py.run(ctx, j) }
		cases = append(cases, scale.Case{Kind: kind, Workers: workers, Baseline: pythonSequential, Run: run})
	}
	add(scale.Sequential, 1)
	for _, kind := range p.kinds {
		for _, n := range p.widths {
			add(kind, n)
		}
	}
	if py == nil {
		return cases
	}
	addPython(pythonSequential, 1)
	for _, kind := range p.kinds {
		for _, n := range p.widths {
			addPython(pythonSequential+" "+kind, n)
		}
	}
	return cases
}

// killGrace is how long a run that was interrupted may take to end its workers.
const killGrace = time.Second

// run does the job in a process of its own.
func (j job) run(ctx context.Context) (scale.Sample, error) {
	p, err := measure.Start(ctx, j, multiproc.ProcessConfig{KillGrace: killGrace})
	if err != nil {
		return scale.Sample{}, err
	}
	return p.Wait(context.Background()) // not longer than ctx and killGrace: its end is to be seen
}

// explain makes the error of a measurement the end of the command.
func explain(err error) error {
	if err == nil {
		return nil
	}
	f := &failure{code: codeFailure, err: err}
	var by stopped
	switch {
	case errors.As(err, &by):
		f.code = by.code()
	case errors.Is(err, errors.ErrUnsupported):
		f.hint = "worker processes need Linux or another Unix"
	case crashed(err):
		f.hint = "if memory was short, a smaller --size or fewer --workers need less"
	}
	return f
}

// crashed says whether the process of a run died, or that of a worker.
func crashed(err error) bool {
	var run *multiproc.CrashError
	var worker *multiproc.RemoteError // what the run says about it
	return errors.As(err, &run) || errors.As(err, &worker) && worker.Type == fmt.Sprintf("%T", run)
}

// remove removes the directory with all that is in it. Workers that die may still be adding a file
// to it: it takes another try then, and they cannot add any more once it is gone.
func remove(dir string) {
	for range 100 {
		if os.RemoveAll(dir) == nil {
			return
		}
	}
}

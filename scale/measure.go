package scale

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
)

// Sequential is the kind of the default baseline: the workload without any parallelism, measured
// with Workers 1.
const Sequential = "sequential"

// Sample is what one run cost.
type Sample struct {
	Real time.Duration // from start to end, as a clock on the wall shows it
	User time.Duration // processor time in user mode, all processes and threads of the run together
	Sys  time.Duration // processor time in the kernel, likewise

	// PeakMemory is the largest resident memory, in bytes, all processes of the run together.
	// 0 means not known.
	PeakMemory int64
}

// Case is one thing to measure: a workload, done in one way by one number of workers.
type Case struct {
	Kind    string // the way: "sequential", "threads", "process", "pool", "python threads"...
	Workers int    // at least 1; a Kind and a number of Workers make a Case unique

	// Baseline names the kind whose case with 1 worker this one is compared with. It is the same for
	// all cases of a kind. "" means [Sequential]; when the cases contain no sequential one, the
	// report has no speed-ups for them.
	Baseline string

	// Run does all of the work once and says what it cost. It returns an error when it did less:
	// a Sample without an error counts, also when ctx ended meanwhile.
	Run func(ctx context.Context) (Sample, error)
}

// Options says how to measure. Runs has no default, as only the caller knows what a run costs.
type Options struct {
	Workload string // what is measured, for the report; default none
	Size     string // how much of it, for the report; default none

	Runs   int // runs of each case that count; at least 1, and 7 or more tell noise from difference
	Warmup int // runs of each case before those, not counted; default 0

	// Progress is called after every run, warm-up included. Default: not called.
	Progress func(Step)
}

// Step is the news that one run has ended.
type Step struct {
	Kind        string // of the case that ran
	Workers     int    // of the case that ran
	Round       int    // 1 to Options.Runs; 0 while warming up
	Done, Total int    // runs ended and runs planned, warm-up included
	Sample      Sample // what the run cost
}

// Measure runs every case opts.Runs times and reports what the runs cost.
//
// The runs are interleaved: every case runs once before any runs again, so a machine that becomes
// slower or faster meanwhile does so for all alike. The order changes from round to round, and is
// the same each time Measure is called. Before each run the garbage of the runs before it is
// collected.
//
// When ctx ends, or a run fails, Measure stops and returns both an error, which names the case, and
// the report of the runs that succeeded, marked Interrupted. Only bad cases or options, of which
// one error lists every fault, give no report.
func Measure(ctx context.Context, cases []Case, opts Options) (*Report, error) {
	if err := validate(cases, opts); err != nil {
		return nil, err
	}
	rows := make([]Row, len(cases))
	for i, c := range cases {
		rows[i] = c.row()
	}
	err := runRounds(ctx, cases, opts, rows)
	r := &Report{
		Workload:    opts.Workload,
		Size:        opts.Size,
		Machine:     thisMachine(),
		Interrupted: err != nil,
	}
	r.evaluate(rows)
	return r, err
}

// row is the case's row before it has any samples.
func (c Case) row() Row {
	if c.Baseline == "" {
		c.Baseline = Sequential
	}
	return Row{Kind: c.Kind, Workers: c.Workers, Baseline: c.Baseline}
}

// runRounds appends the samples of case i to rows[i]. Rounds below 1 are the warm-up.
func runRounds(ctx context.Context, cases []Case, opts Options, rows []Row) error {
	done, total := 0, (opts.Warmup+opts.Runs)*len(cases)
	for round := 1 - opts.Warmup; round <= opts.Runs; round++ {
		for _, i := range order(round-1, len(cases)) {
			c := cases[i]
			sample, err := runOnce(ctx, c)
			if err != nil {
				return fmt.Errorf("scale: %s, round %d: %w", rows[i].label(), max(round, 0), err)
			}
			if round >= 1 {
				rows[i].Samples = append(rows[i].Samples, sample)
			}
			done++
			if opts.Progress != nil {
				opts.Progress(Step{c.Kind, c.Workers, max(round, 0), done, total, sample})
			}
		}
	}
	return nil
}

func runOnce(ctx context.Context, c Case) (Sample, error) {
	if ctx.Err() != nil {
		return Sample{}, interrupted(ctx, nil)
	}
	runtime.GC()
	sample, err := c.Run(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return Sample{}, interrupted(ctx, err)
	case err != nil:
		return Sample{}, err
	default:
		return sample, sample.check()
	}
}

// interrupted tells why ctx ended, and what the run said about it when that is something else.
func interrupted(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if err == nil || errors.Is(cause, err) {
		return fmt.Errorf("interrupted: %w", cause)
	}
	if errors.Is(err, cause) {
		return fmt.Errorf("interrupted: %w", err)
	}
	return fmt.Errorf("interrupted: %w: %w", cause, err)
}

// order is the order of n cases in a round, counted from 0 or, before that, below. Round r starts
// with case r; even rounds go forwards from there and odd ones backwards. So every case comes at
// every position equally often, and none always runs after the same one, whose heat and cold
// caches it would inherit.
func order(round, n int) []int {
	step := 1
	if round%2 != 0 {
		step = -1
	}
	cases := make([]int, n)
	for j := range cases {
		i := (round + step*j) % n
		if i < 0 {
			i += n
		}
		cases[j] = i
	}
	return cases
}

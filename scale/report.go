package scale

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"time"
)

// Report is what [Measure] found.
type Report struct {
	Workload string  // Options.Workload
	Size     string  // Options.Size
	Machine  Machine // where it was measured

	// Interrupted says that the measurement ended before its last run: rows may have fewer runs than
	// were asked for, and cases without any are missing.
	Interrupted bool

	Rows []Row // one for each case with a run: kinds in the order of the cases, widths ascending
}

// Row is one case of a [Report]. Real, User, Sys and PeakMemory are each the median of its runs.
type Row struct {
	Kind     string
	Workers  int
	Baseline string // the kind whose row with 1 worker this one is compared with

	Real    time.Duration
	RealMin time.Duration // the fastest run
	RealMax time.Duration // the slowest run
	RealMAD time.Duration // the median distance of a run from Real
	User    time.Duration
	Sys     time.Duration

	PeakMemory int64 // bytes; 0 when not known

	// SpeedUp is Real of the baseline / Real: 2 is twice as fast. It is 0 when not known: the baseline
	// was not measured, or one of the two took no time at all.
	SpeedUp float64

	// Efficiency is SpeedUp / Workers: 1 is perfect. It is 0 when SpeedUp is.
	Efficiency float64

	// SerialFraction is [KarpFlatt] of SpeedUp and Workers: 0 is perfect, 1 is no gain at all, negative
	// is superlinear, and above 1 is slower than the baseline. With 1 worker, and where SpeedUp is not
	// known, there is none: then both it and Ceiling are 0.
	SerialFraction float64

	// Ceiling is [Ceiling] of SerialFraction: at least 1, +Inf when SerialFraction is not above 0.
	Ceiling float64

	Samples []Sample // every run, in the order of the rounds
}

// label names the row in a sentence: "pool ×4".
func (r *Row) label() string { return fmt.Sprintf("%s ×%d", r.Kind, r.Workers) }

// divided says whether the row has a serial fraction.
func (r *Row) divided() bool { return r.Workers >= 2 && r.SpeedUp > 0 }

// evaluate fills Rows from rows that have an identity and samples, and nothing else.
func (r *Report) evaluate(rows []Row) {
	rank := make(map[string]int)
	for _, row := range rows {
		if _, ok := rank[row.Kind]; !ok {
			rank[row.Kind] = len(rank)
		}
	}
	rows = slices.DeleteFunc(rows, func(row Row) bool { return len(row.Samples) == 0 })
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(rank[a.Kind], rank[b.Kind]), cmp.Compare(a.Workers, b.Workers))
	})
	single := make(map[string]time.Duration) // Real of each kind's row with 1 worker
	for i := range rows {
		rows[i].summarize()
		if rows[i].Workers == 1 {
			single[rows[i].Kind] = rows[i].Real
		}
	}
	for i := range rows {
		rows[i].compare(single[rows[i].Baseline])
	}
	r.Rows = rows
}

// summarize fills what the row's own samples tell.
func (r *Row) summarize() {
	column := func(of func(Sample) time.Duration) []time.Duration {
		xs := make([]time.Duration, len(r.Samples))
		for i, s := range r.Samples {
			xs[i] = of(s)
		}
		return xs
	}
	memory := make([]int64, len(r.Samples))
	for i, s := range r.Samples {
		memory[i] = s.PeakMemory
	}
	times := column(func(s Sample) time.Duration { return s.Real })
	r.Real, r.RealMAD = median(times), mad(times)
	r.RealMin, r.RealMax = slices.Min(times), slices.Max(times)
	r.User = median(column(func(s Sample) time.Duration { return s.User }))
	r.Sys = median(column(func(s Sample) time.Duration { return s.Sys }))
	r.PeakMemory = median(memory)
}

// compare fills what follows from the real time of the baseline, 0 when it has none.
func (r *Row) compare(baseline time.Duration) {
	if baseline == 0 || r.Real == 0 {
		return
	}
	r.SpeedUp = float64(baseline) / float64(r.Real)
	r.Efficiency = r.SpeedUp / float64(r.Workers)
	if r.divided() {
		r.SerialFraction = KarpFlatt(r.SpeedUp, r.Workers)
		r.Ceiling = Ceiling(r.SerialFraction)
	}
}

// byKind yields the rows of each kind, which stand together.
func byKind(rows []Row) iter.Seq2[string, []Row] {
	return func(yield func(string, []Row) bool) {
		for len(rows) > 0 {
			kind, n := rows[0].Kind, 1
			for n < len(rows) && rows[n].Kind == kind {
				n++
			}
			if !yield(kind, rows[:n]) {
				return
			}
			rows = rows[n:]
		}
	}
}

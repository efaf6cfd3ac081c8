package scale

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// noisy is the MAD, in parts of the median, above which a row is called noisy.
const noisy = 0.10

// fewRuns is the number of runs below which they have no spread to speak of.
const fewRuns = 3

// Warnings says, in sentences, what stands between the numbers and a conclusion: an interruption, a
// missing baseline, more workers than CPUs, too few runs or widths, noise, differences smaller than
// the noise, speed-ups too good to be true. It is empty when nothing does.
func (r *Report) Warnings() []string {
	var all []string
	for _, warn := range []func(*Report) []string{
		warnInterrupted, warnUncompared, warnShort, warnFewCPUs, warnSaturated, warnFewRuns, warnNoise, warnAlike,
		warnSuperlinear, warnOnePoint,
	} {
		all = append(all, warn(r)...)
	}
	return all
}

func warnInterrupted(r *Report) []string {
	if !r.Interrupted {
		return nil
	}
	return []string{"the measurement was interrupted: runs are missing, maybe whole cases"}
}

// tooShort is a time in which not even a process starts, so that what is measured
// beside it is what the kinds of parallelism cost, not what they gain.
const tooShort = time.Millisecond

// warnShort names the baselines that took next to no time.
func warnShort(r *Report) []string {
	var out []string
	for _, row := range r.Rows {
		if row.Kind == row.Baseline && row.Workers == 1 && row.Real > 0 && row.Real < tooShort {
			out = append(out, fmt.Sprintf("%s took %v, less than the start of a process: choose a larger size", row.Kind, row.Real))
		}
	}
	return out
}

// warnUncompared names the kinds that have a row without a speed-up.
func warnUncompared(r *Report) []string {
	var out []string
	single := make(map[string]bool)
	for _, row := range r.Rows {
		single[row.Kind] = single[row.Kind] || row.Workers == 1
		if row.Real == 0 {
			out = append(out, fmt.Sprintf("%s took no measurable time: nothing can be compared with it",
				row.label()))
		}
	}
	for kind, rows := range byKind(r.Rows) {
		if base := rows[0].Baseline; !single[base] {
			out = append(out, fmt.Sprintf("%s has no speed-up: its baseline, %s ×1, was not measured",
				kind, base))
		}
	}
	return out
}

func warnFewCPUs(r *Report) []string {
	cpus := r.Machine.usable()
	var over []int
	for _, row := range r.Rows {
		if cpus > 0 && row.Workers > cpus && !slices.Contains(over, row.Workers) {
			over = append(over, row.Workers)
		}
	}
	if len(over) == 0 {
		return nil
	}
	slices.Sort(over)
	widths := make([]string, len(over))
	for i, n := range over {
		widths[i] = strconv.Itoa(n)
	}
	return []string{fmt.Sprintf(
		"%s workers on %s: they share cores, so the speed-up of computing cannot exceed %d",
		enumerate(widths), plural(cpus, "CPU"), cpus)}
}

// warnSaturated names the rows that the fits leave out.
func warnSaturated(r *Report) []string {
	var out []string
	for kind, rows := range byKind(r.Rows) {
		var widths []string
		for _, row := range rows {
			if row.divided() && r.saturated(&row) {
				widths = append(widths, fmt.Sprintf("×%d", row.Workers))
			}
		}
		if len(widths) > 0 {
			out = append(out, fmt.Sprintf("%s %s kept every CPU busy: too few CPUs held it back, "+
				"not only serial work, and the fit leaves it out", kind, enumerate(widths)))
		}
	}
	return out
}

func warnFewRuns(r *Report) []string {
	var few []string
	for _, row := range r.Rows {
		if len(row.Samples) < fewRuns {
			few = append(few, row.label())
		}
	}
	if len(few) == 0 {
		return nil
	}
	if len(few) == len(r.Rows) {
		few = []string{"every case"}
	}
	return []string{fmt.Sprintf("fewer than %d runs of %s: no spread to speak of", fewRuns, enumerate(few))}
}

// warnNoise goes by the MAD, not by the distance from the fastest run to the slowest: the median
// stands firm against a few disturbed runs, and a warning that comes with each of them teaches to
// overlook warnings.
func warnNoise(r *Report) []string {
	var out []string
	for _, row := range r.Rows {
		if len(row.Samples) < fewRuns || row.Real == 0 {
			continue
		}
		if part := float64(row.RealMAD) / float64(row.Real); part > noisy {
			out = append(out, fmt.Sprintf("%s is noisy: its runs spread (MAD) by %.0f%% of their median",
				row.label(), 100*part))
		}
	}
	return out
}

// warnAlike names neighbouring widths of a kind whose medians differ by no more than their MADs
// together. For normal noise of deviation σ that is a difference of 1.35 σ, which at 7 runs is twice
// the standard error of the difference of two medians. Overlapping [min, max] intervals would be the
// worse test: they only grow with more runs, so that more runs would tell less.
func warnAlike(r *Report) []string {
	unit := r.unit()
	var out []string
	for _, rows := range byKind(r.Rows) {
		for i := 1; i < len(rows); i++ {
			a, b := &rows[i-1], &rows[i]
			if len(a.Samples) < fewRuns || len(b.Samples) < fewRuns {
				continue
			}
			difference, spread := max(a.Real-b.Real, b.Real-a.Real), a.RealMAD+b.RealMAD
			if difference <= spread {
				out = append(out, fmt.Sprintf(
					"%s and ×%d cannot be told apart: medians differ by %s %s, spreads (MAD) add up to %s %[4]s",
					a.label(), b.Workers, unit.format(difference), unit.name, unit.format(spread)))
			}
		}
	}
	return out
}

func warnSuperlinear(r *Report) []string {
	var out []string
	for kind, rows := range byKind(r.Rows) {
		var found []string
		for _, row := range rows {
			if row.divided() && row.SerialFraction < 0 {
				found = append(found, fmt.Sprintf("%.2f× at %d", row.SpeedUp, row.Workers))
			}
		}
		if len(found) > 0 {
			out = append(out, fmt.Sprintf("%s is superlinear, %s: does its baseline do the same work, "+
				"or do caches explain it?", kind, enumerate(found)))
		}
	}
	return out
}

func warnOnePoint(r *Report) []string {
	var out []string
	for _, fit := range r.Fits() {
		if len(fit.Widths) == 1 {
			out = append(out, fmt.Sprintf("the fit of %s rests on one point, %d workers",
				fit.Kind, fit.Widths[0]))
		}
	}
	return out
}

// plural is "1 CPU", "2 CPUs".
func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// enumerate joins words as a sentence does: "a, b and c".
func enumerate(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}

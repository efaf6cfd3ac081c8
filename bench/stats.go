package main

import (
	"fmt"
	"slices"
	"strconv"
)

// A spread is the middle of some values and how far they lie apart.
type spread struct{ median, min, max float64 }

// spreadOf returns the spread of values; ok is false when there are none.
func spreadOf(values []float64) (s spread, ok bool) {
	if len(values) == 0 {
		return spread{}, false
	}
	sorted := slices.Sorted(slices.Values(values))
	mid := len(sorted) / 2
	s = spread{median: sorted[mid], min: sorted[0], max: sorted[len(sorted)-1]}
	if len(sorted)%2 == 0 {
		s.median = (sorted[mid-1] + sorted[mid]) / 2
	}
	return s, true
}

// percentile returns the value below which the given part of the sorted values lie.
func percentile[T any](sorted []T, part float64) T {
	return sorted[min(len(sorted)-1, int(float64(len(sorted))*part))]
}

// result is what the rounds of a row gave.
type result struct {
	row    row
	rounds []map[string]figures // by contender
	failed map[string]error     // why there is no more of a contender; a missing if it was never there
}

// values returns what a contender reported, round by round.
func (r *result) values(f figure) []float64 {
	var values []float64
	for _, round := range r.rounds {
		if v, ok := round[f.contender][f.key]; ok {
			values = append(values, v)
		}
	}
	return values
}

// ratios returns how many times b is a, in each round that has both: what disturbs a round disturbs
// all contenders alike, so that the ratio tells more than that of two medians.
func (r *result) ratios(a, b figure) []float64 {
	var ratios []float64
	for _, round := range r.rounds {
		x, ok := round[a.contender][a.key]
		y, also := round[b.contender][b.key]
		if ok && also && y != 0 {
			ratios = append(ratios, x/y)
		}
	}
	return ratios
}

// A verdict tells what became of a goal.
type verdict struct {
	measured string
	outcome  string
}

const (
	met         = "met"
	notMeasured = "not measured"
)

// judge compares what was measured with a goal.
func (r *result) judge(g goal) verdict {
	values, unit, suffix := r.values(g.of), r.unit(g.of.key), ""
	if g.per != (figure{}) {
		values, unit, suffix = r.ratios(g.of, g.per), 1, "×"
	}
	s, ok := spreadOf(values)
	if !ok {
		return verdict{"", notMeasured}
	}
	v := verdict{measured: fmt.Sprintf("%s%s [%s..%s]", digits(s.median/unit), suffix, digits(s.min/unit), digits(s.max/unit))}
	switch {
	case g.least != 0 && s.median < g.least:
		v.outcome = fmt.Sprintf("missed: %s of the goal", percent(s.median/g.least))
	case g.most != 0 && s.median > g.most:
		v.outcome = fmt.Sprintf("missed: %s× the goal", digits(s.median/g.most))
	default:
		v.outcome = met
	}
	return v
}

// unit returns the unit of a metric.
func (r *result) unit(key string) float64 {
	for _, m := range r.row.metrics {
		if m.key == key {
			return m.unit
		}
	}
	return 1
}

// digits shows a number with three digits that count.
func digits(x float64) string {
	if x >= 1000 || x <= -1000 {
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	s := strconv.FormatFloat(x, 'g', 3, 64)
	if y, err := strconv.ParseFloat(s, 64); err == nil {
		s = strconv.FormatFloat(y, 'f', -1, 64)
	}
	return s
}

func percent(part float64) string { return digits(100*part) + " %" }

package scale

// Fit is the curve of Amdahl's law that comes closest to the speed-ups of one kind. The speed-up it
// predicts on n workers is Amdahl(SerialFraction, n).
type Fit struct {
	Kind           string
	SerialFraction float64 // see [Row.SerialFraction]
	Ceiling        float64 // [Ceiling] of SerialFraction: at least 1, maybe +Inf
	Widths         []int   // the numbers of workers, all 2 or more, that it rests on; ascending
}

// Fits fits Amdahl's law to each kind, in the order of Rows. A fit rests on the rows that have a
// serial fraction, but for those with more workers than CPUs that kept the CPUs busy (User + Sys
// above four fifths of what they had to give in Real): the law speaks of a processor for each
// worker, and would take their waiting for one as work that cannot be divided. A kind without any row
// to rest on has no fit.
func (r *Report) Fits() []Fit {
	var fits []Fit
	for kind, rows := range byKind(r.Rows) {
		var widths []int
		var speedUps []float64
		for _, row := range rows {
			if row.divided() && !r.saturated(&row) {
				widths = append(widths, row.Workers)
				speedUps = append(speedUps, row.SpeedUp)
			}
		}
		if len(widths) > 0 {
			s := fitAmdahl(widths, speedUps)
			fits = append(fits, Fit{kind, s, Ceiling(s), widths})
		}
	}
	return fits
}

// saturated says whether the row had more workers than CPUs, and would have used more CPUs. Workers
// above the CPUs that wait for something else, a disk or an interpreter's lock, do not saturate.
func (r *Report) saturated(row *Row) bool {
	const busy = 0.8
	cpus := r.Machine.usable()
	return cpus > 0 && row.Workers > cpus &&
		(row.User+row.Sys).Seconds() > busy*float64(cpus)*row.Real.Seconds()
}

// fitAmdahl is the s for which 1/S(n) = s + (1−s)/n has the smallest squared distance from the
// measured 1/S. With y = 1/S − 1/n and x = 1 − 1/n that is the straight line y = s·x through the
// origin, which the widths below 2 say nothing about (there x is 0), so in closed form
//
//	s = Σxy / Σxx
//
// 1/S is a time, in units of the baseline's: the distances are those of the times that were measured.
// On one point the fit is Karp and Flatt's metric.
func fitAmdahl(widths []int, speedUps []float64) float64 {
	var xy, xx float64
	for i, n := range widths {
		x := 1 - 1/float64(n)
		y := 1/speedUps[i] - 1/float64(n)
		xy += x * y
		xx += x * x
	}
	return xy / xx
}

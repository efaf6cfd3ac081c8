package scale

import "math"

// Amdahl is the speed-up of n workers over one when the fraction s of the work cannot be divided
// among them:
//
//	S(n) = 1 / (s + (1−s)/n)
//
// For a negative s, which describes a superlinear speed-up, the formula has no value from some n on;
// Amdahl is +Inf there. It is NaN when n < 1.
//
// Source: G. M. Amdahl, Validity of the single processor approach to achieving large scale computing
// capabilities, AFIPS Conference Proceedings 30 (1967), 483–485. The paper has the law in words; this
// is the formula everybody reads out of them.
func Amdahl(s float64, n int) float64 {
	if n < 1 {
		return math.NaN()
	}
	time := s + (1-s)/float64(n) // of n workers, in units of the time of one
	if time <= 0 {
		return math.Inf(1)
	}
	return 1 / time
}

// KarpFlatt is the serial fraction that a measured speed-up on n workers speaks of, Amdahl's law
// solved for s:
//
//	e = (1/S − 1/n) / (1 − 1/n)
//
// The same e at every n is work that cannot be divided. An e that grows with n is overhead: the
// workers wait for each other, or are costly to feed. It is NaN when n < 2 or speedUp is not above 0.
//
// Source: A. H. Karp and H. P. Flatt, Measuring parallel processor performance, Communications of the
// ACM 33 (1990), no. 5, 539–543.
func KarpFlatt(speedUp float64, n int) float64 {
	if n < 2 || !(speedUp > 0) {
		return math.NaN()
	}
	ideal := 1 / float64(n)
	return (1/speedUp - ideal) / (1 - ideal)
}

// Ceiling is the speed-up that no number of workers exceeds when the fraction s of the work cannot be
// divided: 1/s. It is +Inf when s is 0 or, superlinear, below. It is 1 when s is above 1: then every
// worker more is a loss, and one worker is best.
func Ceiling(s float64) float64 {
	switch {
	case s <= 0:
		return math.Inf(1)
	case s >= 1:
		return 1
	default:
		return 1 / s
	}
}

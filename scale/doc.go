// Package scale measures how a workload scales: over kinds of parallelism (sequential, threads,
// processes, a pool, another language's threads) and over numbers of workers.
//
// [Measure] runs every [Case] several times, interleaved, and returns a [Report] with the median
// times of each case, its speed-up over a baseline, its efficiency and its serial fraction, and for
// each kind the curve of Amdahl's law that fits best. The report prints itself as a table for people
// ([Report.WriteTable]) and as JSON for programs ([Report.WriteJSON]), and says what its numbers
// cannot carry ([Report.Warnings]).
//
// The package takes functions and knows nothing of what they run: a Run starts the work, waits for
// it, and says what it cost.
//
// # Terms
//
// With T(n) the real time of a case on n workers, and T the real time of its baseline:
//
//   - speed-up S(n) = T / T(n)
//   - efficiency = S(n) / n
//   - serial fraction e = (1/S − 1/n) / (1 − 1/n), the share of the work that behaves as if it could
//     not be divided; see [KarpFlatt]
//   - ceiling = 1/e, the speed-up that no number of workers exceeds; see [Ceiling]
//
// A negative serial fraction means a superlinear speed-up, S(n) > n. It is reported as it is.
//
// # Noise
//
// Each number of a row is the median of its runs (with an even number of runs the mean of the two
// middle ones) and the spread is the median absolute deviation, MAD: the median distance of a run
// from the median. One disturbed run moves neither, as it would move a mean and a standard deviation.
//
// # Concurrency
//
// The package starts no goroutine. Measure calls Run and Progress one at a time from the goroutine
// of its caller. A Report is plain data: reading it from several goroutines is safe.
package scale

package multiproc

import (
	"sync"
	"sync/atomic"
	"time"
)

// costs are what calls have cost lately, by the name of the function.
type costs struct{ m sync.Map }

// of returns the cost of the function's calls.
func (c *costs) of(function string) *cost {
	v, ok := c.m.Load(function)
	if !ok {
		v, _ = c.m.LoadOrStore(function, &cost{})
	}
	return v.(*cost)
}

// cost is what the calls of a function have cost lately: moving averages, in which
// a concurrent update may get lost.
type cost struct {
	ran      atomic.Int64 // nanoseconds a call; 0: none has ended
	argument atomic.Int64 // encoded bytes
	result   atomic.Int64 // encoded bytes
}

// addTime notes how long n calls took in all.
func (c *cost) addTime(n int, ran time.Duration) { smooth(&c.ran, n, int64(ran)) }

// addResults notes how many bytes the results of n calls take in all.
func (c *cost) addResults(n, bytes int) { smooth(&c.result, n, int64(bytes)) }

// addArguments notes how many bytes the arguments of n calls take in all.
func (c *cost) addArguments(n, bytes int) { smooth(&c.argument, n, int64(bytes)) }

// smooth moves the average towards n values, which add up to sum.
func smooth(avg *atomic.Int64, n int, sum int64) {
	if n == 0 {
		return
	}
	x := sum / int64(n)
	old := avg.Load()
	if old == 0 {
		old = x
	}
	avg.Store(max(old+(x-old)*int64(min(n, 4))/8, 1))
}

// slice is how much work a worker is handed at a time.
const slice = 10 * time.Millisecond

// The most that a worker is handed at a time.
const (
	maxBatchCalls = 32 << 10
	maxBatchBytes = 1 << 20
)

// batch returns how many calls make a slice of time, within the limits; 1 where
// that is not known.
func (c *cost) batch() int {
	ran, bytes := c.ran.Load(), c.argument.Load()+c.result.Load()
	if ran == 0 {
		return 1
	}
	return int(max(1, min(int64(slice)/ran, maxBatchCalls, maxBatchBytes/max(bytes, 1))))
}

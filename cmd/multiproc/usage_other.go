//go:build !unix

package main

import "time"

// Other systems do not tell.

func cpuTime() (user, sys time.Duration) { return 0, 0 }

func peakNow() int64 { return 0 }

func peakExact() int64 { return 0 }

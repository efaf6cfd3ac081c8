//go:build !linux

package child

import (
	"errors"
	"time"
)

// UsageOf returns what a process uses; here that is not known.
func UsageOf(pid int) (Usage, error) { return Usage{}, errors.ErrUnsupported }

var began = time.Now()

// SelfCPU returns the CPU time that this process has taken so far. Here that is not known,
// and the time since its start takes its place.
func SelfCPU() time.Duration { return time.Since(began) }

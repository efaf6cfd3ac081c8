package child

import "time"

// Usage is what a process uses.
type Usage struct {
	RSS int64         // resident memory, in bytes
	CPU time.Duration // CPU time, user and system, so far
}

package child

import (
	"time"

	"golang.org/x/sys/unix"
)

// SelfCPU returns the CPU time that this process has taken so far.
func SelfCPU() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

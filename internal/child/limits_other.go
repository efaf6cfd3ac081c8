//go:build !linux

package child

import (
	"errors"
	"fmt"
	"runtime"
)

// Apply sets the limits for this process. Here there is no way to do that.
func (l Limits) Apply() error {
	if l.zero() {
		return nil
	}
	return fmt.Errorf("limits of memory, files, priority and CPUs on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// PrivateMemory returns 0: here that is not known.
func PrivateMemory() int64 { return 0 }

func hasCPU(int) bool { return false }

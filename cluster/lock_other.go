//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package cluster

import (
	"errors"
	"os"
)

const haveLocks = false

// tryLock is not to be had here.
func tryLock(*os.File, bool) (bool, error) { return false, errors.ErrUnsupported }

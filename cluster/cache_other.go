//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package cluster

import (
	"errors"
	"io/fs"
	"os"
)

const haveLocks = false

// ownedByOther is not to be told here.
func ownedByOther(fs.FileInfo) bool { return false }

// tryLock is not to be had here.
func tryLock(*os.File, bool) (bool, error) { return false, errors.ErrUnsupported }

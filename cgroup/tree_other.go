//go:build !linux

package cgroup

import (
	"errors"
	"fmt"
	"runtime"
)

// tree is what a Cage has where there are cgroups. Here there is none.
type tree struct{}

func plant(Config) (*tree, error) {
	return nil, fmt.Errorf("%s has no cgroups, Linux has: %w", runtime.GOOS, errors.ErrUnsupported)
}

func (*tree) admit(int) (func() (bool, error), error) { return nil, errors.ErrUnsupported }

func (*tree) close() error { return nil }

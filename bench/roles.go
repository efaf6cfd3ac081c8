package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/seed84f35039/multiproc/internal/child"
)

// A role is what this program does when a row starts it by hand, without multiproc.
type role func(args []string) error

// play does a role and returns the exit code.
func (r role) play(args []string) int {
	err := child.Arm(3) // ends with the benchmark
	if err == nil {
		err = r(args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// ownRole runs this program in a role and returns the figures that it prints.
func ownRole(ctx context.Context, name string, n ...int) (figures, error) {
	self, err := child.Self()
	if err != nil {
		return nil, err
	}
	args := []string{name}
	for _, n := range n {
		args = append(args, strconv.Itoa(n))
	}
	return tool{argv: []string{self}}.figures(ctx, args...)
}

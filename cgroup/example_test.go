package cgroup_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/cgroup"
)

var render = multiproc.Register("example.render", func(_ context.Context, page int) (int, error) { return page, nil })

// A pool whose workers may use 512 MiB and one and a half CPUs each, with the programs that they start.
// Where this program owns no cgroup it goes on with a limit that needs no privileges.
func Example() {
	cfg := multiproc.PoolConfig{}
	cage, err := cgroup.New(cgroup.Config{Memory: 512 << 20, CPUs: 1.5})
	switch {
	case err == nil:
		defer cage.Close() // after the pool: deferred calls run last to first
		cfg.Cage = cage
	case errors.Is(err, errors.ErrUnsupported):
		cfg.MemoryLimit = 512 << 20
	default:
		fmt.Println(err)
		return
	}
	pool := multiproc.NewPool(cfg)
	defer pool.Close()
	pages, err := render.Map(context.Background(), pool, []int{1, 2, 3}, multiproc.CollectErrors())
	if crash, ok := errors.AsType[*multiproc.CrashError](err); ok && crash.OutOfMemory {
		fmt.Printf("input %d needs more than 512 MiB; the results are %v\n", crash.Index, pages)
	}
}

// Everything that is wrong with a configuration is told at once.
func ExampleConfig() {
	_, err := cgroup.New(cgroup.Config{Memory: -1, CPUs: 0.001})
	fmt.Println(err)
	// Output:
	// cgroup: Config: Memory is -1; give bytes, or 0 for no limit
	// CPUs is 0.001; give at least 0.01, or 0 for no limit
}

//go:build unix

package multiproc_test

import (
	"context"
	"fmt"

	"github.com/seed84f35039/multiproc"
)

// Ctrl-C drops what waits and lets end what runs; a second one kills.
func ExampleStopOnSignal() {
	pool := multiproc.NewPool(multiproc.PoolConfig{})
	defer pool.Close()
	ctx, stop := multiproc.StopOnSignal(context.Background(), pool)
	defer stop()

	out, err := cube.Map(ctx, pool, []int{1, 2, 3})
	fmt.Println(out, err)
	// Output: [1 8 27] <nil>
}

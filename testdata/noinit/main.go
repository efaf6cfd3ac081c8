// Program noinit uses worker processes and calls Init too late, or not at all, as
// its first argument says.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/seed84f35039/multiproc"
)

var square = multiproc.Register("square", func(_ context.Context, x int) (int, error) { return x * x, nil })

// second is set in the processes that the first one starts.
const second = "NOINIT_SECOND"

func main() {
	how := os.Args[len(os.Args)-1] // workers have the name of the program alone
	if os.Getenv(second) != "" {
		how = os.Getenv(second)
	}
	fmt.Println("main runs")
	switch {
	case how == "never":
	case os.Getenv(second) == "":
		multiproc.Init()
	case how == "hangs":
		time.Sleep(time.Minute)
	case how == "exits":
		os.Exit(7)
	case how == "panics":
		panic("before Init")
	case how == "late":
		fmt.Println("late, but in time")
		multiproc.Init()
	}
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2, StartTimeout: 300 * time.Millisecond, Env: []string{second + "=" + how}})
	defer pool.Close()
	out, err := square.Map(context.Background(), pool, []int{1, 2, 3})
	fmt.Println(out, err)
	if p, err := square.Start(context.Background(), 4, multiproc.ProcessConfig{StartTimeout: 300 * time.Millisecond, Env: []string{second + "=" + how}}); err != nil {
		fmt.Println("start:", err)
	} else {
		out, err := p.Wait(context.Background())
		fmt.Println("process:", out, err)
	}
}

// Command isolation runs calls that crash their worker process, among calls that do not.
//
//	go run ./examples/isolation
//
// Any Go program can handle an error and recover from a panic; the crashes would end it, wherever
// they happen. In a pool each costs the call that caused it: the others deliver their results, and
// the pool goes on.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"

	"github.com/seed84f35039/multiproc"
)

// work fails or crashes if its argument says so, and otherwise returns the argument.
var work = multiproc.Register("work", func(_ context.Context, what string) (string, error) {
	if what == "error" {
		return "", errors.New("cannot do that")
	}
	if crash, ok := crashes[what]; ok {
		crash()
	}
	return what, nil
})

func main() {
	multiproc.Init()
	ctx := context.Background()
	// A worker that crashes writes all its stacks to standard error.
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2, Stderr: io.Discard})
	defer pool.Close()

	in := []string{
		"first", "nil pointer", "second", "kill", "segmentation violation", "third",
		"exit", "stack overflow", "map", "fourth", "error",
	}
	out, err := work.Map(ctx, pool, in, multiproc.CollectErrors())
	for i, result := range out {
		if result != "" {
			fmt.Printf("result #%d: %s\n", i, result)
		}
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		log.Fatal(err) // the pool could not be started
	}
	for _, err := range joined.Unwrap() {
		if crash, ok := errors.AsType[*multiproc.CrashError](err); ok {
			fmt.Printf("crash  #%d: %s: signal %d, exit code %d, reason %q\n",
				crash.Index, in[crash.Index], int(crash.Signal), crash.ExitCode, crash.Reason)
		} else if p, ok := errors.AsType[*multiproc.PanicError](err); ok {
			fmt.Printf("panic  #%d: %s: %s\n", p.Index, in[p.Index], p.Value)
		} else if e, ok := errors.AsType[*multiproc.RemoteError](err); ok {
			fmt.Printf("error  #%d: %s: %s\n", e.Index, in[e.Index], e.Message)
		} else {
			log.Print(err)
		}
	}

	out, err = work.Map(ctx, pool, []string{"still", "at", "work"})
	fmt.Println(out, err)
}

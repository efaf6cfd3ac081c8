// Command processes makes lists of random numbers, each in a process of its own.
//
//	go run ./examples/processes -jobs 2 -count 10000000
//
// It differs from ../threads in the lines of run alone: Start takes the place of Go, and there is
// no executor. Each list stays in the process that made it, and only its length comes back: moving
// the numbers themselves would cost more than making them.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"

	"github.com/seed84f35039/multiproc"
)

// job is the argument of listAppend.
type job struct {
	Count int // numbers to append to the list
	ID    int // of the job, for error messages
}

// listAppend returns the length of the list that it has made, and leaves the list where it is.
var listAppend = multiproc.Register("list_append", func(_ context.Context, j job) (int, error) {
	if j.Count < 0 {
		return 0, fmt.Errorf("job %d: a list has no %d numbers", j.ID, j.Count)
	}
	var list []float64
	for range j.Count {
		list = append(list, rand.Float64())
	}
	return len(list), nil
})

func main() {
	multiproc.Init()
	jobs := flag.Int("jobs", 2, "number of jobs")
	count := flag.Int("count", 10_000_000, "random numbers that each job appends")
	flag.Parse()
	if err := run(context.Background(), *jobs, *count); err != nil {
		log.Fatal(err)
	}
	fmt.Println("List processing complete.")
}

// run starts all jobs, and joins them.
func run(ctx context.Context, jobs, count int) error {
	var started []*multiproc.Process[int]
	for id := range jobs {
		p, err := listAppend.Start(ctx, job{count, id}, multiproc.ProcessConfig{})
		if err != nil {
			return err
		}
		started = append(started, p)
	}
	for _, j := range started {
		if _, err := j.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

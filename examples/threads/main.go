// Command threads makes lists of random numbers on threads, which are goroutines of this process.
//
//	go run ./examples/threads -jobs 2 -count 10000000
//
// Each job makes its own list. Goroutines use all the cores, so that two jobs take little longer
// than one. The lists grow in one heap, though, with one garbage collector: compare the times with
// those of ../processes, which differs in the lines of run alone.
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
	threads := multiproc.NewThreads(multiproc.ThreadsConfig{Workers: jobs})
	defer threads.Close()

	var started []*multiproc.Future[int]
	for id := range jobs {
		started = append(started, listAppend.Go(ctx, threads, job{count, id}))
	}
	for _, j := range started {
		if _, err := j.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

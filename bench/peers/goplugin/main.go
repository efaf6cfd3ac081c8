// Program goplugin does the jobs of the benchmark by hashicorp/go-plugin: over net/rpc and over gRPC.
//
//	goplugin versions
//	goplugin rate|latency|payload N netrpc|grpc
//
// It prints one JSON object of figures: times in seconds, rates a second. Everything is warm before the
// clock runs.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/seed84f35039/multiproc/bench/peers/life"
)

// worker is what a plugin does, in another process.
type worker interface {
	Square(x int64) (int64, error)
	Echo(b []byte) ([]byte, error)
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == asPlugin {
		servePlugin()
		return
	}
	life.Main(do)
}

func do(args []string) (any, error) {
	if slices.Equal(args, []string{"versions"}) {
		return life.Versions(map[string]string{"github.com/hashicorp/go-plugin": "go-plugin", "google.golang.org/grpc": "grpc"})
	}
	jobs := map[string]func(n int, protocol string) (life.Figures, error){"rate": rate, "latency": latency, "payload": payload}
	if len(args) != 3 || jobs[args[0]] == nil {
		return nil, errors.New("usage: goplugin versions, or goplugin rate|latency|payload N netrpc|grpc")
	}
	n, err := strconv.Atoi(args[1])
	if err != nil || n < 1 {
		return nil, fmt.Errorf("%q is not how much there is to do", args[1])
	}
	return jobs[args[0]](n, args[2])
}

// How much goes on at once in rate.
const (
	workers  = 2
	underWay = 16 // calls of each worker
)

func rate(n int, protocol string) (life.Figures, error) {
	var all []worker
	for range workers {
		w, stop, err := startPlugin(protocol)
		if err != nil {
			return nil, err
		}
		defer stop()
		all = append(all, w)
	}
	job := func(n int) error {
		errs := make([]error, workers*underWay)
		var wg sync.WaitGroup
		for c := range errs {
			wg.Go(func() {
				for i := c; i < n && errs[c] == nil; i += len(errs) {
					errs[c] = square(all[c%workers], i)
				}
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	}
	if err := job(n/10 + 1); err != nil {
		return nil, err
	}
	began := time.Now()
	err := job(n)
	return life.Figures{"rate": float64(n) / time.Since(began).Seconds()}, err
}

func square(w worker, i int) error {
	x, err := w.Square(int64(i))
	if err == nil && x != int64(i)*int64(i) {
		err = fmt.Errorf("the square of %d came out as %d", i, x)
	}
	return err
}

func latency(n int, protocol string) (life.Figures, error) {
	w, stop, err := startPlugin(protocol)
	if err != nil {
		return nil, err
	}
	defer stop()
	return life.Latencies(n, func(i int) error { return square(w, i) })
}

func payload(size int, protocol string) (life.Figures, error) {
	w, stop, err := startPlugin(protocol)
	if err != nil {
		return nil, err
	}
	defer stop()
	in := bytes.Repeat([]byte{1}, size)
	var took []time.Duration
	for i := range 4 {
		began := time.Now()
		out, err := w.Echo(in)
		if err == nil && len(out) != len(in) {
			err = fmt.Errorf("%d bytes came back as %d", len(in), len(out))
		}
		if err != nil {
			return nil, err
		}
		if i > 0 {
			took = append(took, time.Since(began))
		}
	}
	slices.Sort(took)
	return life.Figures{"seconds": took[len(took)/2].Seconds()}, nil
}

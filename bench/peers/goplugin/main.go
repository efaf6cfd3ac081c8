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
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// worker is what a plugin does, in another process.
type worker interface {
	Square(x int64) (int64, error)
	Echo(b []byte) ([]byte, error)
}

type figures map[string]float64

func main() {
	if len(os.Args) == 2 && os.Args[1] == asPlugin {
		servePlugin()
		return
	}
	result, err := do(os.Args[1:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "goplugin:", err)
		os.Exit(1)
	}
}

func do(args []string) (any, error) {
	if slices.Equal(args, []string{"versions"}) {
		return versions()
	}
	jobs := map[string]func(n int, protocol string) (figures, error){"rate": rate, "latency": latency, "payload": payload}
	if len(args) != 3 || jobs[args[0]] == nil {
		return nil, errors.New("usage: goplugin versions, or goplugin rate|latency|payload N netrpc|grpc")
	}
	n, err := strconv.Atoi(args[1])
	if err != nil || n < 1 {
		return nil, fmt.Errorf("%q is not how much there is to do", args[1])
	}
	go dieWithParent() // ends with the program
	return jobs[args[0]](n, args[2])
}

// dieWithParent ends this process, and the plugins in its group, when the program that started it is
// gone: descriptor 3 is a pipe that ends then. By hand there is none.
func dieWithParent() {
	var none [1]byte
	if n, err := syscall.Read(3, none[:]); n == 0 && err == nil {
		syscall.Kill(0, syscall.SIGKILL)
	}
}

// How much goes on at once in rate.
const (
	workers  = 2
	underWay = 16 // calls of each worker
)

func rate(n int, protocol string) (figures, error) {
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
	return figures{"rate": float64(n) / time.Since(began).Seconds()}, err
}

func square(w worker, i int) error {
	x, err := w.Square(int64(i))
	if err == nil && x != int64(i)*int64(i) {
		err = fmt.Errorf("the square of %d came out as %d", i, x)
	}
	return err
}

// callsTime bounds how long latency measures, as on the other side.
const callsTime = 8 * time.Second

func latency(n int, protocol string) (figures, error) {
	w, stop, err := startPlugin(protocol)
	if err != nil {
		return nil, err
	}
	defer stop()
	warm := n/10 + 1
	took := make([]time.Duration, 0, n)
	end := time.Now().Add(callsTime)
	for i := range warm + n {
		began := time.Now()
		if err := square(w, i); err != nil {
			return nil, err
		}
		now := time.Now()
		if i >= warm {
			took = append(took, now.Sub(began))
		}
		if now.After(end) && len(took) > 0 {
			break
		}
	}
	slices.Sort(took)
	return figures{"p50": took[len(took)/2].Seconds(), "p99": took[len(took)*99/100].Seconds()}, nil
}

func payload(size int, protocol string) (figures, error) {
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
	return figures{"seconds": took[len(took)/2].Seconds()}, nil
}

func versions() (map[string]string, error) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil, errors.New("the program does not know what it was built from")
	}
	names := map[string]string{"github.com/hashicorp/go-plugin": "go-plugin", "google.golang.org/grpc": "grpc"}
	found := map[string]string{}
	for _, m := range info.Deps {
		if name := names[m.Path]; name != "" {
			found[name] = m.Version
		}
	}
	return found, nil
}

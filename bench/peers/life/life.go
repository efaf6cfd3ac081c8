// Package life is what programs that the benchmark starts have in common.
package life

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"syscall"
	"time"
)

// Figures are what a program measured: times in seconds, rates a second.
type Figures map[string]float64

// Main does what the arguments say, prints the result as JSON and ends the program.
func Main(do func(args []string) (any, error)) {
	// ends with the program
	go dieWithParent()
	result, err := do(os.Args[1:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, os.Args[0]+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// dieWithParent ends this process, and those in its group, when the program that started it is
// gone: descriptor 3 is a pipe that ends then. By hand there is none.
func dieWithParent() {
	var none [1]byte
	if n, err := syscall.Read(3, none[:]); n == 0 && err == nil {
		syscall.Kill(0, syscall.SIGKILL)
	}
}

// callsTime bounds how long Latencies measures, as on the other side.
const callsTime = 8 * time.Second

// Latencies makes n calls one after the other, and a tenth more before, and returns how long the
// middle one took and one in a hundred.
func Latencies(n int, call func(i int) error) (Figures, error) {
	warm := n/10 + 1
	took := make([]time.Duration, 0, n)
	end := time.Now().Add(callsTime)
	for i := range warm + n {
		began := time.Now()
		if err := call(i); err != nil {
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
	return Figures{"p50": took[len(took)/2].Seconds(), "p99": took[len(took)*99/100].Seconds()}, nil
}

// Rate does a job of n calls a few times, and once before, and returns how many there are a second.
func Rate(n int, job func() error) (Figures, error) {
	const times = 3
	var began time.Time
	for i := range 1 + times {
		if i == 1 {
			began = time.Now()
		}
		if err := job(); err != nil {
			return nil, err
		}
	}
	return Figures{"rate": float64(times*n) / time.Since(began).Seconds()}, nil
}

// Versions returns those of modules in this program, under the names that are given for their paths.
func Versions(names map[string]string) (map[string]string, error) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil, errors.New("the program does not know what it was built from")
	}
	found := map[string]string{}
	for _, m := range info.Deps {
		if name := names[m.Path]; name != "" {
			found[name] = m.Version
		}
	}
	return found, nil
}

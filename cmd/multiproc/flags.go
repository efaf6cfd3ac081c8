package main

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// scaleFlags are the flags of scale as they were given.
type scaleFlags struct {
	size    int // 0: the workload's
	sizeSet bool
	kinds   string
	workers string
	runs    int
	json    bool
	python  bool
}

// plan is what scale is to measure.
type plan struct {
	workload workload
	size     int
	kinds    []string
	widths   []int
	runs     int
}

// plan checks the flags and the arguments, and tells everything that is wrong with them.
func (f scaleFlags) plan(args []string) (plan, error) {
	p := plan{workload: workloads[0], runs: f.runs}
	var errs []error
	fault := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	switch {
	case len(args) > 1:
		fault(fmt.Errorf("one workload at a time, not %d: %s", len(args), strings.Join(args, ", ")))
	case len(args) == 1:
		if p.workload, err = findWorkload(args[0]); err != nil {
			fault(fmt.Errorf("%w; there are %s", err, workloadNames()))
		}
	}
	p.size = p.workload.size
	if f.sizeSet {
		if p.size = f.size; p.size < 1 {
			fault(fmt.Errorf("--size is %d, want at least 1", p.size))
		}
	}
	p.kinds, err = parseKinds(f.kinds)
	fault(err)
	p.widths, err = parseWidths(f.workers)
	fault(err)
	if p.runs < 1 {
		fault(fmt.Errorf("--runs is %d, want at least 1", p.runs))
	}
	return p, errors.Join(errs...)
}

func workloadNames() string {
	var names []string
	for _, w := range workloads {
		names = append(names, w.name)
	}
	return strings.Join(names, ", ")
}

// parseKinds parses a list of kinds with commas between them.
func parseKinds(list string) ([]string, error) {
	var out []string
	for field := range strings.SplitSeq(list, ",") {
		kind := strings.TrimSpace(field)
		if !slices.Contains(kinds, kind) {
			return nil, fmt.Errorf("--kind: unknown kind %q; there are %s", kind, strings.Join(kinds, ", "))
		}
		if slices.Contains(out, kind) {
			return nil, fmt.Errorf("--kind: %s is there twice", kind)
		}
		out = append(out, kind)
	}
	return out, nil
}

// parseWidths parses a list of numbers of workers with commas between them.
func parseWidths(list string) ([]int, error) {
	var out []int
	for field := range strings.SplitSeq(list, ",") {
		field = strings.TrimSpace(field)
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("--workers: %q is not a number of workers, which is 1 or more", field)
		}
		if slices.Contains(out, n) {
			return nil, fmt.Errorf("--workers: %d is there twice", n)
		}
		out = append(out, n)
	}
	return out, nil
}

// defaultWidths returns the powers of two up to the number of CPUs, and up to 4 in any case: what
// more workers than CPUs do is worth a look.
func defaultWidths() string {
	var widths []string
	for n := 1; n <= max(4, runtime.GOMAXPROCS(0)); n *= 2 {
		widths = append(widths, strconv.Itoa(n))
	}
	return strings.Join(widths, ",")
}

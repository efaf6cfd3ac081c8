package scale

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// machine is where the reports of the tests say they come from.
var machine = Machine{
	CPUs: 4, GOMAXPROCS: 4, CPUModel: "Example CPU 3000", OS: "linux", Arch: "amd64", GoVersion: "go1.26.0",
}

// row is a case and the real times in milliseconds of its runs, of which 90 % are user time and 10 %
// system time.
func row(kind string, workers int, milliseconds ...float64) Row {
	r := Row{Kind: kind, Workers: workers, Baseline: Sequential}
	for _, ms := range milliseconds {
		d := time.Duration(ms * float64(time.Millisecond))
		r.Samples = append(r.Samples, Sample{d, d * 9 / 10, d / 10, int64(workers) * 10 << 20})
	}
	return r
}

func (r Row) against(baseline string) Row {
	r.Baseline = baseline
	return r
}

func reportOf(rows ...Row) *Report {
	r := &Report{Workload: "primes", Size: "1 to 2000000", Machine: machine}
	r.evaluate(rows)
	return r
}

// sequence is a Run that costs the given real times, one after the other, and counts its calls.
func sequence(times ...time.Duration) func(context.Context) (Sample, error) {
	calls := 0
	return func(context.Context) (Sample, error) {
		calls++
		return Sample{Real: times[(calls-1)%len(times)]}, nil
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func table(t *testing.T, r *Report) string {
	t.Helper()
	var b strings.Builder
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if got == want { // also both infinite
		return
	}
	if d := got - want; !(d < 1e-12 && d > -1e-12) {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

func (r *Report) find(t *testing.T, kind string, workers int) Row {
	t.Helper()
	for _, row := range r.Rows {
		if row.Kind == kind && row.Workers == workers {
			return row
		}
	}
	t.Fatalf("no row %s ×%d", kind, workers)
	return Row{}
}

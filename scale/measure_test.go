package scale

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// recorder makes cases that note who ran.
type recorder struct{ ran []string }

func (rec *recorder) at(kind string, workers int) Case {
	return Case{Kind: kind, Workers: workers, Run: func(context.Context) (Sample, error) {
		rec.ran = append(rec.ran, fmt.Sprintf("%s%d", kind, workers))
		return Sample{Real: time.Second}, nil
	}}
}

func TestRoundsInterleave(t *testing.T) {
	var rec recorder
	cases := []Case{rec.at(Sequential, 1), rec.at("a", 2), rec.at("a", 4), rec.at("b", 2)}
	r, err := Measure(t.Context(), cases, Options{Runs: 4})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(`
		sequential1 a2 a4 b2
		a2 sequential1 b2 a4
		a4 b2 sequential1 a2
		b2 a4 a2 sequential1`)
	if !slices.Equal(rec.ran, want) {
		t.Errorf("ran\n%v\nwant\n%v", rec.ran, want)
	}
	for _, row := range r.Rows {
		if len(row.Samples) != 4 {
			t.Errorf("%s has %d samples, want 4", row.label(), len(row.Samples))
		}
	}
	if r.Interrupted {
		t.Error("Interrupted")
	}
}

func TestOrderIsBalanced(t *testing.T) {
	for n := 1; n <= 9; n++ {
		at := make([][]int, n) // case, position → how often
		for i := range at {
			at[i] = make([]int, n)
		}
		for round := -n; round < n; round++ {
			for position, i := range order(round, n) {
				at[i][position]++
			}
		}
		for i := range at {
			for position, times := range at[i] {
				if times != 2 {
					t.Errorf("%d cases, %d rounds: case %d is %d times at position %d, want 2",
						n, 2*n, i, times, position)
				}
			}
		}
	}
}

func TestWarmupAndProgress(t *testing.T) {
	var steps []Step
	r, err := Measure(t.Context(), []Case{
		{Kind: Sequential, Workers: 1, Run: sequence(9, 8, 1, 2)},
		{Kind: "threads", Workers: 2, Run: sequence(9, 8, 3, 4)},
	}, Options{Runs: 2, Warmup: 2, Progress: func(s Step) { steps = append(steps, s) }})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := r.find(t, "threads", 2).Samples, []Sample{{Real: 3}, {Real: 4}}; !slices.Equal(got, want) {
		t.Errorf("samples %v, want %v: the warm-up counts", got, want)
	}
	if len(steps) != 8 {
		t.Fatalf("%d steps, want 8", len(steps))
	}
	for i, s := range steps {
		if wantRound := max(i/2-1, 0); s.Round != wantRound || s.Done != i+1 || s.Total != 8 {
			t.Errorf("step %d is %+v, want round %d", i, s, wantRound)
		}
	}
	if last := (Step{"threads", 2, 2, 7, 8, Sample{Real: 4}}); !slices.Contains(steps[6:], last) {
		t.Errorf("last round %+v lacks %+v", steps[6:], last)
	}
}

func TestRowsAreGroupedByKindAndSorted(t *testing.T) {
	var rec recorder
	r, err := Measure(t.Context(), []Case{
		rec.at("pool", 4), rec.at(Sequential, 1), rec.at("threads", 2), rec.at("pool", 2), rec.at("threads", 1),
	}, Options{Runs: 1})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range r.Rows {
		got = append(got, row.label())
	}
	want := []string{"pool ×2", "pool ×4", "sequential ×1", "threads ×1", "threads ×2"}
	if !slices.Equal(got, want) {
		t.Errorf("rows %q, want %q", got, want)
	}
}

func TestInterruptionKeepsWhatWasMeasured(t *testing.T) {
	stop := errors.New("stop key")
	for _, tt := range []struct {
		name string
		last error // what the run in which ctx ends returns
		runs int   // of the interrupted case that count
	}{
		{"run finishes", nil, 1},
		{"run notices", context.Canceled, 0},
		{"run says something else", errors.New("signal: killed"), 0},
		{"run returns the cause", fmt.Errorf("gave up: %w", stop), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			var rec recorder
			r, err := Measure(ctx, []Case{
				rec.at(Sequential, 1),
				{Kind: "pool", Workers: 2, Run: func(context.Context) (Sample, error) {
					cancel(stop)
					return Sample{Real: time.Second}, tt.last
				}},
				rec.at("pool", 4),
			}, Options{Runs: 3})
			if !errors.Is(err, stop) || tt.last != nil && !errors.Is(err, tt.last) {
				t.Errorf("error %v does not wrap the cause and the run's error", err)
			}
			if err != nil && strings.Count(err.Error(), stop.Error()) != 1 {
				t.Errorf("error %q, want the cause in it once", err)
			}
			if !r.Interrupted || len(rec.ran) != 1 || len(r.Rows) != 1+tt.runs {
				t.Errorf("Interrupted %v, rows %+v, ran on %v", r.Interrupted, r.Rows, rec.ran)
			}
			if out := table(t, r); !strings.Contains(out, "interrupted") {
				t.Errorf("the table does not tell:\n%s", out)
			}
		})
	}
}

func TestEndedContextMeasuresNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var rec recorder
	r, err := Measure(ctx, []Case{rec.at(Sequential, 1)}, Options{Runs: 1, Workload: "w"})
	if !errors.Is(err, context.Canceled) || len(rec.ran) != 0 {
		t.Errorf("error %v, ran %v", err, rec.ran)
	}
	if out := table(t, r); !strings.Contains(out, "nothing measured") {
		t.Errorf("table:\n%s", out)
	}
}

func TestFailureStops(t *testing.T) {
	broken := errors.New("exit status 3")
	calls := 0
	var rec recorder
	r, err := Measure(t.Context(), []Case{
		rec.at(Sequential, 1),
		{Kind: "process", Workers: 2, Run: func(context.Context) (Sample, error) {
			if calls++; calls == 2 {
				return Sample{}, broken
			}
			return Sample{Real: time.Second}, nil
		}},
	}, Options{Runs: 5})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "process ×2, round 2") {
		t.Errorf("error %v", err)
	}
	if !r.Interrupted || len(r.Rows) != 2 || calls != 2 {
		t.Errorf("Interrupted %v, %d rows, %d calls", r.Interrupted, len(r.Rows), calls)
	}
}

func TestNegativeCostIsRefused(t *testing.T) {
	_, err := Measure(t.Context(), []Case{{Kind: Sequential, Workers: 1, Run: sequence(-1)}}, Options{Runs: 1})
	if err == nil || !strings.Contains(err.Error(), "sequential ×1") || !strings.Contains(err.Error(), "negative") {
		t.Errorf("error %v", err)
	}
}

func TestEveryFaultAtOnce(t *testing.T) {
	var rec recorder
	bad := []Case{
		rec.at("pool", 0),
		rec.at("pool", 2),
		rec.at("pool", 2),
		{Kind: "pool", Workers: 4},
		rec.at("", 1),
		rec.at("a\nb", 1),
		{Kind: "python threads", Workers: 2, Baseline: "python", Run: sequence(1)},
		{Kind: "python threads", Workers: 4, Run: sequence(1)},
	}
	r, err := Measure(t.Context(), bad, Options{Warmup: -1, Size: "\x1b[2J", Workload: "\xff"})
	if r != nil || err == nil {
		t.Fatalf("report %v, error %v", r, err)
	}
	for _, want := range []string{
		"Runs is 0", "Warmup is -1", `Size "\x1b[2J"`, `Workload "\xff"`,
		"case 0 (pool) has 0 Workers", "cases 1 and 2 are both pool ×2", "case 3 (pool ×4) has no Run",
		"case 4 has no Kind", `Kind "a\nb"`, `baseline "python", of which no case has 1 worker`,
		`case 7 (python threads ×4) has the baseline "sequential", others of its kind have "python"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
	if _, err := Measure(t.Context(), nil, Options{Runs: 1}); err == nil || err.Error() != "scale: no cases" {
		t.Errorf("error %v", err)
	}
	if len(rec.ran) != 0 {
		t.Errorf("ran %v", rec.ran)
	}
}

func TestMachineIsThisOne(t *testing.T) {
	m := thisMachine()
	if m.CPUs < 1 || m.GOMAXPROCS < 1 || m.OS == "" || m.Arch == "" || m.GoVersion == "" {
		t.Errorf("got %+v", m)
	}
	const x86 = "processor\t: 0\nmodel\t\t: 85\nmodel name\t: Example  CPU @ 2.0GHz\nprocessor\t: 1\nmodel name\t: other\n"
	if got := cpuModel(strings.NewReader(x86)); got != "Example CPU @ 2.0GHz" {
		t.Errorf("model %q", got)
	}
	if got := cpuModel(strings.NewReader("processor\t: 0\nBogoMIPS\t: 50\n")); got != "" {
		t.Errorf("model %q, want none", got)
	}
}

func TestMeasureReportsOptions(t *testing.T) {
	r, err := Measure(t.Context(), []Case{{Kind: Sequential, Workers: 1, Run: sequence(5)}},
		Options{Runs: 2, Workload: "primes", Size: "10"})
	if err != nil {
		t.Fatal(err)
	}
	want := Report{Workload: "primes", Size: "10", Machine: thisMachine(), Rows: []Row{{
		Kind: Sequential, Workers: 1, Baseline: Sequential, Real: 5, RealMin: 5, RealMax: 5, SpeedUp: 1,
		Efficiency: 1, Samples: []Sample{{Real: 5}, {Real: 5}},
	}}}
	if !reflect.DeepEqual(*r, want) {
		t.Errorf("got %+v\nwant %+v", *r, want)
	}
}

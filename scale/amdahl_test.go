package scale

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAmdahl(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	for _, tt := range []struct {
		s    float64
		n    int
		want float64
	}{
		{0, 8, 8},
		{1, 8, 1},
		{0.1, 1, 1},
		{0.5, 2, 1 / 0.75},
		{0.1, 10, 1 / 0.19},
		{-0.1, 2, 1 / 0.45},
		{-0.1, 11, inf}, // the pole
		{-0.1, 50, inf}, // beyond it
		{2, 4, 1 / 1.75},
		{0.1, 0, nan},
	} {
		got := Amdahl(tt.s, tt.n)
		if math.IsNaN(tt.want) != math.IsNaN(got) {
			t.Errorf("Amdahl(%v, %d) = %v, want %v", tt.s, tt.n, got, tt.want)
		} else if !math.IsNaN(got) {
			near(t, "Amdahl", got, tt.want)
		}
	}
}

func TestKarpFlattInvertsAmdahl(t *testing.T) {
	for _, s := range []float64{-0.2, 0, 0.05, 0.1, 0.5, 1, 1.5} {
		for _, n := range []int{2, 3, 4} {
			near(t, "KarpFlatt", KarpFlatt(Amdahl(s, n), n), s)
		}
	}
	for _, got := range []float64{KarpFlatt(1, 1), KarpFlatt(0, 2), KarpFlatt(-1, 2), KarpFlatt(math.NaN(), 2)} {
		if !math.IsNaN(got) {
			t.Errorf("KarpFlatt of nonsense = %v, want NaN", got)
		}
	}
}

func TestCeiling(t *testing.T) {
	for s, want := range map[float64]float64{-1: math.Inf(1), 0: math.Inf(1), 0.25: 4, 1: 1, 3: 1} {
		near(t, "Ceiling", Ceiling(s), want)
	}
}

func TestSerialFractionOfRows(t *testing.T) {
	for _, tt := range []struct {
		name             string
		sequential, four float64 // ms
		e, ceiling       float64
	}{
		{"perfect", 400, 100, 0, math.Inf(1)},
		{"no gain", 400, 400, 1, 1},
		{"half serial", 400, 250, 0.5, 2},
		{"superlinear", 400, 80, (0.2 - 0.25) / 0.75, math.Inf(1)},
		{"slower", 400, 700, 2, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := reportOf(row(Sequential, 1, tt.sequential), row("threads", 4, tt.four))
			got := r.find(t, "threads", 4)
			near(t, "serial fraction", got.SerialFraction, tt.e)
			near(t, "ceiling", got.Ceiling, tt.ceiling)
			near(t, "speed-up", got.SpeedUp, tt.sequential/tt.four)
			near(t, "efficiency", got.Efficiency, tt.sequential/tt.four/4)
			// A fit of one point is that point's serial fraction.
			near(t, "fit", r.Fits()[0].SerialFraction, tt.e)
			near(t, "fit's ceiling", r.Fits()[0].Ceiling, tt.ceiling)
		})
	}
}

func TestFitRecoversCurve(t *testing.T) {
	for _, s := range []float64{-0.05, 0, 0.1, 0.7, 1.2} {
		widths := []int{2, 3, 4, 8, 16}
		var speedUps []float64
		for _, n := range widths {
			speedUps = append(speedUps, Amdahl(s, n))
		}
		near(t, "fit", fitAmdahl(widths, speedUps), s)
	}
	// Whole times on the curve of s = 0.1: T(n) = 100 + 900/n ms.
	r := reportOf(row(Sequential, 1, 1000), row("pool", 1, 1000), row("pool", 2, 550), row("pool", 3, 400),
		row("pool", 9, 200))
	if len(r.Fits()) != 1 || r.Fits()[0].Kind != "pool" || len(r.Fits()[0].Widths) != 3 {
		t.Fatalf("fits = %+v, want one, of pool, on 3 widths", r.Fits())
	}
	near(t, "serial fraction", r.Fits()[0].SerialFraction, 0.1)
	near(t, "ceiling", r.Fits()[0].Ceiling, 10)
}

// The closed form must be the minimum: the squared distance grows on both sides of it.
func TestFitIsLeastSquares(t *testing.T) {
	widths, speedUps := []int{2, 4, 8}, []float64{1.7, 3.4, 4.1}
	distance := func(s float64) float64 {
		var sum float64
		for i, n := range widths {
			d := 1/speedUps[i] - 1/Amdahl(s, n)
			sum += d * d
		}
		return sum
	}
	s := fitAmdahl(widths, speedUps)
	for _, step := range []float64{1e-4, 1e-2, 1} {
		if distance(s-step) <= distance(s) || distance(s+step) <= distance(s) {
			t.Errorf("s = %v is not the minimum at step %v", s, step)
		}
	}
}

func TestFitLeavesOutWhatLackedCPUs(t *testing.T) {
	r := reportOf(row(Sequential, 1, 1000), row("busy", 2, 550), row("busy", 8, 260), row("waiting", 2, 550),
		row("waiting", 8, 200), row("only busy", 8, 260))
	for i := range r.Rows { // busy uses all of 4 CPUs, waiting one of them
		if row := &r.Rows[i]; strings.HasSuffix(row.Kind, "busy") {
			row.User, row.Sys = time.Second, 0
		}
	}
	want := map[string][]int{"busy": {2}, "waiting": {2, 8}}
	fits := r.Fits()
	if len(fits) != len(want) {
		t.Errorf("fits %+v, want of %v", fits, want)
	}
	for _, fit := range fits {
		if !slices.Equal(fit.Widths, want[fit.Kind]) {
			t.Errorf("%s rests on %v, want %v", fit.Kind, fit.Widths, want[fit.Kind])
		}
	}
	near(t, "serial fraction of busy", fits[0].SerialFraction, 0.1)
	if out := table(t, r); !strings.Contains(out, "predicted 1.82× at 2, 4.71× at 8") {
		t.Errorf("no prediction for the width left out:\n%s", out)
	}
	r.Machine.CPUs, r.Machine.GOMAXPROCS = 8, 8
	if got := r.Fits()[0].Widths; len(got) != 2 {
		t.Errorf("on 8 CPUs busy rests on %v, want both widths", got)
	}
}

func TestEachKindHasItsBaseline(t *testing.T) {
	r := reportOf(
		row(Sequential, 1, 100),
		row("threads", 2, 50),
		row("python", 1, 3000).against("python"),
		row("python threads", 2, 3000).against("python"),
	)
	near(t, "threads", r.find(t, "threads", 2).SpeedUp, 2)
	near(t, "python", r.find(t, "python", 1).SpeedUp, 1)
	near(t, "python threads", r.find(t, "python threads", 2).SpeedUp, 1)
}

package scale

import (
	"testing"
	"time"
)

func TestMedianAndMAD(t *testing.T) {
	for _, tt := range []struct {
		xs          []time.Duration
		median, mad time.Duration
	}{
		{[]time.Duration{7}, 7, 0},
		{[]time.Duration{4, 2}, 3, 1},
		{[]time.Duration{9, 1, 5}, 5, 4},
		{[]time.Duration{8, 2, 6, 4}, 5, 2},
		{[]time.Duration{1, 1, 1, 1, 1000}, 1, 0}, // one disturbed run moves neither
		{[]time.Duration{1<<63 - 1, 1<<63 - 3}, 1<<63 - 2, 1},
	} {
		before := append([]time.Duration{}, tt.xs...)
		if got := median(tt.xs); got != tt.median {
			t.Errorf("median(%d) = %d, want %d", tt.xs, got, tt.median)
		}
		if got := mad(tt.xs); got != tt.mad {
			t.Errorf("mad(%d) = %d, want %d", tt.xs, got, tt.mad)
		}
		for i := range before {
			if tt.xs[i] != before[i] {
				t.Fatalf("the samples were reordered: %d, were %d", tt.xs, before)
			}
		}
	}
}

func TestRowIsMadeOfMedians(t *testing.T) {
	r := reportOf(row(Sequential, 1, 100, 300, 200, 1000), row("pool", 2, 100))
	s := r.find(t, Sequential, 1)
	ms := time.Millisecond
	if s.Real != 250*ms || s.RealMin != 100*ms || s.RealMax != 1000*ms || s.RealMAD != 100*ms ||
		s.User != 225*ms || s.Sys != 25*ms || s.PeakMemory != 10<<20 {
		t.Errorf("got %+v", s)
	}
	p := r.find(t, "pool", 2)
	near(t, "speed-up", p.SpeedUp, 2.5)
	near(t, "efficiency", p.Efficiency, 1.25)
}

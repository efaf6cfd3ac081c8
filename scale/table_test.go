package scale

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// sampleReport has a bit of everything: two baselines, a superlinear kind, one that only loses, noise,
// unequal runs.
func sampleReport() *Report {
	r := reportOf(
		row(Sequential, 1, 2003, 1998, 2010),
		row("threads", 1, 2005, 2004, 2011),
		row("threads", 2, 1099, 1101, 1095),
		row("threads", 4, 600, 585, 615),
		row("threads", 8, 590, 595, 615),
		row("process", 2, 990, 995, 991),
		row("process", 4, 480, 485, 483),
		row("pool", 2, 1200, 1500, 900),
		row("pool", 4, 2500, 2600),
		row("python", 1, 31003, 30998, 31010).against("python"),
		row("python threads", 4, 30100, 30200, 30300).against("python"),
	)
	for _, row := range r.Rows { // they compute, so processor time is the same at every width
		for i := range row.Samples {
			row.Samples[i].User, row.Samples[i].Sys = 1838*time.Millisecond, 161*time.Millisecond
			if strings.HasPrefix(row.Kind, "python") {
				row.Samples[i].User = 29838 * time.Millisecond
			}
		}
	}
	r.evaluate(r.Rows)
	return r
}

func TestTable(t *testing.T) {
	out := table(t, sampleReport())
	golden(t, "table.txt", []byte(out))
	for line := range strings.Lines(out) {
		line = strings.TrimSuffix(line, "\n")
		if n := utf8.RuneCountInString(line); n > lineWidth {
			t.Errorf("%d columns: %s", n, line)
		}
		if strings.TrimRight(line, " ") != line {
			t.Errorf("blanks at the end of %q", line)
		}
	}
}

func TestTableUnit(t *testing.T) {
	for _, tt := range []struct {
		ms   float64
		want string
	}{
		{12_345, "12.345"}, {100, "0.100"}, {99.5, "99.500"}, {0.1, "0.100"}, {0.0995, "99.500"}, {0, "0.000"},
	} {
		out := table(t, reportOf(row(Sequential, 1, tt.ms)))
		if !strings.Contains(out, " "+tt.want+" ") {
			t.Errorf("%v ms: no %s in\n%s", tt.ms, tt.want, out)
		}
	}
}

func TestZeroTimesShowNoInfinity(t *testing.T) {
	out := table(t, reportOf(row(Sequential, 1, 0), row("pool", 2, 0), row("pool", 4, 1)))
	for _, bad := range []string{"NaN", "Inf"} {
		if strings.Contains(out, bad) {
			t.Errorf("%s in\n%s", bad, out)
		}
	}
}

func TestFitSentence(t *testing.T) {
	for _, tt := range []struct {
		s    float64
		want string
	}{
		{0.09, "k: serial fraction 0.090 → at most 11.1× however many workers; predicted 1.83× at 2, 3.15× at 4"},
		{0, "k: serial fraction 0.000 → perfect, no ceiling; predicted 2.00× at 2, 4.00× at 4"},
		{1e-4, "k: serial fraction 1e-04 → at most 1e+04× however many workers; predicted 2.00× at 2, 4.00× at 4"},
		{-2e-4, "k: serial fraction -2e-04 → superlinear, no ceiling; predicted 2.00× at 2, 4.00× at 4"},
		{-0.5, "k: serial fraction -0.500 → superlinear, no ceiling; predicted 4.00× at 2, anything at 4"},
		{1.5, "k: serial fraction 1.500 → never faster than its baseline; predicted 0.80× at 2, 0.73× at 4"},
	} {
		if got := (Fit{"k", tt.s, Ceiling(tt.s), nil}).sentence([]int{2, 4}); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

type brokenWriter struct{}

var errDisk = errors.New("disk full")

func (brokenWriter) Write([]byte) (int, error) { return 0, errDisk }

func TestWriteErrorsArePassedOn(t *testing.T) {
	r := sampleReport()
	if err := r.WriteTable(brokenWriter{}); !errors.Is(err, errDisk) {
		t.Errorf("WriteTable: %v", err)
	}
	if err := r.WriteJSON(brokenWriter{}); !errors.Is(err, errDisk) {
		t.Errorf("WriteJSON: %v", err)
	}
}

func TestWideTableMovesTogether(t *testing.T) {
	for kind, gap := range map[string]string{"pool": "  ", "python interpreters": " "} {
		out := table(t, reportOf(row(kind, 1, 10_000).against(kind)))
		if want := "workers" + gap + "  real" + gap; !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
		for line := range strings.Lines(out) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > lineWidth {
				t.Errorf("%d columns: %s", n, line)
			}
		}
	}
}

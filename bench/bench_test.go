package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   spread
		ok     bool
	}{
		{nil, spread{}, false},
		{[]float64{3}, spread{3, 3, 3}, true},
		{[]float64{9, 1, 2}, spread{2, 1, 9}, true},
		{[]float64{4, 1, 9, 2}, spread{3, 1, 9}, true},
	} {
		before := slices.Clone(test.values)
		if got, ok := spreadOf(test.values); got != test.want || ok != test.ok {
			t.Errorf("%v: got %v, %t; want %v, %t", test.values, got, ok, test.want, test.ok)
		}
		if !slices.Equal(test.values, before) {
			t.Errorf("%v became %v", before, test.values)
		}
	}
}

func TestPercentiles(t *testing.T) {
	took := make([]time.Duration, 0, 200)
	for i := range 200 {
		took = append(took, time.Duration(200-i)*time.Second)
	}
	if diff := cmp.Diff(figures{"p50": 101, "p99": 199}, percentiles(took)); diff != "" {
		t.Error(diff)
	}
	if got := percentile([]int{7}, 0.99); got != 7 {
		t.Errorf("of one value: got %d", got)
	}
}

func TestDigits(t *testing.T) {
	for x, want := range map[float64]string{
		0: "0", 0.0012345: "0.00123", 1: "1", 9.999: "10", 12.345: "12.3", 456.7: "457", 1234.5: "1234", 1e6: "1000000", -3.21987: "-3.22",
	} {
		if got := digits(x); got != want {
			t.Errorf("%v: got %s, want %s", x, got, want)
		}
	}
}

// sample is a row of three contenders in three rounds, one of which was disturbed, and one in which
// the peer failed.
func sample() *result {
	return &result{
		row: row{
			name: "x", title: "a title", about: "About it.",
			metrics:    []metric{{key: "seconds", title: "ms", unit: 1e-3}, {key: "p99", title: "p99, µs", unit: 1e-6}},
			contenders: []contender{{name: "we", group: ours}, {name: "they", group: peer}, {name: "c", group: limit}, {name: "gone", group: peer}, {name: "gone too", group: peer}},
			goals: []goal{
				{text: "at most 3 ms", of: figure{"we", "seconds"}, most: 3e-3},
				{text: "at most 1 ms", of: figure{"we", "seconds"}, most: 1e-3},
				{text: "they ≥ 4×", of: figure{"they", "seconds"}, per: figure{"we", "seconds"}, least: 4},
				{text: "they ≥ 10×", of: figure{"they", "seconds"}, per: figure{"we", "seconds"}, least: 10},
				{text: "p99", of: figure{"we", "p99"}, per: figure{"gone", "p99"}, most: 1},
			},
		},
		rounds: []map[string]figures{
			{"we": {"seconds": 2e-3}, "they": {"seconds": 10e-3}, "c": {"seconds": 1e-3}},
			{"we": {"seconds": 20e-3}, "they": {"seconds": 100e-3}, "c": {"seconds": 10e-3}},
			{"we": {"seconds": 1e-3}, "c": {"seconds": 1e-3}},
		},
		failed: map[string]error{"they": errors.New("exit status 1:\na"), "gone": missing("not here; get it"), "gone too": missing("not here; get it")},
	}
}

func TestRatiosAreWithinRounds(t *testing.T) {
	got := sample().ratios(figure{"they", "seconds"}, figure{"we", "seconds"})
	if diff := cmp.Diff([]float64{5, 5}, got); diff != "" {
		t.Error(diff)
	}
}

func TestJudge(t *testing.T) {
	r := sample()
	var got []verdict
	for _, g := range r.row.goals {
		got = append(got, r.judge(g))
	}
	want := []verdict{
		{"2 [1..20]", "met"},
		{"2 [1..20]", "missed: 2× the goal"},
		{"5× [5..5]", "met"},
		{"5× [5..5]", "missed: 50 % of the goal"},
		{"", "not measured"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(verdict{})); diff != "" {
		t.Error(diff)
	}
}

func TestMarkdown(t *testing.T) {
	want := strings.ReplaceAll(`### 'x': a title

About it.

| ms       | median | min..max | ÷ ours | ÷ limit |
|----------|-------:|---------:|-------:|--------:|
| **we**   |      2 |    1..20 |        |       2 |
| they     |     55 |  10..100 |      5 |      10 |
| limit: c |      1 |    1..10 |    0.5 |         |

- Failed (exit status 1: a): they.
- Missing (not here; get it): gone; gone too.

| goal         | measured  | outcome                      |
|--------------|-----------|------------------------------|
| at most 3 ms | 2 [1..20] | **met**                      |
| at most 1 ms | 2 [1..20] | **missed: 2× the goal**      |
| they ≥ 4×    | 5× [5..5] | **met**                      |
| they ≥ 10×   | 5× [5..5] | **missed: 50 % of the goal** |
| p99          |           | **not measured**             |
`, "'", "`")
	if diff := cmp.Diff(want, sample().markdown()); diff != "" {
		t.Error(diff)
	}
}

// TestFailuresCount has a peer fail, which is no fault of ours, and then something of ours.
func TestFailuresCount(t *testing.T) {
	r := sample()
	if err := r.broken(); err != nil {
		t.Errorf("a peer that fails breaks the run: %v", err)
	}
	r.failed["c"] = missing("no compiler")
	if err := r.broken(); err != nil {
		t.Errorf("a limit that is missing breaks the run: %v", err)
	}
	r.failed["we"] = errors.New("boom")
	if err := r.broken(); err == nil || !strings.Contains(err.Error(), "x: we: boom") {
		t.Errorf("got %v, though ours failed", err)
	}
}

func TestSplice(t *testing.T) {
	block := beginMark + "\n\nnew\n\n" + endMark
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", block + "\n"},
		{"no marks", "prose\n", "prose\n\n" + block + "\n"},
		{"marks", "a\n" + beginMark + "\nold\n" + endMark + "\nb\n", "a\n" + block + "\nb\n"},
		{"again", block, block},
		{"begin alone", "a\n" + beginMark + "\n", ""},
		{"end alone", "a\n" + endMark + "\n", ""},
		{"the wrong way round", endMark + beginMark, ""},
		{"twice", block + block, ""},
	} {
		got, err := splice(test.text, "new\n")
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: got %q, %v; want %q", test.name, got, err, test.want)
		}
	}
}

// TestRows has goals name figures that there are, and rows be told apart.
func TestRows(t *testing.T) {
	names := map[string]bool{}
	for _, r := range rows() {
		if names[r.name] {
			t.Errorf("two rows are called %s", r.name)
		}
		names[r.name] = true
		contenders, metrics := map[string]bool{}, map[string]bool{}
		for _, c := range r.contenders {
			if contenders[c.name] {
				t.Errorf("%s: two contenders are called %s", r.name, c.name)
			}
			contenders[c.name] = true
		}
		for _, m := range r.metrics {
			metrics[m.key] = true
		}
		for _, g := range r.goals {
			for _, f := range []figure{g.of, g.per} {
				if f != (figure{}) && (!contenders[f.contender] || !metrics[f.key]) {
					t.Errorf("%s: the goal %q is about %v, which the row does not have", r.name, g.text, f)
				}
			}
			if (g.least == 0) == (g.most == 0) {
				t.Errorf("%s: the goal %q must have one bound", r.name, g.text)
			}
		}
	}
}

func TestChoose(t *testing.T) {
	all := []row{{name: "map"}, {name: "stream"}, {name: "stream-memory"}}
	chosen, err := choose(all, "^stream")
	if err != nil || len(chosen) != 2 || chosen[0].name != "stream" {
		t.Errorf("got %v, %v", chosen, err)
	}
	for _, pattern := range []string{"none", "("} {
		if _, err := choose(all, pattern); err == nil {
			t.Errorf("--rows %s is accepted", pattern)
		}
	}
}

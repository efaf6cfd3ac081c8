package scale

import (
	"bytes"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

func encode(t *testing.T, r *Report) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestJSON(t *testing.T) {
	r := reportOf(row(Sequential, 1, 2003, 1998), row("pool", 2, 1001.5), row("pool", 4, 0), row("superlinear", 2, 800))
	r.Interrupted = true
	golden(t, "report.json", encode(t, r))
}

func TestJSONRoundTrip(t *testing.T) {
	odd := reportOf(row(Sequential, 1, 0), row("pool", 2, 1))
	odd.Rows[0].Samples[0] = Sample{1, 123456789, 20*24*time.Hour + 1, 1<<53 + 1}
	odd.evaluate(odd.Rows)
	for name, r := range map[string]*Report{
		"full": sampleReport(), "odd": odd, "empty": reportOf(), "interrupted": {Interrupted: true},
	} {
		t.Run(name, func(t *testing.T) {
			first := encode(t, r)
			back, err := ReadJSON(bytes.NewReader(first))
			if err != nil {
				t.Fatal(err)
			}
			if second := encode(t, back); !bytes.Equal(first, second) {
				t.Errorf("wrote\n%s\nread and wrote\n%s", first, second)
			}
			if len(r.Rows) > 0 && !reflect.DeepEqual(r, back) {
				t.Errorf("wrote %+v\nread %+v", r, back)
			}
		})
	}
}

func TestReadJSONRefuses(t *testing.T) {
	for in, want := range map[string]string{
		``:                                 "EOF",
		`[]`:                               "cannot unmarshal",
		`{"workload": "a\u001b[2J"}`:       "not printable",
		`{"machine": {"cpu_model": "\n"}}`: "cpu_model",
		`{"rows": [{"kind": "a", "workers": 0}]}`:                                      "want at least 1",
		`{"rows": [{"kind": "a", "workers": 1}, {"kind": "a", "workers": 1}]}`:         "are both a ×1",
		`{"rows": [{"kind": "a", "workers": 1, "samples": [{"real_seconds": -1}]}]}`:   "negative",
		`{"rows": [{"kind": "a", "workers": 1, "samples": [{"real_seconds": 1e11}]}]}`: "out of range",
		`{"rows": [{"kind": "a", "workers": 1, "samples": [{"real_seconds": "1"}]}]}`:  "cannot unmarshal",
	} {
		if r, err := ReadJSON(strings.NewReader(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: report %v, error %v, want %q", in, r, err, want)
		}
	}
}

// FuzzReadJSON: whatever is read prints without NaN and infinities, and survives the round trip.
func FuzzReadJSON(f *testing.F) {
	seed, err := os.ReadFile("testdata/report.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"rows": [{"kind": "sequential", "workers": 1, "samples": [{"real_seconds": 9e9}]},
		{"kind": "p", "workers": 9007199254740993, "samples": [{"real_seconds": 1e-9}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ReadJSON(bytes.NewReader(data))
		if err != nil {
			return
		}
		var text bytes.Buffer
		if err := r.WriteTable(&text); err != nil {
			t.Fatal(err)
		}
		back, err := ReadJSON(bytes.NewReader(encode(t, r)))
		if err != nil {
			t.Fatalf("wrote what cannot be read: %v", err)
		}
		if len(back.Rows) != len(r.Rows) {
			t.Fatalf("%d rows became %d", len(r.Rows), len(back.Rows))
		}
		for _, row := range r.Rows {
			if strings.Contains(row.Kind, "NaN") || strings.Contains(row.Kind, "Inf") {
				return
			}
		}
		_, numbers, _ := strings.Cut(text.String(), "speed-up")
		if strings.Contains(numbers, "NaN") || strings.Contains(numbers, "Inf") {
			t.Fatalf("not finite:\n%s", text.String())
		}
	})
}

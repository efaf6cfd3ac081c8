package wire

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestCallBody(t *testing.T) {
	for _, name := range []string{"", "f", strings.Repeat("n", 127), strings.Repeat("n", MaxName)} {
		body := append(AppendName([]byte("x"), name), "arg"...)[1:]
		got, arg, err := SplitCall(body)
		if err != nil || string(got) != name || string(arg) != "arg" {
			t.Errorf("%d bytes: got %q and %q, %v", len(name), got, arg, err)
		}
		if _, arg, err := SplitCall(body[:len(body)-3]); err != nil || len(arg) != 0 {
			t.Errorf("%d bytes, no argument: got %q, %v", len(name), arg, err)
		}
	}
	for _, body := range []string{
		"", "\x01", "\x02a", "\x80", string(AppendName(nil, strings.Repeat("n", MaxName+1))),
		"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
	} {
		if name, _, err := SplitCall([]byte(body)); err == nil {
			t.Errorf("%.20q is taken for a call of %.20q", body, name)
		}
	}
}

func TestRanBody(t *testing.T) {
	for _, d := range []time.Duration{0, 1, time.Hour, math.MaxInt64, -1} {
		body := append(AppendRan([]byte("x"), d), "rest"...)[1:]
		got, rest, err := SplitRan(body)
		if err != nil || got != max(d, 0) || string(rest) != "rest" {
			t.Errorf("%d: got %d and %q, %v", d, got, rest, err)
		}
		PutRan(body, 42)
		if got, rest, err := SplitRan(body); err != nil || got != 42 || string(rest) != "rest" {
			t.Errorf("after PutRan: got %d and %q, %v", got, rest, err)
		}
	}
	for _, body := range []string{"", "1234567", "\x00\x00\x00\x00\x00\x00\x00\x80rest"} {
		if d, _, err := SplitRan([]byte(body)); err == nil {
			t.Errorf("%q is taken for %d ns", body, d)
		}
	}
}

func TestNumberBody(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, math.MaxInt32} {
		if got, err := Number(AppendNumber(nil, n)); err != nil || got != n {
			t.Errorf("%d: got %d, %v", n, got, err)
		}
	}
	for _, body := range []string{"", "\x80", "\x80\x80\x80\x80\x08", string(AppendNumber(nil, -1)), strings.Repeat("\xff", 11)} {
		if n, err := Number([]byte(body)); err == nil {
			t.Errorf("%q is taken for %d", body, n)
		}
	}
}

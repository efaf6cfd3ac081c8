package wire

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestCallsBody(t *testing.T) {
	for _, name := range []string{"", "f", strings.Repeat("n", 127), strings.Repeat("n", MaxName)} {
		want := []string{"arg", "", strings.Repeat("x", 300)}
		body := AppendName([]byte("x"), name)
		for _, arg := range want {
			start := len(body)
			body = append(BeginArg(body), arg...)
			if err := EndArg(body, start); err != nil {
				t.Fatal(err)
			}
		}
		got, args, err := SplitCalls(body[1:])
		if err != nil || string(got) != name {
			t.Errorf("%d bytes: got %q, %v", len(name), got, err)
		}
		if n, err := CountArgs(args); n != len(want) || err != nil {
			t.Errorf("%d arguments, %v", n, err)
		}
		for _, w := range want {
			var arg []byte
			if arg, args, err = SplitArg(args); err != nil || string(arg) != w {
				t.Errorf("got %q, %v, want %q", arg, err, w)
			}
		}
		if len(args) > 0 {
			t.Errorf("%d bytes are left", len(args))
		}
	}
	for _, body := range []string{
		"", "\x01", "\x02a", "\x80", string(AppendName(nil, strings.Repeat("n", MaxName+1))),
		"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
	} {
		if name, _, err := SplitCalls([]byte(body)); err == nil {
			t.Errorf("%.20q is taken for a call of %.20q", body, name)
		}
	}
	for _, args := range []string{"\x01", "\x00\x00\x00", "\x01\x00\x00\x00", "\x00\x00\x00\x00\x02\x00\x00\x00x", "\xff\xff\xff\xffx"} {
		if n, err := CountArgs([]byte(args)); err == nil {
			t.Errorf("%q is taken for %d arguments", args, n)
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
		frame := Append([]byte("x"), Result, 1, body)
		PutRan(frame, 1, 42)
		if got, rest, err := SplitRan(frame[1+HeaderSize:]); err != nil || got != 42 || string(rest) != "rest" {
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
	for _, body := range []string{"", "\x80", "\x80\x80\x80\x80\x08", "\x05\x06", string(AppendNumber(nil, -1)), strings.Repeat("\xff", 11)} {
		if n, err := Number([]byte(body)); err == nil {
			t.Errorf("%q is taken for %d", body, n)
		}
	}
}

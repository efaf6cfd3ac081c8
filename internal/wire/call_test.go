package wire

import (
	"bytes"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestCallsBody(t *testing.T) {
	for i, name := range []string{"", "f", strings.Repeat("n", 127), strings.Repeat("n", MaxName)} {
		key := []string{"", "k", strings.Repeat("k", 128), strings.Repeat("k", MaxKey)}[i]
		first := []uint64{0, 1, 128, math.MaxUint64}[i]
		want := []string{"arg", "", strings.Repeat("x", 300)}
		body := AppendHead([]byte("x"), name, key, first)
		for _, arg := range want {
			start := len(body)
			body = append(BeginArg(body), arg...)
			if err := EndArg(body, start); err != nil {
				t.Fatal(err)
			}
		}
		got, args, err := SplitCalls(body[1:])
		if err != nil || string(got.Name) != name || string(got.Key) != key || got.First != first {
			t.Errorf("%d bytes: got %+v, %v", len(name), got, err)
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
		"", "\x01", "\x02a", "\x80", string(AppendHead(nil, strings.Repeat("n", MaxName+1), "k", 1)),
		"\x01f", "\x01f\x02k", "\x01f\x01k", "\x01f\x01k\x80", "\x01f\x01k" + strings.Repeat("\xff", 10), "\x01f\x80",
		string(AppendHead(nil, "f", strings.Repeat("k", MaxKey+1), 1)),
		"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
	} {
		if h, _, err := SplitCalls([]byte(body)); err == nil {
			t.Errorf("%.20q is taken for a call of %+v", body, h)
		}
	}
	for _, args := range []string{"\x01", "\x00\x00\x00", "\x01\x00\x00\x00", "\x00\x00\x00\x00\x02\x00\x00\x00x", "\xff\xff\xff\xffx"} {
		if n, err := CountArgs([]byte(args)); err == nil {
			t.Errorf("%q is taken for %d arguments", args, n)
		}
	}
}

// FuzzCalls: what is taken for the body of a frame of calls says the same when it is made again.
func FuzzCalls(f *testing.F) {
	arg := BeginArg(AppendHead(nil, "f", "key", 300))
	if err := EndArg(arg, len(arg)-4); err != nil {
		f.Fatal(err)
	}
	f.Add(arg)
	f.Add(append(AppendHead(nil, "", "", math.MaxUint64), 1))
	f.Add(AppendHead(nil, strings.Repeat("n", MaxName), strings.Repeat("k", MaxKey+1), 1))
	f.Fuzz(func(t *testing.T, body []byte) {
		h, args, err := SplitCalls(body)
		if _, _, _, lone := SplitCall(body); (lone == nil) != (err == nil && len(args) > 0) {
			t.Fatalf("as many calls: %v; as one: %v", err, lone)
		}
		if err != nil {
			return
		}
		if len(h.Name) > MaxName || len(h.Key) > MaxKey {
			t.Fatalf("a name of %d bytes and a key of %d", len(h.Name), len(h.Key))
		}
		again := append(AppendHead(nil, string(h.Name), string(h.Key), h.First), args...)
		if got, rest, err := SplitCalls(again); err != nil || len(again) > len(body) || !reflect.DeepEqual(got, h) || !bytes.Equal(rest, args) {
			t.Fatalf("got %+v, %v, want %+v", got, err, h)
		}
	})
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

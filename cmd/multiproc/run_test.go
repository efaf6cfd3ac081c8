package main

import (
	"bufio"
	"bytes"
	"context"
	"iter"
	"slices"
	"testing"
	"time"
)

func TestParseSeconds(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "90": 90 * time.Second, "2.5": 2500 * time.Millisecond, "1m30s": 90 * time.Second, "250ms": 250 * time.Millisecond,
	} {
		if got, err := parseSeconds(text); err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"x", "-1", "-1s", "1y"} {
		if got, err := parseSeconds(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestTagged(t *testing.T) {
	var b bytes.Buffer
	w := &tagged{w: bufio.NewWriter(&b), tag: "t\t"}
	for _, part := range []string{"a\nb", "c\n", "\n", "d"} {
		if _, err := w.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if want := "t\ta\nt\tbc\nt\t\nt\td"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

func TestUntilDone(t *testing.T) {
	if got := slices.Collect(untilDone(t.Context(), slices.Values([]int{1, 2, 3}))); !slices.Equal(got, []int{1, 2, 3}) {
		t.Errorf("%v, want all three", got)
	}
	// A sequence that blocks is left when the context ends.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	release, ended := make(chan struct{}), make(chan struct{})
	var blocks iter.Seq[int] = func(yield func(int) bool) {
		defer close(ended)
		yield(1)
		<-release
		yield(2)
	}
	n := 0
	for range untilDone(ctx, blocks) {
		n++
		cancel()
	}
	if n != 1 {
		t.Errorf("%d values, want 1", n)
	}
	close(release)
	<-ended
}

package wire

import (
	"bytes"
	"io"
	"testing"

	"github.com/seed84f35039/multiproc/internal/shm"
)

// A tail arrives behind what came before, at an address that is good for numbers of any size.
func TestTail(t *testing.T) {
	for _, n := range []int{0, 1, 47, 48, 63, 64, 300} {
		head := bytes.Repeat([]byte{1}, n)
		raw := bytes.Repeat([]byte{2}, Large+n)
		buf := append(Begin([]byte("before"), Result, 7), head...)
		buf, err := EndTail(buf, len("before"), bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		stream := append(buf[len("before"):], raw...)
		stream = Append(stream, Stop, 8, nil)
		r := NewReader(bytes.NewReader(stream))
		f, err := next(r)
		if err != nil || f.Kind != Result || f.ID != 7 {
			t.Fatalf("got a %s frame for %d, %v", f.Kind, f.ID, err)
		}
		if !bytes.Equal(f.Body, append(head, raw...)) {
			t.Errorf("after %d bytes: a body of %d bytes is not what was sent", n, len(f.Body))
		}
		if at := shm.Address(f.Body[n:]) % 64; at != 0 {
			t.Errorf("after %d bytes: the tail begins %d bytes behind a multiple of 64", n, at)
		}
		if f, err := next(r); err != nil || f.Kind != Stop || f.ID != 8 {
			t.Errorf("behind it: got a %s frame for %d, %v", f.Kind, f.ID, err)
		}
	}
}

// Short results come together, however they are cut.
func TestShortRun(t *testing.T) {
	var stream []byte
	for i := range 5 {
		buf := append(AppendRan(Begin(nil, Result, uint64(i)), 0), bytes.Repeat([]byte{byte(i)}, i)...)
		if err := End(buf, 0); err != nil {
			t.Fatal(err)
		}
		short, _ := Shorten(buf, 0)
		stream = append(stream, short...)
	}
	stream = Append(stream, Stop, 8, nil)
	for cut := range len(stream) {
		r := NewReader(io.MultiReader(bytes.NewReader(stream[:cut]), bytes.NewReader(stream[cut:])))
		for i := 0; i < 5; {
			f, err := next(r)
			if err != nil || len(f.Short) == 0 {
				t.Fatalf("cut at %d: got %v, %v", cut, f, err)
			}
			for _, result := range f.Short {
				if !bytes.Equal(result, bytes.Repeat([]byte{byte(i)}, i)) {
					t.Errorf("cut at %d: result %d is %v", cut, i, result)
				}
				i++
			}
		}
		if f, err := next(r); err != nil || f.Kind != Stop {
			t.Errorf("cut at %d: behind them is a %s frame, %v", cut, f.Kind, err)
		}
	}
}

// A short result is one like another.
func TestShorten(t *testing.T) {
	for _, n := range []int{0, 1, shortMax, shortMax + 1} {
		result := bytes.Repeat([]byte{5}, n)
		buf := append(AppendRan(Begin([]byte("before"), Result, 7), 0), result...)
		if err := End(buf, len("before")); err != nil {
			t.Fatal(err)
		}
		out, ok := Shorten(buf, len("before"))
		if ok != (n <= shortMax) {
			t.Fatalf("%d bytes: shortened %v", n, ok)
		}
		if !ok {
			out = buf[len("before"):]
		}
		f, err := next(NewReader(bytes.NewReader(out)))
		if ok {
			if err != nil || len(f.Short) != 1 || !bytes.Equal(f.Short[0], result) {
				t.Errorf("%d bytes: got %v, %v", n, f, err)
			}
			continue
		}
		if _, body, err := SplitRan(f.Body); err != nil || !bytes.Equal(body, result) {
			t.Errorf("%d bytes: got %d bytes, %v", n, len(body), err)
		}
	}
}

func TestCallBody(t *testing.T) {
	body := append(AppendHead(nil, "f", "k", 300), "argument\x01"...)
	h, arg, whole, err := SplitCall(body)
	if string(h.Name) != "f" || string(h.Key) != "k" || h.First != 300 || string(arg) != "argument" || !whole || err != nil {
		t.Errorf("got %+v, %q, %v, %v", h, arg, whole, err)
	}
	body[len(body)-1] = 0
	if _, _, whole, err := SplitCall(body); whole || err != nil {
		t.Errorf("a call that was given up is whole: %v, %v", whole, err)
	}
	for _, body := range []string{"", "\x01", "\x01f", "\x05f"} {
		if _, _, _, err := SplitCall([]byte(body)); err == nil {
			t.Errorf("%q is taken for a call", body)
		}
	}
}

package wire

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// frames of every shape: empty, small, around the reader's buffer, larger than it.
func sample() []Frame {
	sizes := []int{0, 1, 100, 64<<10 - HeaderSize - 1, 64<<10 - HeaderSize, 64<<10 - HeaderSize + 1, 3 << 20}
	var fs []Frame
	for i, n := range sizes {
		fs = append(fs, Frame{Kind: Calls, ID: uint64(i) << 40, Body: bytes.Repeat([]byte{byte(i + 1)}, n)})
	}
	return append(fs, Frame{Kind: Stop, ID: 1})
}

func encode(fs []Frame) []byte {
	var buf []byte
	for _, f := range fs {
		buf = Append(buf, f.Kind, f.ID, f.Body)
	}
	return buf
}

// next reads until there is a frame.
func next(r *Reader) (Frame, error) {
	for {
		var f Frame
		if ok, err := r.Next(&f); ok || err != nil {
			return f, err
		}
		if _, err := r.Fill(); err != nil {
			return Frame{}, err
		}
	}
}

func TestReaderReturnsWhatWasAppended(t *testing.T) {
	want := sample()
	stream := encode(want)
	readers := map[string]io.Reader{
		"whole":    bytes.NewReader(stream),
		"halves":   iotest.HalfReader(bytes.NewReader(stream)),
		"data+EOF": iotest.DataErrReader(bytes.NewReader(stream)),
	}
	for name, src := range readers {
		r := NewReader(src)
		for i, w := range want {
			f, err := next(r)
			if err != nil {
				t.Fatalf("%s: frame %d: %v", name, i, err)
			}
			if f.Kind != w.Kind || f.ID != w.ID || !bytes.Equal(f.Body, w.Body) {
				t.Fatalf("%s: frame %d: got %s %d with %d bytes, want %s %d with %d", name, i, f.Kind, f.ID, len(f.Body), w.Kind, w.ID, len(w.Body))
			}
		}
		for range 2 {
			if _, err := next(r); err != io.EOF {
				t.Errorf("%s: at the end: %v, want EOF every time", name, err)
			}
		}
	}
}

func TestBeginEndEqualsAppend(t *testing.T) {
	buf := []byte("before")
	start := len(buf)
	buf = Begin(buf, Result, 7)
	buf = append(buf, "body"...)
	if err := End(buf, start); err != nil {
		t.Fatal(err)
	}
	if want := Append([]byte("before"), Result, 7, []byte("body")); !bytes.Equal(buf, want) {
		t.Errorf("got %x, want %x", buf, want)
	}
}

func TestReaderRefuses(t *testing.T) {
	ok := Append(nil, Calls, 1, []byte("argument"))
	huge := Append(nil, Calls, 1, nil)
	huge[6] = 2 // 8 GiB
	unknown := Append(nil, Kind(100), 1, nil)
	big := Append(nil, Calls, 1, make([]byte, 1<<20))
	for _, c := range []struct {
		name, stream, want string
	}{
		{"cut header", string(ok[:HeaderSize-1]), "unexpected EOF"},
		{"cut body", string(ok[:len(ok)-1]), "unexpected EOF"},
		{"cut large body", string(big[:len(big)-1]), "unexpected EOF"},
		{"no large body", string(big[:HeaderSize]), "unexpected EOF"},
		{"announces 8 GiB", string(huge), "calls frame of 8589934592 bytes: frame is over the limit of 4 GiB"},
		{"unknown kind", string(unknown), "frame of unknown kind 100"},
		{"kind 0", string(make([]byte, 64)), "frame of unknown kind 0"},
	} {
		_, err := next(NewReader(strings.NewReader(c.stream)))
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: got error %v, want %q", c.name, err, c.want)
		}
	}
}

// A header that announces much must not make the reader reserve much.
func TestReaderReservesAsBytesArrive(t *testing.T) {
	head := Append(nil, Result, 1, nil)
	head[5] = 0x7f // almost 2 GiB
	src := io.MultiReader(bytes.NewReader(head), bytes.NewReader(make([]byte, 100<<10)))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := next(NewReader(src))
	runtime.ReadMemStats(&after)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("got error %v, want unexpected EOF", err)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
		t.Errorf("reserved %d bytes for a body of 100 KiB", got)
	}
}

// Bodies that were returned stay as they are until the next Fill, large ones for ever.
func TestReaderBodiesStay(t *testing.T) {
	large := bytes.Repeat([]byte{7}, readBuffer)
	r := NewReader(bytes.NewReader(encode([]Frame{
		{Kind: Calls, ID: 1, Body: []byte("a")}, {Kind: Calls, ID: 2, Body: []byte("bc")}, {Kind: Calls, ID: 3, Body: large}, {Kind: Stop, ID: 4},
	})))
	if _, err := r.Fill(); err != nil {
		t.Fatal(err)
	}
	var fs []Frame
	for len(fs) < 2 {
		var f Frame
		ok, err := r.Next(&f)
		if !ok || err != nil {
			t.Fatalf("frame %d: %t, %v", len(fs), ok, err)
		}
		fs = append(fs, f)
	}
	if ok, err := r.Next(new(Frame)); ok || err != nil {
		t.Errorf("a frame that has not come as a whole: %t, %v", ok, err)
	}
	if string(fs[0].Body) != "a" || string(fs[1].Body) != "bc" {
		t.Errorf("got %q and %q", fs[0].Body, fs[1].Body)
	}
	f, err := next(r)
	if err != nil || f.ID != 3 {
		t.Fatalf("got frame %d, %v", f.ID, err)
	}
	if last, err := next(r); err != nil || last.ID != 4 || !bytes.Equal(f.Body, large) {
		t.Errorf("after frame %d, %v: the large body has changed", last.ID, err)
	}
}

// A stream may have nothing at the moment.
func TestReaderDoesNotWait(t *testing.T) {
	r := NewReader(iotest.ErrReader(nil))
	if n, err := r.Fill(); n != 0 || err != nil {
		t.Errorf("Fill returns %d, %v", n, err)
	}
	if ok, err := r.Next(new(Frame)); ok || err != nil {
		t.Errorf("Next returns %t, %v", ok, err)
	}
}

// encodedLike reports whether data begins with the encoding of f, and how long that is.
func encodedLike(f Frame, data []byte) (n int, ok bool) {
	if len(f.Short) > 0 {
		var want []byte
		for _, result := range f.Short {
			want = append(append(want, shortKind, byte(len(result))), result...)
		}
		return len(want), bytes.HasPrefix(data, want)
	}
	filler := int(data[1]) // may be anything
	want := Append(nil, f.Kind, f.ID, append(bytes.Clone(data[HeaderSize:HeaderSize+filler]), f.Body...))
	if want[1] = data[1]; f.Next {
		SetNext(want, 0)
	}
	return len(want), bytes.HasPrefix(data, want)
}

// FuzzReader: whatever comes, the reader ends with an error and returns no frame
// that does not encode to the bytes it was read from.
func FuzzReader(f *testing.F) {
	f.Add([]byte{})
	f.Add(encode(sample()[:3]))
	f.Add(Append(nil, Hello, 0, []byte("\xa3\x01\x01\x02\x61x\x03\x18\x2a")))
	f.Add(Append(nil, Recall, 0, AppendNumber(nil, 5))[:10])
	f.Add([]byte("\xff\x01\x05\xff\x00\xff\x02ab"))
	tail, err := EndTail(append(Begin(nil, Result, 7), 1, 2, 3), 0, bytes.NewReader([]byte("tail")))
	if err != nil {
		f.Fatal(err)
	}
	SetNext(tail, 0)
	f.Add(append(tail, "tail"...))
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := NewReader(bytes.NewReader(stream))
		rest := stream
		for {
			frame, err := next(r)
			if err != nil {
				if err == io.EOF && len(rest) != 0 {
					t.Fatalf("EOF with %d bytes left", len(rest))
				}
				return
			}
			n, ok := encodedLike(frame, rest)
			if !ok {
				t.Fatalf("frame %s %d is not what was read", frame.Kind, frame.ID)
			}
			rest = rest[n:]
			// The bodies' own decoders must not fall over either.
			if _, args, err := SplitCalls(frame.Body); err == nil {
				n, err := CountArgs(args)
				for ; err == nil && n > 0; n-- {
					if _, args, err = SplitArg(args); err != nil {
						t.Fatalf("argument: %v", err)
					}
				}
			}
			SplitRan(frame.Body)
			Number(frame.Body)
		}
	})
}

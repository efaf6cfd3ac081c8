package wire

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"testing"
	"time"
)

// benchmarks calls run with a value of each type that the benchmarks are about.
func benchmarks(b *testing.B, run func(b *testing.B, v any)) {
	table := make(map[string]int)
	for i := range 1000 {
		table[fmt.Sprint("key", i)] = i
	}
	for _, c := range []struct {
		name string
		v    any
	}{
		{"int", ptr(123456)},
		{"string", ptr("twenty-four bytes of text")},
		{"bytes=64KiB", ptr(make([]byte, 64<<10))},
		{"struct", &Tagged{Short: 1, JSON: "j", A: 2, Both: map[string]string{"k": "v"}}},
		{"floats=1000", ptr(make([]float64, 1000))},
		{"map=1000", &table},
		{"time", ptr(time.Unix(1e9, 1).UTC())},
		{"any", ptr(any(map[string]any{"id": 7, "tags": []any{"a", "b"}}))},
		{"list=100", ptr(list(100))},
	} {
		b.Run("type="+c.name, func(b *testing.B) {
			b.ReportAllocs()
			run(b, c.v)
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	benchmarks(b, func(b *testing.B, v any) {
		var buf []byte
		var err error
		for b.Loop() {
			if buf, err = Encode(buf[:0], v); err != nil {
				b.Fatal(err)
			}
		}
		b.SetBytes(int64(len(buf)))
	})
}

func BenchmarkDecode(b *testing.B) {
	benchmarks(b, func(b *testing.B, v any) {
		data, err := Encode(nil, v)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(data)))
		into := reflect.New(reflect.TypeOf(v).Elem())
		for b.Loop() {
			into.Elem().SetZero()
			if err := Decode(data, into.Interface()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkValue measures what Checker.Value adds to Encode.
func BenchmarkValue(b *testing.B) {
	benchmarks(b, func(b *testing.B, v any) {
		c, err := Check(reflect.TypeOf(v).Elem())
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if err := c.Value(v); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// endless is a stream that repeats itself.
type endless struct{ all, rest []byte }

func (e *endless) Read(p []byte) (int, error) {
	if len(e.rest) == 0 {
		e.rest = e.all
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

func BenchmarkReader(b *testing.B) {
	for _, size := range []int{8, 1 << 10, 60 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("body=%d", size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(HeaderSize + size))
			frame := Append(nil, Calls, 1, make([]byte, size))
			r := NewReader(io.Reader(&endless{all: bytes.Repeat(frame, 1+(64<<10)/len(frame))}))
			for b.Loop() {
				if f, err := next(r); err != nil || len(f.Body) != size {
					b.Fatal(err)
				}
			}
		})
	}
}

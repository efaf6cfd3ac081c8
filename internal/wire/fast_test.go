package wire

import (
	"bytes"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/seed84f35039/multiproc/internal/shm"
)

// common are values of the types that go around the codec.
func common() []any {
	var vs []any
	for _, x := range []int64{0, 1, 23, 24, 255, 256, 65535, 65536, math.MaxInt32, math.MaxUint32, math.MaxInt64} {
		vs = append(vs, ptr(x), ptr(-x-1), ptr(int(x)), ptr(int(-x)), ptr(int32(x)), ptr(uint64(x)*2+1), ptr(uint32(x)), ptr(uint(x)))
	}
	for _, x := range []float64{0, 1.5, math.Copysign(0, -1), math.Inf(1), math.MaxFloat64, math.SmallestNonzeroFloat64} {
		vs = append(vs, ptr(x))
	}
	for _, n := range []int{0, 1, 23, 24, 300, 70_000} {
		vs = append(vs, ptr(strings.Repeat("x", n)), ptr(bytes.Repeat([]byte{7}, n)))
	}
	return append(vs, ptr(true), ptr(false), ptr(struct{}{}), ptr([]byte(nil)), ptr("not \xff UTF-8"))
}

// What goes around the codec is what the codec would have made of it, in both directions.
func TestFastIsWhatTheCodecMakes(t *testing.T) {
	for _, v := range common() {
		want, err := encodeAny(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		got, raw, ok := AppendFast(nil, v)
		if got = append(got, raw...); !ok || !bytes.Equal(got, want) {
			t.Errorf("%T %.50v: got %.50x (%v), want %.50x", v, reflect.ValueOf(v).Elem(), got, ok, want)
		}
		into := reflect.New(reflect.TypeOf(v).Elem())
		null := len(want) == 1 && want[0] == cborNull // the codec is left that
		if ok := DecodeFast(want, into.Interface()); ok == null || !null && !reflect.DeepEqual(into.Interface(), v) {
			t.Errorf("%T %.50v: decoded as %.50v (%v)", v, reflect.ValueOf(v).Elem(), into.Elem(), ok)
		}
	}
}

// Slices of numbers are typed arrays, of which large ones are not copied.
func TestNumbers(t *testing.T) {
	check := func(v any) {
		t.Helper()
		out, raw, err := EncodeSplit([]byte("before"), v)
		if err != nil {
			t.Fatal(err)
		}
		n := reflect.ValueOf(v).Elem().Len() * int(reflect.TypeOf(v).Elem().Elem().Size())
		if (raw != nil) != (n >= Large) {
			t.Errorf("%T of %d bytes: %d of them are not copied", v, n, len(raw))
		}
		data := append(out, raw...)[len("before"):]
		for shift := range 2 { // one of them is not aligned
			moved := append(make([]byte, shift, shift+len(data)), data...)[shift:]
			into := reflect.New(reflect.TypeOf(v).Elem())
			if err := Decode(moved, into.Interface()); err != nil || !reflect.DeepEqual(into.Interface(), v) {
				t.Errorf("%T of %d bytes: decoded as a slice of %d (%v)", v, n, into.Elem().Len(), err)
			}
		}
	}
	for _, n := range []int{0, 1, 100, 100_000} {
		check(numbers[int8](n))
		check(numbers[int16](n))
		check(numbers[uint16](n))
		check(numbers[int32](n))
		check(numbers[uint32](n))
		check(numbers[int64](n))
		check(numbers[uint64](n))
		check(numbers[int](n))
		check(numbers[uint](n))
		check(numbers[float32](n))
		check(numbers[float64](n))
	}
	check(ptr([]float64(nil)))
}

func numbers[T shm.Number](n int) *[]T {
	s := make([]T, n)
	for i := range s {
		s[i] = T(i)*3 + 1
	}
	return &s
}

// The codec's own form of a slice of numbers is understood too.
func TestNumbersOneByOne(t *testing.T) {
	data, err := encodeAny(nil, ptr([]float64{1, 2.5}))
	if err != nil {
		t.Fatal(err)
	}
	var got []float64
	if err := Decode(data, &got); err != nil || !reflect.DeepEqual(got, []float64{1, 2.5}) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestNumbersRefuses(t *testing.T) {
	for name, data := range map[string]string{
		"half a number":     "\xd8\x56\x44abcd",
		"another type":      "\xd8\x55\x44abcd",
		"length over data":  "\xd8\x56\x5b\x00\x00\x00\x00\x00\x00\x00\x08abcd",
		"length over int":   "\xd8\x56\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
		"more than a value": "\xd8\x56\x48abcdefghi",
	} {
		var got []float64
		if err := Decode([]byte(data), &got); err == nil {
			t.Errorf("%s: decoded as %v", name, got)
		}
	}
}

// FuzzDecodeFast looks for data that is something else without the codec.
func FuzzDecodeFast(f *testing.F) {
	for _, v := range common() {
		data, err := Encode(nil, v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data[:min(len(data), 100)])
	}
	f.Add([]byte("\x1a\xff\xff\xff\xff"))
	f.Add([]byte("\x3b\xff\xff\xff\xff\xff\xff\xff\xff"))
	types := []reflect.Type{}
	seen := map[reflect.Type]bool{}
	for _, v := range common() {
		if e := reflect.TypeOf(v).Elem(); !seen[e] {
			seen[e] = true
			types = append(types, e)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, typ := range types {
			fast, slow := reflect.New(typ), reflect.New(typ)
			if !DecodeFast(data, fast.Interface()) {
				continue
			}
			if err := decodeAny(data, slow.Interface()); err != nil {
				t.Errorf("%s from %x: got %v, the codec refuses it: %v", typ, data, fast.Elem(), err)
			} else if !reflect.DeepEqual(fast.Interface(), slow.Interface()) {
				if x, ok := fast.Interface().(*float64); ok && math.IsNaN(*x) {
					continue
				}
				t.Errorf("%s from %x: got %v, want %v", typ, data, fast.Elem(), slow.Elem())
			}
		}
	})
}

// A run is what its values are one by one, in both directions.
func TestRuns(t *testing.T) {
	ints := []int{0, 23, 24, -1, 1 << 40}
	var want []byte
	var data [][]byte
	for i := range ints {
		start := len(want)
		want, _ = Encode(BeginArg(want), &ints[i])
		if err := EndArg(want, start); err != nil {
			t.Fatal(err)
		}
		data = append(data, want[start+4:])
	}
	if got, n := AppendRun([]byte("x"), &ints); n != len(ints) || string(got) != "x"+string(want) {
		t.Errorf("appended %d: %x, want %x", n, got, want)
	}
	got := make([]int, len(ints))
	if n := DecodeRun(data, &got); n != len(ints) || !reflect.DeepEqual(got, ints) {
		t.Errorf("decoded %d: %v", n, got)
	}
	data[2] = []byte("\x61x")
	if n := DecodeRun(data, &got); n != 2 {
		t.Errorf("decoded %d up to one of another type", n)
	}
	if _, n := AppendRun(nil, &[]struct{ X int }{{1}}); n != 0 {
		t.Errorf("appended %d structs", n)
	}
	for _, v := range []any{&[]int64{5}, &[]int32{5}, &[]uint64{5}, &[]float64{5}} {
		out, n := AppendRun(nil, v)
		into := reflect.New(reflect.TypeOf(v).Elem())
		into.Elem().Set(reflect.MakeSlice(into.Elem().Type(), 1, 1))
		if n != 1 || DecodeRun([][]byte{out[4:]}, into.Interface()) != 1 || !reflect.DeepEqual(into.Interface(), v) {
			t.Errorf("%T: %x becomes %v", v, out, into.Elem())
		}
	}
	for _, v := range []any{&[]uint32{5}, &[]uint{5}, &[]string{"x"}} {
		one, err := encodeAny(nil, reflect.ValueOf(v).Elem().Index(0).Addr().Interface())
		into := reflect.New(reflect.TypeOf(v).Elem())
		into.Elem().Set(reflect.MakeSlice(into.Elem().Type(), 1, 1))
		if err != nil || DecodeRun([][]byte{one}, into.Interface()) != 1 || !reflect.DeepEqual(into.Interface(), v) {
			t.Errorf("%T: %x becomes %v, %v", v, one, into.Elem(), err)
		}
	}
}

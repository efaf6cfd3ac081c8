package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

type nilError struct{ text string } // Error of a nil *nilError panics

func (e *nilError) Error() string { return e.text }

type panicError struct{}

func (panicError) Error() string { panic("boom") }

type detailed struct{}

func (detailed) Error() string { return "short" }
func (detailed) Format(s fmt.State, verb rune) {
	fmt.Fprint(s, "short")
	if verb == 'v' && s.Flag('+') {
		fmt.Fprint(s, "\n  at file.go:1")
	}
}

func TestFromError(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	wrapped := fmt.Errorf("open: %w", &fs.PathError{Op: "open", Path: "p", Err: os.ErrNotExist})
	for _, tc := range []struct {
		err   error
		codes []string
		want  Failure
	}{
		{errors.New("plain"), nil, Failure{Type: "*errors.errorString", Message: "plain"}},
		{errors.New(""), []string{}, Failure{Type: "*errors.errorString"}},
		{errors.New(long), nil, Failure{Type: "*errors.errorString", Message: long}},
		{errors.New("not UTF-8: \xff"), nil, Failure{Type: "*errors.errorString", Message: "not UTF-8: \xff"}},
		{wrapped, []string{"a", "b"}, Failure{Type: "*fmt.wrapError", Message: "open: open p: file does not exist", Sentinels: []string{"a", "b"}}},
		{errors.Join(wrapped, errors.New("x")), nil, Failure{Type: "*errors.joinError", Message: "open: open p: file does not exist\nx"}},
		{(*nilError)(nil), nil, Failure{Type: "*wire.nilError", Message: "<nil>"}},
		{panicError{}, nil, Failure{Type: "wire.panicError", Message: "%!v(PANIC=Error method: boom)"}},
		{fmt.Errorf("w: %w", panicError{}), nil, Failure{Type: "*fmt.wrapError", Message: "w: %!v(PANIC=Error method: boom)"}},
		{detailed{}, nil, Failure{Type: "wire.detailed", Message: "short", Stack: "short\n  at file.go:1"}},
	} {
		tc.want.Cause = CauseError
		arrives(t, FromError(tc.err, tc.codes), tc.want)
	}
}

func TestFromPanic(t *testing.T) {
	caught := func(f func()) (v any) {
		defer func() { v = recover() }()
		f()
		return
	}
	for _, tc := range []struct {
		value any
		want  Failure
	}{
		{nil, Failure{Type: "nil", Message: "<nil>"}},
		{"text", Failure{Type: "string", Message: "text"}},
		{7, Failure{Type: "int", Message: "7"}},
		{Point{1, 2}, Failure{Type: "wire.Point", Message: "{1 2}"}},
		{errors.New("err"), Failure{Type: "*errors.errorString", Message: "err"}},
		{panicError{}, Failure{Type: "wire.panicError", Message: "%!v(PANIC=Error method: boom)"}},
		{(*nilError)(nil), Failure{Type: "*wire.nilError", Message: "<nil>"}},
		{caught(func() { panic(nil) }), Failure{Type: "*runtime.PanicNilError", Message: new(runtime.PanicNilError).Error()}},
		{caught(func() { _ = []int{}[len(os.Args[:0])] }), Failure{Type: "runtime.boundsError", Message: "runtime error: index out of range [0] with length 0"}},
		{caught(func() { _ = (*nilError)(nil).Error() }), Failure{Type: "runtime.errorString", Message: "runtime error: invalid memory address or nil pointer dereference"}},
	} {
		tc.want.Cause, tc.want.Stack, tc.want.Sentinels = CausePanic, "goroutine 1", []string{"c"}
		arrives(t, FromPanic(tc.value, []byte("goroutine 1"), []string{"c"}), tc.want)
	}
}

// arrives checks that f is want and still is after the way.
func arrives(t *testing.T, f, want Failure) {
	t.Helper()
	data, err := AppendFailure([]byte("before"), f)
	if err != nil || !bytes.HasPrefix(data, []byte("before")) {
		t.Fatalf("%.100q: %v", data, err)
	}
	got, err := DecodeFailure(data[len("before"):])
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %.300q, %v\nwant %.300q", fmt.Sprintf("%+v", got), err, fmt.Sprintf("%+v", want))
	}
}

func TestDecodeFailureRefuses(t *testing.T) {
	encoded := func(v any) string {
		data, err := Encode(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	type loose struct {
		Cause     any `cbor:"1,keyasint,omitempty"`
		Message   any `cbor:"3,keyasint,omitempty"`
		Sentinels any `cbor:"5,keyasint,omitempty"`
	}
	for _, tc := range []struct{ name, data, want string }{
		{"nothing", "", "cut short"},
		{"junk", "\xff\x00junk", "decode failure: cbor:"},
		{"null", "\xf6", "unknown cause 0"},
		{"no cause", "\xa0", "unknown cause 0"},
		{"cause 6", encoded(&loose{Cause: 6}), "unknown cause 6"},
		{"cause -1", encoded(&loose{Cause: -1}), "unknown cause -1"},
		{"huge cause", encoded(&loose{Cause: uint64(math.MaxUint64)}), "overflows wire.Cause"},
		{"cause in text", encoded(&loose{Cause: "1"}), "wire.Failure.1"},
		{"message is a number", encoded(&loose{Cause: 1, Message: 5}), "wire.Failure.3"},
		{"sentinel is a list", encoded(&loose{Cause: 1, Sentinels: []any{[]any{"x"}}}), "wire.Failure.5"},
		{"two of them", encoded(&Failure{Cause: 1}) + encoded(&Failure{Cause: 1}), "extraneous"},
		{"a cause twice", "\xa2\x01\x01\x01\x02", "duplicate map key"},
		{"cut", encoded(&Failure{Cause: 1, Message: "m"})[:4], "cut short"},
		{"a list", encoded(&[]string{"1"}), "array"},
		{"a typed array", encoded(&[]int{1}), "byte string"},
	} {
		f, err := DecodeFailure([]byte(tc.data))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got error %v, want %q", tc.name, err, tc.want)
		}
		if !reflect.DeepEqual(f, Failure{}) {
			t.Errorf("%s: got %+v besides the error", tc.name, f)
		}
	}
	// What a newer peer adds is passed over.
	if f, err := DecodeFailure([]byte("\xa2\x01\x03\x18\x63\x81\x01")); err != nil || f.Cause != CauseUnknownFunc {
		t.Errorf("with a key of no field: %+v, %v", f, err)
	}
}

// FuzzFailure: whatever comes, DecodeFailure does not panic, and what it accepts
// is the same after another way.
func FuzzFailure(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := DecodeFailure(data)
		if err != nil {
			return
		}
		arrives(t, got, got)
	})
}

// FuzzDecode: whatever comes, Decode does not panic, and what it makes of it is
// either refused by Value or Encode, or arrives, and then is the same after
// another way. (A small bignum in an interface arrives as an int64.)
func FuzzDecode(f *testing.F) {
	for _, v := range []any{&[]any{1, -1.5, "x", []byte{1}, nil, zoned, *huge}, &Tree{"a", []Tree{{}}, map[string]*Tree{"b": nil}}, &Tagged{JSON: "j"}} {
		data, err := Encode(nil, v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		again[any](t, data)
		again[Tree](t, data)
		again[Tagged](t, data)
		again[map[Point][]*Embedder](t, data)
	})
}

func again[T any](t *testing.T, data []byte) {
	c, err := Check(reflect.TypeFor[T]())
	if err != nil {
		t.Fatal(err)
	}
	var v, arrived T
	if Decode(data, &v) != nil || c.Value(&v) != nil {
		return
	}
	if data, err = Encode(nil, &v); err != nil {
		return
	}
	if err := errors.Join(Decode(data, &arrived), c.Value(&arrived)); err != nil {
		t.Fatalf("%T %+v: %v", v, v, err)
	}
	if err := survives(arrived); err != nil {
		t.Errorf("%T: %v", v, err)
	}
}

package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"net/netip"
	"net/url"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

// same reports whether a and b are equal to the last bit: NaNs with the same
// payload are, 0 and -0 and nil and empty slices are not. Times are when they are
// the same instant at the same offset.
func same(a, b reflect.Value) bool {
	if !a.IsValid() || !b.IsValid() || a.Type() != b.Type() {
		return a.IsValid() == b.IsValid() && !a.IsValid()
	}
	if k := a.Kind(); k == reflect.Pointer || k == reflect.Interface {
		return a.IsNil() == b.IsNil() && same(a.Elem(), b.Elem())
	}
	switch x := a.Interface().(type) {
	case time.Time:
		_, i := x.Zone()
		_, j := b.Interface().(time.Time).Zone()
		return i == j && x.Equal(b.Interface().(time.Time))
	case big.Int:
		y := b.Interface().(big.Int)
		return x.Cmp(&y) == 0
	}
	switch a.Kind() {
	case reflect.Float32, reflect.Float64:
		return math.Float64bits(a.Float()) == math.Float64bits(b.Float())
	case reflect.Slice, reflect.Array:
		if a.Kind() == reflect.Slice && a.IsNil() != b.IsNil() || a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !same(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Map:
		if a.IsNil() != b.IsNil() || a.Len() != b.Len() {
			return false
		}
		for it := a.MapRange(); it.Next(); {
			if !same(it.Value(), b.MapIndex(it.Key())) {
				return false
			}
		}
		return true
	case reflect.Struct:
		for f := range a.Type().Fields() {
			if !f.IsExported() {
				return reflect.DeepEqual(a.Interface(), b.Interface())
			}
			if !same(a.FieldByIndex(f.Index), b.FieldByIndex(f.Index)) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

// kept sends v through all that a value passes on its way and reports whether it
// arrived as it was.
func kept[T any](v T) error {
	c, err := Check(reflect.TypeFor[T]())
	if err != nil {
		return fmt.Errorf("Check: %w", err)
	}
	if err := c.Value(&v); err != nil {
		return fmt.Errorf("Value: %w", err)
	}
	return survives(v)
}

// survives encodes and decodes v, whatever Check says to it.
func survives[T any](v T) error {
	data, err := Encode(nil, &v)
	if err != nil {
		return fmt.Errorf("Encode: %w", err)
	}
	var got T
	if err := Decode(data, &got); err != nil {
		return fmt.Errorf("Decode %x: %w", data[:min(len(data), 100)], err)
	}
	if !same(reflect.ValueOf(&v).Elem(), reflect.ValueOf(&got).Elem()) {
		return fmt.Errorf("arrived as %.200s, want %.200s", fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", v))
	}
	return nil
}

type (
	Named    string
	Level    uint8
	Bits     []byte
	Celsius  float64
	Point    struct{ X, Y int32 }
	Inner    struct{ A, B int }
	hidden   struct{ H string }
	Embedder struct {
		Inner
		*Point
		hidden
		C int
	}
	Tagged struct {
		Short  int               `cbor:"s"`
		JSON   string            `json:"j,omitempty"`
		Num    bool              `cbor:"7,keyasint"`
		Empty  []int             `cbor:",omitempty"`
		Zero   time.Duration     `cbor:",omitzero"`
		A      int               // differs from the next in case only
		Lower  int               `cbor:"a"`
		Both   map[string]string `cbor:"" json:"both"`
		Seven  int               `cbor:"7"` // text, not the number
		Quoted string            `cbor:"a name longer than twenty-three bytes"`
	}
	Tuple struct {
		_ struct{} `cbor:",toarray"`
		A int
		B string `cbor:",omitempty"`
	}
	Left struct {
		Keep  int
		Fn    func()       `cbor:"-"`
		Ch    chan int     `json:"-"`
		state atomicNumber `cbor:"-"`
	}
	atomicNumber struct{ n int }
	List         struct {
		V    int
		Next *List
	}
	Tree struct {
		V    string
		Kids []Tree
		By   map[string]*Tree
	}
	Stamp struct{ time.Time } // marshals itself as the time does
	Pair  struct{ a, b int }  // has methods
	Word  struct{ w string }  // has methods
	Raw   struct{ n byte }    // has methods
	Own   struct {            // has methods of its own besides those it embeds
		time.Time
		N int
	}
)

// Two that marshal themselves, side by side: neither speaks for what embeds both.
type (
	North struct{ N int }
	South struct{ S string }
	Poles struct {
		North
		South
	}
	Anything interface{}
)

func (North) MarshalText() ([]byte, error) { return []byte("north"), nil }
func (*North) UnmarshalText([]byte) error  { return nil }
func (South) MarshalText() ([]byte, error) { return []byte("south"), nil }
func (*South) UnmarshalText([]byte) error  { return nil }

func (p Pair) MarshalBinary() ([]byte, error) { return []byte{byte(p.a), byte(p.b)}, nil }
func (p *Pair) UnmarshalBinary(b []byte) error {
	if len(b) != 2 {
		return errors.New("a pair has 2 bytes")
	}
	p.a, p.b = int(b[0]), int(b[1])
	return nil
}
func (w *Word) MarshalText() ([]byte, error) { return []byte(w.w), nil }
func (w *Word) UnmarshalText(b []byte) error { w.w = string(b); return nil }
func (r Raw) MarshalCBOR() ([]byte, error)   { return []byte{0x18, r.n}, nil }
func (r *Raw) UnmarshalCBOR(b []byte) error  { r.n = b[len(b)-1]; return nil }
func (o Own) MarshalBinary() ([]byte, error) { return fmt.Appendf(nil, "%d %d", o.Unix(), o.N), nil }

func (o *Own) UnmarshalBinary(b []byte) error {
	var s int64
	_, err := fmt.Sscan(string(b), &s, &o.N)
	o.Time = time.Unix(s, 0).UTC()
	return err
}

func list(n int) *List {
	var l *List
	for i := range n {
		l = &List{V: i, Next: l}
	}
	return l
}

func ptr[T any](v T) *T { return &v }

var (
	zoned   = time.Date(2024, 2, 29, 23, 59, 59, 123456789, time.FixedZone("", -(3*60+30)*60))
	huge, _ = new(big.Int).SetString("-123456789012345678901234567890", 10)
	nan     = math.Float64frombits(0x7ff8_0000_dead_beef)
)

// What Check accepts arrives without loss, down to the payload of a NaN.
func TestAcceptedArrivesAsItWas(t *testing.T) {
	for name, err := range map[string]error{
		"bool":            kept(true),
		"int8":            kept(int8(math.MinInt8)),
		"int16":           kept(int16(math.MinInt16)),
		"int32":           kept(int32(math.MinInt32)),
		"int64 min":       kept(int64(math.MinInt64)),
		"int64 max":       kept(int64(math.MaxInt64)),
		"int":             kept(-1),
		"uint8":           kept(uint8(math.MaxUint8)),
		"uint16":          kept(uint16(math.MaxUint16)),
		"uint32":          kept(uint32(math.MaxUint32)),
		"uint64":          kept(uint64(math.MaxUint64)),
		"uint":            kept(uint(24)),
		"float64":         kept([]float64{0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), math.NaN(), nan, math.SmallestNonzeroFloat64, math.MaxFloat64, 1e100, 0.1}),
		"float32":         kept([]float32{0, float32(math.Copysign(0, -1)), float32(math.Inf(1)), float32(math.NaN()), math.Float32frombits(0x7fc0_beef), math.SmallestNonzeroFloat32, math.MaxFloat32, 0.1}),
		"string":          kept([]string{"", "å\x00", "not UTF-8: \xff\xfe", strings.Repeat("x", 70_000)}),
		"named kinds":     kept(map[Named]Celsius{"a": -273.15, "\xff": 1}),
		"duration":        kept(time.Nanosecond),
		"bytes":           kept([][]byte{nil, {}, {0}, bytes.Repeat([]byte{7}, 300)}),
		"named bytes":     kept(struct{ B, Nil Bits }{B: Bits{1, 2}}),
		"bytes of levels": kept([]Level{1, 255}),
		"byte array":      kept([5]byte{1, 2, 3, 4, 255}),
		"level array":     kept(ptr([3]Level{1, 2})),
		"no array":        kept(struct{ N [0]int }{}),
		"no bytes":        kept([0]byte{}),
		"array":           kept([3]string{"a", "", "c"}),
		"nil slice":       kept([]int(nil)),
		"empty slice":     kept([]int{}),
		"nil map":         kept(map[string]int(nil)),
		"empty map":       kept(map[string]int{}),
		"nil in slices":   kept([][]int{nil, {}, {1}}),
		"nil in maps":     kept(map[string]map[int]*int{"a": nil, "b": {}, "c": {1: nil, 2: ptr(3)}}),
		"set":             kept(map[string]struct{}{"a": {}}),
		"struct key":      kept(map[Point]map[[2]byte][]string{{1, -2}: {{3, 4}: {"x"}}, {}: nil}),
		"float key":       kept(map[float64]bool{math.Inf(-1): true, 0.5: true}),
		"bool key":        kept(map[bool]int{true: 1, false: 2}),
		"address key":     kept(map[netip.Addr]int{netip.MustParseAddr("fe80::1%eth0"): 1, {}: 2}),
		"time key":        kept(map[time.Time]int{time.Date(2024, 1, 1, 0, 0, 0, 1, time.UTC): 1}),
		"own key":         kept(map[Word]Pair{{"k"}: {1, 2}}),
		"time":            kept([]time.Time{zoned, zoned.UTC(), {}, time.Unix(0, 0).UTC(), time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC), time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)}),
		"time pointers":   kept([]*time.Time{nil, &zoned}),
		"embedded time":   kept(Stamp{zoned.UTC()}),
		"big":             kept([]*big.Int{nil, new(big.Int), huge, big.NewInt(-1), new(big.Int).Lsh(big.NewInt(1), 64)}),
		"big value":       kept(map[string]big.Int{"x": *huge, "y": *big.NewInt(7)}),
		"rational":        kept(big.NewRat(-1, 3)),
		"address":         kept([]netip.AddrPort{{}, netip.MustParseAddrPort("[::1]:80")}),
		"url":             kept(url.URL{Scheme: "https", Host: "example.com", Path: "/a b"}),
		"pointers":        kept(struct{ A, B *string }{B: ptr("")}),
		"slice pointers":  kept([]*[]int{nil, {}, {1}}),
		"struct": kept(struct {
			A struct{ B struct{ C []Point } }
		}{}),
		"empty struct":   kept(struct{}{}),
		"embedded":       kept(Embedder{Inner{1, 2}, &Point{3, 4}, hidden{"h"}, 5}),
		"embedded nil":   kept(Embedder{}),
		"tagged":         kept(Tagged{1, "j", true, []int{1}, 2, 3, 4, map[string]string{}, 7, "q"}),
		"tagged zero":    kept(Tagged{}),
		"tuple":          kept([]Tuple{{A: 1, B: "b"}, {}}),
		"left out":       kept(Left{Keep: 1, state: atomicNumber{0}}),
		"list":           kept(list(9_000)),
		"longest list":   kept(list(MaxDepth)),
		"tree":           kept(Tree{"r", []Tree{{"a", nil, map[string]*Tree{"b": {V: "c"}}}}, nil}),
		"binary":         kept([]Pair{{1, 2}, {}}),
		"binary pointer": kept([]*Pair{{1, 2}, nil}),
		"text":           kept(map[string]Word{"a": {"w"}}),
		"cbor":           kept([]Raw{{200}}),
		"own over":       kept(Own{time.Unix(9, 0).UTC(), 5}),
		"embedded texts": kept(Poles{North{1}, South{"s"}}),
		"named any":      kept(map[string]Anything{"a": "x", "b": nil}),
		"any":            kept([]any{nil, true, int64(math.MinInt64), int64(7), -0.5, "s", []byte{1}, []any{map[string]any{"k": zoned}}, *huge}),
		"any map":        kept(map[string]any{"a": []any{}, "b": map[string]any{}, "c": []byte{}}),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Inside an interface the numbers change their types, and typed nils lose theirs.
func TestWhatAnyArrivesAs(t *testing.T) {
	c, err := Check(reflect.TypeFor[any]())
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ v, want any }{
		{7, int64(7)},
		{int8(-7), int64(-7)},
		{uint64(math.MaxInt64), int64(math.MaxInt64)},
		{uint64(math.MaxUint64), *new(big.Int).SetUint64(math.MaxUint64)},
		{float32(0.5), 0.5},
		{nan, nan},
		{[]byte(nil), nil},
		{[]any(nil), nil},
		{map[string]any(nil), nil},
		{[]any{1, "a", nil}, []any{int64(1), "a", nil}},
		{"2024-02-29T23:59:59Z", "2024-02-29T23:59:59Z"},
		{*big.NewInt(5), int64(5)},
		{zoned, zoned},
	} {
		var got any
		data, err := Encode(nil, &tc.v)
		if err == nil {
			err = errors.Join(c.Value(&tc.v), Decode(data, &got))
		}
		if err != nil || !same(reflect.ValueOf(&got).Elem(), reflect.ValueOf(&tc.want).Elem()) {
			t.Errorf("%T %v: arrived as %T %v, error %v; want %T", tc.v, tc.v, got, got, err, tc.want)
		}
		if err := c.Value(&got); err != nil {
			t.Errorf("%T %v: what arrived cannot be sent on: %v", tc.v, tc.v, err)
		}
	}
}

// Faulty has marshalling methods that go wrong as its value says.
type Faulty string

func (f Faulty) goWrong() error {
	switch {
	case strings.HasPrefix(string(f), "panic"):
		panic(errors.New(string(f)))
	case f == "nil map":
		reflect.ValueOf(map[string]int(nil)).SetMapIndex(reflect.ValueOf("x"), reflect.ValueOf(1))
	case f == "EOF":
		return io.EOF
	case f != "":
		return errors.New(string(f))
	}
	return nil
}

func (f Faulty) MarshalText() ([]byte, error)   { return []byte("text"), f.goWrong() }
func (*Faulty) UnmarshalText(text []byte) error { return Faulty(text).goWrong() }

// badCBOR marshals itself into what is not one item.
type badCBOR struct{}

func (badCBOR) MarshalCBOR() ([]byte, error) { return []byte{0x82, 0x01}, nil }
func (*badCBOR) UnmarshalCBOR([]byte) error  { return nil }

func TestEncodeErrorLeavesDst(t *testing.T) {
	for _, tc := range []struct {
		v    any
		want string
	}{
		{ptr(Faulty("panic in marshal")), "panic while encoding: panic in marshal"},
		{ptr(Faulty("nil map")), "panic while encoding: assignment to entry in nil map"},
		{&struct {
			A int
			F []Faulty
		}{1, []Faulty{"refused"}}, "refused"},
		{&map[Faulty]int{"panic in key": 1}, "panic in key"},
		{&badCBOR{}, "MarshalCBOR"},
		{ptr(make(chan int)), "unsupported type: *chan int"},
		{&[]any{1, "two", func() {}}, "unsupported type: func()"},
		{ptr(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)), "year outside of range"},
		{ptr(time.Date(2000, 1, 1, 0, 0, 0, 0, time.FixedZone("", 25*3600))), "offset outside of range"},
	} {
		dst := append(make([]byte, 0, 100), "before"...)
		out, err := Encode(dst, tc.v)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%T: got error %v, want %q", tc.v, err, tc.want)
		}
		if string(out) != "before" || &out[0] != &dst[0] {
			t.Errorf("%T: dst became %q", tc.v, out)
		}
	}
}

func TestEncodeAppends(t *testing.T) {
	for _, room := range []int{0, 100} {
		dst := append(make([]byte, 0, 6+room), "before"...)
		out, err := Encode(dst, ptr("x"))
		if err != nil || string(out) != "before\x61x" {
			t.Errorf("with room for %d: got %q, %v", room, out, err)
		}
		if room > 0 && &out[0] != &dst[0] {
			t.Error("Encode did not use the room that dst has")
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	nest := func(head string, n int) string { return strings.Repeat(head, n) }
	text := func(s string) string { return hex.EncodeToString(append([]byte{0x60 + byte(len(s))}, s...)) }
	for _, tc := range []struct {
		name, data string
		into       any
		want       string
	}{
		{"nothing", "", new(int), "cut short"},
		{"cut text", "636161", new(string), "cut short"},
		{"cut array", "8201", new([]int), "cut short"},
		{"garbage after it", "0101", new(int), "extraneous"},
		{"two items", "6161f6", new(string), "extraneous"},
		{"300 in uint8", "19012c", new(uint8), "overflows uint8"},
		{"-129 in int8", "3880", new(int8), "overflows int8"},
		{"-1 in uint", "20", new(uint), "cannot unmarshal negative integer"},
		{"2^63 in int64", "1b8000000000000000", new(int64), "overflows int64"},
		{"0.5 in int", "f93800", new(int), "cannot unmarshal"},
		{"1e300 in float32", "fb7e37e43c8800759c", new(float32), "overflows float32"},
		{"text in int", "6131", new(int), "cannot unmarshal UTF-8 text"},
		{"int in text", "01", new(string), "cannot unmarshal positive integer"},
		{"bytes in text", "4161", new(string), "cannot unmarshal byte string"},
		{"field by name", "a161586178", new(Point), "wire.Point.X"},
		{"array in struct", "820102", new(Point), "toarray"},
		{"wrong tuple", "8101", new(Tuple), "different number of elements"},
		{"a key twice", "a2616101616102", new(map[string]int), "duplicate map key"},
		{"a field twice", "a2615801615802", new(Point), "duplicate map key"},
		{"int key in any", "a10102", new(any), "cannot unmarshal positive integer"},
		{"array without length", "9f01ff", new([]int), "indefinite-length array"},
		{"map without length", "bf616101ff", new(any), "indefinite-length map"},
		{"text without length", "7f6161ff", new(string), "indefinite-length UTF-8"},
		{"break", "ff", new(any), "break"},
		{"reserved head", "1c", new(any), "invalid additional information"},
		{"no such time", "c06161", new(time.Time), "cannot set a for time.Time"},
		{"date that is none", "c001", new(any), "tag number 0"},
		{"deep array", nest("81", MaxDepth+101) + "00", new(any), "exceeded max nested level"},
		{"deep map", nest("a160", MaxDepth+101) + "00", new(any), "exceeded max nested level"},
		{"deep tag", nest("c6", MaxDepth+102) + "00", new(any), "exceeded max nested level"},
		{"deep nothing", nest("81", 1<<20), new(int), "exceeded max nested level"},
		{"panic in method", text("panic in it"), new(Faulty), "panic while decoding: panic in it"},
		{"panic in key", "a1" + text("nil map") + "00", new(map[Faulty]int), "panic while decoding: assignment to entry in nil map"},
		{"panic deeper", "a1" + "6161" + "81" + text("panic deeper"), new(map[string][]Faulty), "panic deeper"},
		{"error in method", text("refused"), new(*Faulty), "refused"},
		{"bytes for a pair", "43010203", new(Pair), "a pair has 2 bytes"},
	} {
		data, err := hex.DecodeString(tc.data)
		if err != nil {
			t.Fatal(tc.name, err)
		}
		err = Decode(data, tc.into)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got error %v, want %q", tc.name, err, tc.want)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: the error looks like the end of a stream", tc.name)
		}
	}
}

// A length that is announced, but not there, must not reserve memory.
func TestDecodeReservesNothingForWhatIsNotThere(t *testing.T) {
	for _, head := range []string{"9a7fffffff", "9b000000007fffffff", "9bffffffffffffffff", "ba7fffffff", "5a7fffffff", "7b7fffffffffffffff", "c25a7fffffff"} {
		data, _ := hex.DecodeString(head + "0000")
		for _, into := range []any{new(any), new([]int), new(map[int]int), new(string), new([]byte), new(big.Int), new(Failure)} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := Decode(data, into)
			runtime.ReadMemStats(&after)
			if got := after.TotalAlloc - before.TotalAlloc; err == nil || got > 1<<20 {
				t.Errorf("%s into %T: reserved %d bytes, error %v", head, into, got, err)
			}
		}
	}
}

func TestDecodeKeepsNothingOfData(t *testing.T) {
	type all struct {
		S string
		B []byte
		A any
		T Named
		K map[string][]byte
		R Word
	}
	want := all{"string", []byte("bytes"), []any{[]byte("in"), "any"}, "named", map[string][]byte{"key": []byte("value")}, Word{"word"}}
	data, err := Encode(nil, &want)
	if err != nil {
		t.Fatal(err)
	}
	var got all
	if err := Decode(data, &got); err != nil {
		t.Fatal(err)
	}
	clear(data)
	if !same(reflect.ValueOf(got), reflect.ValueOf(want)) {
		t.Errorf("after data was cleared: %+v", got)
	}
}

// Names are matched exactly where there is an exact match, in any order; only a
// key of no field goes to the field that differs in case. A key of no field at all
// is ignored, and a field without a key stays zero.
func TestFieldNames(t *testing.T) {
	type names struct {
		A     int
		Lower int `cbor:"a"`
		Other int
	}
	for _, tc := range []struct {
		data string
		want names
	}{
		{"a2614101616102", names{A: 1, Lower: 2}},
		{"a2616102614101", names{A: 1, Lower: 2}},
		{"a1616102", names{Lower: 2}},
		{"a1614101", names{A: 1}},
		{"a1656f7468657203", names{Other: 3}},
		{"a1617a03", names{}},
		{"f6", names{}},
	} {
		data, _ := hex.DecodeString(tc.data)
		var got names
		if err := Decode(data, &got); err != nil || got != tc.want {
			t.Errorf("%s: got %+v, %v, want %+v", tc.data, got, err, tc.want)
		}
	}
}

// What a tag leaves out when it is empty arrives as the zero value, be it another
// empty one.
func TestOmitEmpty(t *testing.T) {
	type omits struct {
		Slice []int          `cbor:",omitempty"`
		Map   map[string]int `json:"map,omitempty"`
		Float float64        `cbor:",omitempty"`
		Time  time.Time      `cbor:",omitzero"`
		Int   *int           `cbor:",omitempty"`
	}
	in := omits{Slice: []int{}, Map: map[string]int{}, Float: math.Copysign(0, -1), Time: time.Time{}.Local(), Int: new(int)}
	data, err := Encode(nil, &in)
	if err != nil {
		t.Fatal(err)
	}
	var got omits
	if err := Decode(data, &got); err != nil || !same(reflect.ValueOf(got), reflect.ValueOf(omits{Int: new(int)})) {
		t.Errorf("got %+v, %v", got, err)
	}
}

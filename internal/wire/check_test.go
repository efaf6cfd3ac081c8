package wire

import (
	"encoding"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

type (
	Opaque  struct{ A, secret int }
	Holder  struct{ Deep []map[string]*Opaque }
	opaque  struct{ secret int }
	Hides   struct{ opaque }
	Locked  struct{ Mu sync.Mutex }
	Locker  struct{ sync.Mutex }
	Counter struct{ N *atomic.Int64 }
	Event   struct { // loses Name: it is sent as its time is
		time.Time
		Name string
	}
	Hidden struct { // so does this, although the time is to be left out
		time.Time `cbor:"-"`
		Name      string
	}
	HalfOwn struct { // sends all, reads the time only
		time.Time
		Name string
	}
	Generic[T any] struct {
		netip.Addr
		V T
	}
	OwnGeneric[T any] struct {
		netip.Addr
		V T
	}
	AtPointer struct{ *netip.Addr }
	Iface     struct{ textPair }
	textPair  interface {
		encoding.TextMarshaler
		encoding.TextUnmarshaler
	}
	WriteOnly struct{ N int }
	ReadOnly  string
	Shadow    struct {
		Inner
		A string // shadows Inner.A
	}
	Renamed struct {
		A int
		B int `json:"A"`
	}
	Numbered struct {
		A int `cbor:"1,keyasint"`
		B int `cbor:"+1,keyasint"`
	}
	NotNumbered struct {
		A int `cbor:"a,keyasint"`
	}
	SameTwice struct {
		Left2
		Right2
	}
	Left2    struct{ Inner }
	Right2   struct{ Inner }
	AtHidden struct{ *hidden }
	Itself   struct {
		*Itself
		X int
	}
	TupleOf struct {
		_ struct{} `cbor:",toarray"`
		*Inner
	}
	Endless struct {
		_ struct{} `cbor:",toindefarray"`
		A int
	}
	Maybe struct {
		*Optional
		X int
	}
	Optional struct {
		N int `cbor:",omitempty"`
	}
	EndlessPointer *EndlessPointer
	KeyStruct      struct{ P *int }
)

func (e HalfOwn) MarshalBinary() ([]byte, error)     { return e.Time.MarshalBinary() }
func (OwnGeneric[T]) MarshalBinary() ([]byte, error) { return nil, nil }
func (*OwnGeneric[T]) UnmarshalBinary([]byte) error  { return nil }
func (WriteOnly) MarshalText() ([]byte, error)       { return nil, nil }
func (*ReadOnly) UnmarshalText([]byte) error         { return nil }

// refusal is a type that Check refuses, and a value of it.
type refusal struct {
	t        reflect.Type
	why      []string
	survives func() error
}

// refuse says that Check refuses T because a v of it would not survive, for which
// reasons see why.
func refuse[T any](v T, why ...string) refusal {
	return refusal{reflect.TypeFor[T](), why, func() error { return survives(v) }}
}

// Each refusal names the field and says what to do, and is not made in vain: the
// value would be lost on the way, or fail.
func TestCheckRefusesWhatWouldBeLost(t *testing.T) {
	inner := Inner{1, 2}
	locked, locker, counter := &Locked{}, &Locker{}, Counter{new(atomic.Int64)}
	locked.Mu.Lock()
	locker.Lock()
	counter.N.Store(1)
	for _, r := range []refusal{
		refuse(func() {}, "func(): a func() means nothing in another process", "leave it out"),
		refuse(struct{ F func() }{func() {}}, ".F: a func()", "tag the field `cbor:\"-\"`"),
		refuse([]chan int{nil, make(chan int)}, "[]chan int: a chan int means nothing"),
		refuse(reflect.ValueOf(&inner).UnsafePointer(), "a unsafe.Pointer means nothing in another process"),
		refuse(uintptr(1), "a uintptr means nothing"),
		refuse([]complex128{1i}, "no complex numbers; send two floats"),
		refuse(map[string]complex64{"": 1}, "no complex numbers"),
		refuse(struct{ R io.Reader }{strings.NewReader("x")}, ".R: the receiver cannot know which type to make of io.Reader", "use a concrete type"),
		refuse(struct{ Err error }{io.EOF}, ".Err: the receiver cannot know which type to make of error"),
		refuse(Opaque{1, 2}, "wire.Opaque.secret: an unexported field would be lost", "export it, tag it `cbor:\"-\"`, or give wire.Opaque MarshalBinary"),
		refuse(Holder{[]map[string]*Opaque{{"": {1, 2}}}}, "wire.Holder.Deep.secret: an unexported field"),
		refuse(Hides{opaque{1}}, "wire.Hides.opaque.secret: an unexported field", "give wire.Hides Marshal"),
		refuse(map[opaque]int{{1}: 1}, "map[wire.opaque]int (key).secret: an unexported field"),
		refuse([1]struct{ Opaque }{{Opaque{1, 2}}}, ".Opaque.secret: an unexported field"),
		refuse(locked, "*wire.Locked.Mu: a sync.Mutex keeps its state in unexported fields", "tag the field `cbor:\"-\"`"),
		refuse(locker, "*wire.Locker.Mutex: a sync.Mutex keeps its state in unexported fields"),
		refuse(counter, "wire.Counter.N: a atomic.Int64 keeps its state in unexported fields"),
		refuse(map[*int]int{new(int): 1}, "a map whose keys hold a pointer or an interface", "use plain values"),
		refuse(map[KeyStruct]int{{new(int)}: 1}, "a map whose keys hold a pointer"),
		refuse(map[any]int{1: 1}, "a map whose keys hold a pointer or an interface"),
		refuse(map[[1]any]int{{1}: 1}, "a map whose keys hold"),
		refuse([]WriteOnly{{1}}, "wire.WriteOnly has MarshalText but no UnmarshalText, so it cannot be read back; add that"),
		refuse(struct{ R ReadOnly }{"x"}, ".R: wire.ReadOnly has UnmarshalText but no MarshalText, so it cannot be sent; add that"),
		refuse(Event{zoned, "name"}, "wire.Event has MarshalBinary from an embedded field", "name the field or give wire.Event its own method"),
		refuse(&Hidden{zoned, "name"}, "wire.Hidden has MarshalBinary from an embedded field"),
		refuse(HalfOwn{zoned, "name"}, "wire.HalfOwn has UnmarshalBinary from an embedded field"),
		refuse(Generic[int]{V: 1}, "wire.Generic[int] has MarshalBinary from an embedded field"),
		refuse(AtPointer{&netip.Addr{}}, "wire.AtPointer has MarshalBinary from an embedded field"),
		refuse(Iface{&Word{"w"}}, "wire.Iface has MarshalText from an embedded field"),
		refuse(Shadow{inner, "outer"}, "wire.Shadow.Inner.A and wire.Shadow.A are both called \"A\", so one would be lost; rename one or tag it"),
		refuse(Renamed{1, 2}, "wire.Renamed.A and wire.Renamed.B are both called \"A\""),
		refuse(Numbered{1, 2}, "wire.Numbered.A and wire.Numbered.B are both called 1"),
		refuse(NotNumbered{1}, "wire.NotNumbered.A: keyasint needs a number for a name, not \"a\""),
		refuse(SameTwice{Left2{inner}, Right2{inner}}, "wire.SameTwice.Left2.Inner.A and wire.SameTwice.Right2.Inner.A are both called"),
		refuse(AtHidden{&hidden{"h"}}, "wire.AtHidden.hidden: an embedded pointer to an unexported type", "embed the struct itself"),
		refuse(Itself{&Itself{nil, 1}, 2}, "wire.Itself.Itself: a struct that embeds itself would lose fields; name the field"),
		refuse(TupleOf{}, "wire.TupleOf.Inner: an embedded nil pointer would not arrive as nil"),
		refuse(Endless{A: 1}, "toindefarray is not supported; use toarray"),
		refuse(Maybe{&Optional{}, 1}, "wire.Maybe.Optional: an embedded pointer arrives as nil when no field of wire.Optional is sent"),
		refuse(struct{ P **int }{new(*int)}, ".P: a pointer to a nil *int would arrive as a nil pointer; use *int itself"),
		refuse(struct{ F []*big.Float }{[]*big.Float{big.NewFloat(0.1)}}, ".F: the text of a big.Float leaves out its precision", "send the bytes of its GobEncode"),
		refuse([]*any{new(any)}, "a pointer to a nil interface {} would arrive as a nil pointer"),
	} {
		_, err := Check(r.t)
		for _, why := range r.why {
			if err == nil || !strings.Contains(err.Error(), why) {
				t.Errorf("%s: got error %v, want %q", r.t, err, why)
			}
		}
		if r.survives() == nil {
			t.Errorf("%s: refused without need", r.t)
		}
	}
	if _, err := Check(reflect.TypeFor[EndlessPointer]()); err == nil {
		t.Error("a pointer to itself is accepted")
	}
}

// Types that look like refused ones.
func TestCheckAccepts(t *testing.T) {
	for _, ty := range []reflect.Type{
		reflect.TypeFor[OwnGeneric[int]](),
		reflect.TypeFor[struct{ big.Int }](),
		reflect.TypeFor[struct {
			time.Time
			_     struct{}
			cache func() `cbor:"-"`
		}](),
		reflect.TypeFor[struct {
			A int `cbor:"-"`
			B int `cbor:"A"`
			C int `cbor:"-,"`
		}](),
		reflect.TypeFor[struct {
			_ func()
			X int
		}](),
	} {
		if _, err := Check(ty); err != nil {
			t.Errorf("%s: %v", ty, err)
		}
	}
}

// Values of closed types are not looked at, and of open types only the open parts.
func TestValueLooksAtOpenPartsOnly(t *testing.T) {
	type mixed struct {
		Big  map[string][]Point
		Open any
		Text [1000]string
		Time time.Time
		More *[]int
	}
	for ty, want := range map[reflect.Type][]int{
		reflect.TypeFor[int]():              nil,
		reflect.TypeFor[map[Point]Tagged](): nil,
		reflect.TypeFor[[]*Embedder]():      nil,
		reflect.TypeFor[mixed]():            {1, 3, 4},
		reflect.TypeFor[List]():             {1},
		reflect.TypeFor[Tree]():             {1, 2},
	} {
		c, err := Check(ty)
		if err != nil || (c.open == nil) != (want == nil) || !reflect.DeepEqual(c.open[ty], want) {
			t.Errorf("%s: open are %v, want fields %v, error %v", ty, c.open, want, err)
		}
	}
	c, _ := Check(reflect.TypeFor[[]Point]())
	points := make([]Point, 10)
	if n := testing.AllocsPerRun(100, func() { c.Value(&points) }); n != 0 {
		t.Errorf("the check of a closed value makes %v allocations", n)
	}
}

func TestValueRefuses(t *testing.T) {
	type node struct {
		Before []any
		Next   *node
		Any    any
		Kids   []node
		By     map[string]*node
		Time   *time.Time
		Strs   *[]string
		Map    map[string]*map[int]int
	}
	big := make([]any, 10_000)
	loop := &node{Before: big}
	loop.Next = &node{Next: loop}
	slice := make([]any, 1)
	slice[0] = slice
	kids := make([]node, 1)
	kids[0].Kids = kids
	table := map[string]any{}
	table["x"] = []any{table}
	by := map[string]*node{}
	by["x"] = &node{By: by}
	deep := any(nil)
	for range MaxDepth {
		deep = []any{deep}
	}
	amsterdam := time.Date(1900, 1, 1, 0, 0, 0, 0, time.FixedZone("AMT", 19*60+32))
	for _, tc := range []struct {
		name string
		v    node
		want string
	}{
		{"pointer cycle", *loop, "*wire.node contains itself"},
		{"slice cycle", node{Any: slice}, "[]interface {} contains itself"},
		{"slice of structs cycle", node{Kids: kids}, "[]wire.node contains itself"},
		{"map cycle", node{Any: table}, "contains itself"},
		{"map of pointers cycle", node{By: by}, "contains itself"},
		{"too deep", node{Any: deep}, "nested too deeply: more than 10000 levels"},
		{"func", node{Any: func() {}}, "a func() in an interface cannot be rebuilt"},
		{"struct", node{Next: &node{Any: Point{}}}, "a wire.Point in an interface"},
		{"pointer", node{Kids: []node{{Any: new(int)}}}, "a *int in an interface"},
		{"named", node{Any: []any{1, Named("x")}}, "a wire.Named in an interface"},
		{"duration", node{Any: map[string]any{"d": time.Second}}, "a time.Duration in an interface"},
		{"strings", node{Any: []string{"x"}}, "use a concrete type, or only nil, bool, numbers, string, []byte, time.Time, []any and map[string]any"},
		{"error", node{Any: io.EOF}, "a *errors.errorString in an interface"},
		{"complex", node{Any: 1i}, "a complex128 in an interface"},
		{"other map", node{Any: map[any]any{}}, "a map[interface {}]interface {} in an interface"},
		{"zero time", node{Any: time.Time{}.Local()}, "the zero time.Time in an interface would arrive as nil"},
		{"pointer to zero time", node{Time: new(time.Time)}, "a *time.Time that points to the zero time would arrive as a nil pointer"},
		{"pointer to nil slice", node{Strs: new([]string)}, "a *[]string that points to nil would arrive as a nil pointer"},
		{"pointer to nil map", node{Map: map[string]*map[int]int{"": new(map[int]int)}}, "a *map[int]int that points to nil"},
		{"seconds in zone", node{Time: &amsterdam}, "time 1900-01-01T00:00:00+00:19:32: the seconds of its offset"},
		{"seconds in any", node{Any: []any{amsterdam}}, "send its UTC()"},
	} {
		c, err := Check(reflect.TypeFor[node]())
		if err != nil {
			t.Fatal(err)
		}
		err = c.Value(&tc.v)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got error %v, want %q", tc.name, err, tc.want)
		}
		if deep := strings.Contains(tc.want, "itself") || strings.Contains(tc.want, "too deep"); errors.Is(err, ErrTooDeep) != deep {
			t.Errorf("%s: errors.Is(%v, ErrTooDeep) is %t", tc.name, err, !deep)
		}
	}
	c, err := Check(reflect.TypeFor[map[time.Time]int]())
	if err = errors.Join(err, c.Value(&map[time.Time]int{amsterdam: 1})); err == nil {
		t.Error("seconds in the zone of a key are accepted")
	}
}

// What is shared but no cycle passes, also below the depth where cycles are looked for.
func TestValueAcceptsSharing(t *testing.T) {
	shared := &List{V: 1}
	v := any([]any{1, "x"})
	for range 2 * watchFrom {
		v = []any{v, map[string]any{"a": []any{}, "b": []byte{}}}
	}
	c, err := Check(reflect.TypeFor[struct {
		L []*List
		A any
	}]())
	if err != nil {
		t.Fatal(err)
	}
	both := []any{v, v, nil}
	if err := c.Value(&struct {
		L []*List
		A any
	}{[]*List{shared, shared, list(9_000)}, both}); err != nil {
		t.Error(err)
	}
	if err := c.Value(&struct {
		L []*List
		A any
	}{[]*List{list(MaxDepth)}, nil}); !errors.Is(err, ErrTooDeep) {
		t.Errorf("%d levels: got error %v", MaxDepth+2, err)
	}
}

func ExampleCheck() {
	type Job struct {
		Name string
		Done chan bool
	}
	_, err := Check(reflect.TypeFor[Job]())
	fmt.Println(err)
	// Output: wire.Job.Done: a chan bool means nothing in another process; leave it out of the type or tag the field `cbor:"-"`
}

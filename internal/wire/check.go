package wire

import (
	"encoding"
	"fmt"
	"math/big"
	"reflect"
	"runtime"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// A Checker knows what of a type can be known before any value is seen, and looks
// at values where that is not enough.
type Checker struct {
	// open holds the types whose values have to be looked at, with the fields to
	// look into where the type is a struct.
	open map[reflect.Type][]int
}

// Check reports whether values of type t survive the way to another process and
// back: functions, channels, unexported fields and the like do not, and an error
// names the field and says what to do. Nothing is dropped in silence.
func Check(t reflect.Type) (Checker, error) {
	c := checker{seen: map[reflect.Type]bool{}, open: map[reflect.Type][]int{}}
	open, err := c.check(t, t.String())
	if err != nil || !open {
		return Checker{}, err
	}
	return Checker{c.open}, nil
}

type checker struct {
	seen map[reflect.Type]bool // false while being checked, true afterwards
	open map[reflect.Type][]int
	home string // package of the outermost struct, whose author reads the errors
}

// check checks t, found at path, and reports whether its values are open: whether
// some of the answer depends on the value.
func (c *checker) check(t reflect.Type, path string) (open bool, err error) {
	if done, seen := c.seen[t]; seen {
		_, open = c.open[t]
		return open || !done, nil // a type that contains itself may hold a cycle
	}
	c.seen[t] = false
	defer func() {
		c.seen[t] = true
		if _, known := c.open[t]; open && !known {
			c.open[t] = nil
		}
	}()
	if itself, err := marshalsItself(t); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	} else if itself {
		return t == timeType, nil
	}
	switch t.Kind() {
	case reflect.Func, reflect.Chan, reflect.UnsafePointer, reflect.Uintptr:
		return false, fmt.Errorf("%s: a %s means nothing in another process; leave it out of the type or tag the field `cbor:\"-\"`", path, t)
	case reflect.Complex64, reflect.Complex128:
		return false, fmt.Errorf("%s: CBOR has no complex numbers; send two floats", path)
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return false, fmt.Errorf("%s: the receiver cannot know which type to make of %s; use a concrete type", path, t)
		}
		c.open[sliceOfAny], c.open[mapOfAny], c.open[reflect.TypeFor[any]()] = nil, nil, nil
		return true, nil
	case reflect.Pointer:
		return c.checkPointer(t.Elem(), path)
	case reflect.Slice, reflect.Array:
		return c.check(t.Elem(), path)
	case reflect.Map:
		if !plainKey(t.Key()) {
			return false, fmt.Errorf("%s: a map whose keys hold a pointer or an interface has other keys after the way; use plain values as keys", path)
		}
		if open, err = c.check(t.Key(), path+" (key)"); err != nil {
			return false, err
		}
		elem, err := c.check(t.Elem(), path)
		return open || elem, err
	case reflect.Struct:
		return c.checkStruct(t, path)
	}
	return false, nil
}

// checkPointer checks a pointer to e. A pointer to something that is sent as a
// null arrives as a nil pointer.
func (c *checker) checkPointer(e reflect.Type, path string) (open bool, err error) {
	if k := e.Kind(); k == reflect.Pointer || k == reflect.Interface {
		return false, fmt.Errorf("%s: a pointer to a nil %s would arrive as a nil pointer; use %s itself", path, e, e)
	}
	if open, err = c.check(e, path); err != nil {
		return false, err
	}
	itself, _ := marshalsItself(e)
	return open || !itself && (e.Kind() == reflect.Slice || e.Kind() == reflect.Map), nil
}

// plainKey reports whether a key of type t is equal to itself after the way.
func plainKey(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Interface:
		return false
	case reflect.Array:
		return plainKey(t.Elem())
	case reflect.Struct:
		if itself, _ := marshalsItself(t); itself {
			return true
		}
		for f := range t.Fields() {
			if _, skip := tagOf(f); !skip && f.Name != "_" && !plainKey(f.Type) {
				return false
			}
		}
	}
	return true
}

// marshalsItself reports whether t has its own encoding, in both directions.
func marshalsItself(t reflect.Type) (bool, error) {
	if t == timeType || t == bigType {
		return true, nil
	}
	if t == floatType {
		return false, fmt.Errorf("the text of a %s leaves out its precision, so another number would arrive; send the bytes of its GobEncode", t)
	}
	if t.Kind() == reflect.Pointer || t.Kind() == reflect.Interface {
		return false, nil // the element decides
	}
	p := reflect.PointerTo(t)
	for _, m := range selfMarshalling {
		to, from := m[0], m[1]
		switch sends, reads := p.Implements(to.iface), p.Implements(from.iface); {
		case !sends && !reads:
			continue
		case !reads:
			return false, fmt.Errorf("%s has %s but no %s, so it cannot be read back; add that", t, to.name, from.name)
		case !sends:
			return false, fmt.Errorf("%s has %s but no %s, so it cannot be sent; add that", t, from.name, to.name)
		case to.inherited(t):
			return false, inheritedError(t, to)
		case from.inherited(t):
			return false, inheritedError(t, from)
		}
		return true, nil
	}
	return false, nil
}

// method is one by which a type takes its own encoding in hand. Its name is a
// constant in find too: looked up by a variable, the linker would have to keep
// every method of every type of the program.
type method struct {
	name  string
	iface reflect.Type
	find  func(reflect.Type) (reflect.Method, bool)
}

// selfMarshalling lists these methods in pairs, in the order in which the codec
// looks for them.
var selfMarshalling = [][2]method{{
	{"MarshalCBOR", reflect.TypeFor[cbor.Marshaler](), func(t reflect.Type) (reflect.Method, bool) { return t.MethodByName("MarshalCBOR") }},
	{"UnmarshalCBOR", reflect.TypeFor[cbor.Unmarshaler](), func(t reflect.Type) (reflect.Method, bool) { return t.MethodByName("UnmarshalCBOR") }},
}, {
	{"MarshalBinary", reflect.TypeFor[encoding.BinaryMarshaler](), func(t reflect.Type) (reflect.Method, bool) { return t.MethodByName("MarshalBinary") }},
	{"UnmarshalBinary", reflect.TypeFor[encoding.BinaryUnmarshaler](), func(t reflect.Type) (reflect.Method, bool) { return t.MethodByName("UnmarshalBinary") }},
}, {
	{"MarshalText", reflect.TypeFor[encoding.TextMarshaler](), func(t reflect.Type) (reflect.Method, bool) { return t.MethodByName("MarshalText") }},
	{"UnmarshalText", reflect.TypeFor[encoding.TextUnmarshaler](), func(t reflect.Type) (reflect.Method, bool) { return t.MethodByName("UnmarshalText") }},
}}

var (
	timeType   = reflect.TypeFor[time.Time]()
	bigType    = reflect.TypeFor[big.Int]()
	floatType  = reflect.TypeFor[big.Float]()
	bytesType  = reflect.TypeFor[[]byte]()
	sliceOfAny = reflect.TypeFor[[]any]()
	mapOfAny   = reflect.TypeFor[map[string]any]()
)

// inherited reports whether the struct t has the method only because a field that
// it embeds has it, while the method does not speak for all of t: there are other
// fields, or the embedded one is a pointer, which is nil in a new t.
func (m method) inherited(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	var embedded reflect.Type
	fields := 0
	for f := range t.Fields() {
		if _, skip := tagOf(f); f.Anonymous {
			embedded = f.Type
		} else if skip || f.Name == "_" {
			continue
		}
		fields++
	}
	if embedded == nil || !m.generated(t) {
		return false
	}
	return fields > 1 || embedded.Kind() == reflect.Pointer || embedded.Kind() == reflect.Interface || m.inherited(embedded)
}

func inheritedError(t reflect.Type, m method) error {
	return fmt.Errorf("%s has %s from an embedded field, so what else it holds would be lost; name the field or give %s its own method", t, m.name, t)
}

// generated reports whether the compiler generated the method: no file holds it.
func (m method) generated(t reflect.Type) bool {
	found, ok := m.find(t)
	if !ok {
		if found, ok = m.find(reflect.PointerTo(t)); !ok {
			return false
		}
	}
	file, _ := runtime.FuncForPC(found.Func.Pointer()).FileLine(found.Func.Pointer())
	return file == "<autogenerated>"
}

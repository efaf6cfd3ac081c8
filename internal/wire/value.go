package wire

import (
	"errors"
	"fmt"
	"reflect"
	"time"
)

// ErrTooDeep is returned for a value that is nested more than [MaxDepth] deep or
// contains itself.
var ErrTooDeep = errors.New("value is nested too deeply")

// Value checks the value that v points to where its type leaves something open:
// interfaces, whose dynamic types must be ones that arrive as what they were;
// recursive types, which may hold a cycle; pointers to what is sent as a null; and
// times, whose zone is sent in hours and minutes.
func (c Checker) Value(v any) error {
	if c.open == nil {
		return nil
	}
	w := walk{open: c.open}
	return w.value(reflect.ValueOf(v).Elem())
}

// watchFrom is the depth from which on a walk looks for cycles: few values are
// nested so deeply, and a cycle gets there soon.
const watchFrom = 100

// walk looks at the open parts of one value.
type walk struct {
	open  map[reflect.Type][]int
	depth int
	above map[place]bool // what is being looked at, from watchFrom on
}

// place identifies a pointer, map or slice.
type place struct {
	t    reflect.Type
	addr uintptr
	len  int
}

func (w *walk) value(v reflect.Value) error {
	fields, open := w.open[v.Type()]
	if !open {
		return nil
	}
	if v.Type() == timeType {
		return checkZone(timeOf(v))
	}
	switch v.Kind() {
	case reflect.Interface:
		return w.dynamic(v.Elem())
	case reflect.Pointer, reflect.Slice, reflect.Map:
		if v.IsNil() {
			return nil
		}
		if w.depth >= watchFrom {
			at := placeOf(v)
			if w.above[at] {
				return fmt.Errorf("%w: a %s contains itself", ErrTooDeep, at.t)
			}
			if w.above == nil {
				w.above = map[place]bool{}
			}
			w.above[at] = true
			defer delete(w.above, at)
		}
		if v.Kind() == reflect.Pointer {
			return w.pointee(v.Elem())
		}
	}
	if w.depth++; w.depth > MaxDepth {
		return fmt.Errorf("%w: more than %d levels", ErrTooDeep, MaxDepth)
	}
	err := w.parts(v, fields)
	w.depth--
	return err
}

// parts looks at the parts of v, which is a slice, an array, a map or a struct.
func (w *walk) parts(v reflect.Value, fields []int) error {
	switch v.Kind() {
	case reflect.Map:
		_, keys := w.open[v.Type().Key()]
		for it := v.MapRange(); it.Next(); {
			if keys {
				if err := w.value(it.Key()); err != nil {
					return err
				}
			}
			if err := w.value(it.Value()); err != nil {
				return err
			}
		}
	case reflect.Struct:
		for _, i := range fields {
			if err := w.value(v.Field(i)); err != nil {
				return err
			}
		}
	default:
		for i := range v.Len() {
			if err := w.value(v.Index(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// pointee looks at what a pointer points to.
func (w *walk) pointee(v reflect.Value) error {
	var null string
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		if v.IsNil() {
			null = "nil"
		}
	case reflect.Struct:
		if v.Type() == timeType && timeOf(v).IsZero() {
			null = "the zero time"
		}
	}
	if null != "" {
		return fmt.Errorf("a *%s that points to %s would arrive as a nil pointer; send a nil pointer, or a %s itself", v.Type(), null, v.Type())
	}
	return w.value(v)
}

// dynamic looks at v, which was found in an interface: it must be of a type that
// arrives as what it was. (Integers arrive as int64, or as big.Int where they do
// not fit into that; floats as float64; nil slices and maps as nil.)
func (w *walk) dynamic(v reflect.Value) error {
	if !v.IsValid() {
		return nil
	}
	switch t := v.Type(); {
	case t == sliceOfAny, t == mapOfAny:
		return w.value(v)
	case t == timeType && timeOf(v).IsZero():
		return errors.New("the zero time.Time in an interface would arrive as nil; leave it out")
	case t == timeType:
		return checkZone(timeOf(v))
	case t == bytesType, t == bigType, t.PkgPath() == "" && scalar(t.Kind()):
		return nil
	default:
		return fmt.Errorf("a %s in an interface cannot be rebuilt by the receiver, who is not told its type; "+
			"use a concrete type, or only nil, bool, numbers, string, []byte, time.Time, []any and map[string]any", t)
	}
}

func timeOf(v reflect.Value) time.Time {
	if v.CanAddr() {
		return *v.Addr().Interface().(*time.Time)
	}
	return v.Interface().(time.Time)
}

// checkZone refuses a time whose offset from UTC has seconds, as local mean times
// of the 19th century do: they would be dropped, which changes the time.
func checkZone(t time.Time) error {
	if _, offset := t.Zone(); offset%60 != 0 {
		return fmt.Errorf("time %s: the seconds of its offset from UTC would be lost; send its UTC()", t.Format("2006-01-02T15:04:05-07:00:00"))
	}
	return nil
}

func placeOf(v reflect.Value) place {
	p := place{t: v.Type(), addr: v.Pointer()}
	if v.Kind() == reflect.Slice {
		p.len = v.Len()
	}
	return p
}

func scalar(k reflect.Kind) bool {
	return k >= reflect.Bool && k <= reflect.Float64 && k != reflect.Uintptr || k == reflect.String
}

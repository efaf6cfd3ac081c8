package wire

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// structCheck checks the fields of one struct and of those that it embeds, which
// are sent as if they were its own.
type structCheck struct {
	*checker
	t     reflect.Type
	array bool              // the struct is sent as an array
	names map[string]string // name on the wire: path of the field
	in    []reflect.Type    // the struct and those embedded on the way to the present field
}

// checkStruct checks the fields of t, and that no two of them share a name.
func (c *checker) checkStruct(t reflect.Type, path string) (open bool, err error) {
	if c.home == "" {
		c.home = t.PkgPath()
	}
	s := structCheck{checker: c, t: t, names: map[string]string{}}
	if f, ok := t.FieldByName("_"); ok {
		options := strings.Split(f.Tag.Get("cbor"), ",")
		s.array = slices.Contains(options, "toarray")
		if slices.Contains(options, "toindefarray") {
			return false, fmt.Errorf("%s: toindefarray is not supported; use toarray", path)
		}
	}
	_, err = s.fields(t, path)
	_, open = c.open[t]
	return open, err
}

// fields checks the fields of t, which is the struct itself or embedded in it, and
// returns how many of them are sent whatever their values.
func (s *structCheck) fields(t reflect.Type, path string) (sent int, err error) {
	if slices.Contains(s.in, t) {
		return 0, fmt.Errorf("%s: a struct that embeds itself would lose fields; name the field", path)
	}
	s.in = append(s.in, t)
	defer func() { s.in = s.in[:len(s.in)-1] }()
	for f := range t.Fields() {
		at := path + "." + f.Name
		tag, skip := tagOf(f)
		if skip || f.Name == "_" {
			continue
		}
		var open bool
		if e := elem(f.Type); f.Anonymous && tag.name == "" && e.Kind() == reflect.Struct {
			n, err := s.embedded(f, e, at)
			if err != nil {
				return 0, err
			}
			sent += n
			_, open = s.open[e]
		} else {
			if open, err = s.field(f, tag, t, path); err != nil {
				return 0, err
			}
			if !tag.omit || s.array {
				sent++
			}
		}
		if i := f.Index[0]; open && !slices.Contains(s.open[t], i) {
			s.open[t] = append(s.open[t], i)
		}
	}
	return sent, nil
}

// embedded checks the field f, which embeds the struct e or a pointer to it.
func (s *structCheck) embedded(f reflect.StructField, e reflect.Type, at string) (sent int, err error) {
	pointer := f.Type.Kind() == reflect.Pointer
	if pointer && !f.IsExported() {
		return 0, fmt.Errorf("%s: an embedded pointer to an unexported type cannot be made by the receiver; embed the struct itself", at)
	}
	if pointer && s.array {
		return 0, fmt.Errorf("%s: an embedded nil pointer would not arrive as nil in a struct that is sent as an array; embed the struct itself", at)
	}
	sent, err = s.fields(e, at)
	if err == nil && pointer {
		if sent == 0 {
			return 0, fmt.Errorf("%s: an embedded pointer arrives as nil when no field of %s is sent, and none is certain to be; embed the struct itself", at, e)
		}
		if _, open := s.open[e]; open {
			s.open[f.Type] = nil
		}
	}
	return sent, err
}

// field checks the field f of t, which is at path.
func (s *structCheck) field(f reflect.StructField, tag tag, t reflect.Type, path string) (open bool, err error) {
	at := path + "." + f.Name
	if !f.IsExported() {
		if s.home != "" && f.PkgPath != s.home {
			return false, fmt.Errorf("%s: a %s keeps its state in unexported fields, which would be lost on the way; tag the field `cbor:\"-\"` or use another type", path, t)
		}
		return false, fmt.Errorf("%s: an unexported field would be lost on the way; export it, tag it `cbor:\"-\"`, or give %s MarshalBinary and UnmarshalBinary methods", at, s.t)
	}
	name, err := tag.wireName(f)
	if err != nil {
		return false, fmt.Errorf("%s: %w", at, err)
	}
	if other, taken := s.names[name]; taken {
		return false, fmt.Errorf("%s and %s are both called %s, so one would be lost; rename one or tag it", other, at, name)
	}
	s.names[name] = at
	return s.check(f.Type, at)
}

func elem(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

// tagOf returns the name that the field's cbor or json tag gives it, and whether
// the tag leaves the field out on purpose.
func tagOf(f reflect.StructField) (t tag, skip bool) {
	s := f.Tag.Get("cbor")
	if s == "" {
		s = f.Tag.Get("json")
	}
	if s == "-" {
		return tag{}, true
	}
	name, options, _ := strings.Cut(s, ",")
	t.name = name
	for o := range strings.SplitSeq(options, ",") {
		t.intKey = t.intKey || o == "keyasint"
		t.omit = t.omit || o == "omitempty" || o == "omitzero"
	}
	return t, false
}

type tag struct {
	name   string
	intKey bool // the name is sent as a number
	omit   bool // the field is sent only when it has a value
}

// wireName returns what the field f is called on the wire, as text.
func (t tag) wireName(f reflect.StructField) (string, error) {
	name := t.name
	if name == "" {
		name = f.Name
	}
	if !t.intKey {
		return strconv.Quote(name), nil
	}
	n, err := strconv.Atoi(name)
	if err != nil {
		return "", fmt.Errorf("keyasint needs a number for a name, not %q; write `cbor:\"1,keyasint\"`", name)
	}
	return strconv.Itoa(n), nil
}

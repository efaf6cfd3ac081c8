package handover

import "reflect"

// Finder finds the handles in values of one type.
type Finder struct {
	types map[reflect.Type]bool // those of its parts, and whether they may hold handles; nil: it does not
}

var carrierType = reflect.TypeFor[Carrier]()

// Find returns the Finder for values of type t.
func Find(t reflect.Type) Finder {
	types := map[reflect.Type]bool{}
	if !reaches(t, types) {
		return Finder{}
	}
	for part := range types { // again, as a type that contains itself depends on what comes after
		types[part] = reaches(part, map[reflect.Type]bool{})
	}
	return Finder{types}
}

// Any reports whether values may hold handles.
func (f Finder) Any() bool { return f.types != nil }

// reaches reports whether values of type t may hold handles. seen gets every type that
// was looked at.
func reaches(t reflect.Type, seen map[reflect.Type]bool) (found bool) {
	if _, ok := seen[t]; ok {
		return false
	}
	seen[t] = false
	switch {
	case t.Kind() == reflect.Pointer:
		return reaches(t.Elem(), seen)
	case t.Implements(carrierType):
		return t.Kind() == reflect.Struct
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Array, reflect.Map:
		return reaches(t.Elem(), seen)
	case reflect.Struct:
		for f := range t.Fields() {
			if travels(f) && reaches(f.Type, seen) {
				found = true // and on, to see every type
			}
		}
	}
	return found
}

// travels reports whether a field is a part of what is sent.
func travels(f reflect.StructField) bool {
	tag := f.Tag.Get("cbor")
	if tag == "" {
		tag = f.Tag.Get("json")
	}
	return tag != "-" && (f.IsExported() || f.Anonymous && f.Type.Kind() == reflect.Struct)
}

// Append appends the handles in *v to handles.
func (f Finder) Append(handles []*Handle, v any) []*Handle {
	f.each(reflect.ValueOf(v).Elem(), func(h *Handle) error {
		handles = append(handles, h)
		return nil
	})
	return handles
}

// each visits the handles in v, which must not contain itself, until an error comes.
func (f Finder) each(v reflect.Value, visit func(*Handle) error) error {
	t := v.Type()
	if !f.types[t] {
		return nil
	}
	if t.Kind() == reflect.Pointer {
		if v.IsNil() {
			return nil
		}
		return f.each(v.Elem(), visit)
	}
	if t.Implements(carrierType) {
		if h := v.Interface().(Carrier).carried(); h != nil {
			return visit(h)
		}
		return nil
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if err := f.each(v.Index(i), visit); err != nil {
				return err
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if err := f.each(it.Value(), visit); err != nil {
				return err
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if !travels(t.Field(i)) {
				continue
			}
			if err := f.each(v.Field(i), visit); err != nil {
				return err
			}
		}
	}
	return nil
}

package cluster

import (
	"reflect"
	"slices"
	"testing"
	"time"
)

// TestClocks looks for moments in what processes tell each other: their clocks differ, and so none may be compared
// with that of another machine. Only the signature of a program has one, which is checked against the clock of the agent.
func TestClocks(t *testing.T) {
	t.Parallel()
	var found []string
	for _, message := range []any{chunk{}, outcome{}, crash{}, timeout{}, control{}, presence{}, lease{}} {
		found = append(found, moments(reflect.TypeOf(message), reflect.TypeOf(message).Name(), nil)...)
	}
	slices.Sort(found)
	if want := []string{"lease.Program.NotAfter"}; !slices.Equal(found, want) {
		t.Errorf("moments travel in %v, want %v alone", found, want)
	}
}

// moments returns the paths of all fields of a type that are a time.Time.
func moments(typ reflect.Type, path string, above []reflect.Type) (paths []string) {
	if typ == reflect.TypeFor[time.Time]() {
		return []string{path}
	}
	if slices.Contains(above, typ) {
		return nil
	}
	above = append(above, typ)
	switch typ.Kind() {
	case reflect.Struct:
		for field := range typ.Fields() {
			paths = append(paths, moments(field.Type, path+"."+field.Name, above)...)
		}
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		paths = moments(typ.Elem(), path, above)
	}
	return paths
}

package wire

import (
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/big"
	"reflect"
	"slices"
	"sync"
	"time"
	"unicode/utf8"
)

// The body of a Log frame is a record of log/slog:
//
//	time       varint seconds since 1970, uvarint nanoseconds, varint seconds east of UTC
//	level      varint
//	place      uvarint: of the statement that logged it, as PC has it; 0: unknown
//	message    uvarint length, text
//	attributes each: its kind (1 byte), uvarint length and text of its key, its value
//
// A group has its attributes for a value, and a byte 0 after them.

// The kinds of attributes, and what their values are.
const (
	logEnd      = 0 // of a group
	logGroup    = 1
	logText     = 2  // uvarint length, text
	logInt      = 3  // varint
	logUint     = 4  // uvarint
	logFloat    = 5  // 8 bytes, little-endian
	logFalse    = 6  // nothing
	logTrue     = 7  // nothing
	logDuration = 8  // varint nanoseconds
	logTime     = 9  // as that of the record
	logAny      = 10 // uvarint length, CBOR
)

// MaxRecord is the largest body that a Log frame may have, in bytes. A record that is longer
// is cut.
const MaxRecord = 64 << 10

// No record has more attributes and groups than maxAttrs, nor more groups within each other
// than maxGroups. logReserve is room for the ends of these and for the note that the record
// has been cut.
const (
	maxAttrs   = 4096
	maxGroups  = 64
	logReserve = maxGroups + 64
)

// cutNote is the last attribute of a record that was cut.
var cutNote = slog.String("…", "cut, the record was too long")

// Attrs are attributes and groups that a logger was given, encoded. The zero value has none.
type Attrs struct{ e logEncoder }

// With returns a with more attributes, in the group that was begun last.
func (a Attrs) With(attrs []slog.Attr) Attrs {
	a.e.buf, a.e.limit = slices.Clip(a.e.buf), MaxRecord/2 // the rest is for the message
	for _, attr := range attrs {
		a.e.add(attr)
	}
	return a
}

// WithGroup returns a with the beginning of a group.
func (a Attrs) WithGroup(name string) Attrs {
	a.e.buf, a.e.limit = slices.Clip(a.e.buf), MaxRecord/2
	a.e.begin(name)
	return a
}

// AppendRecord appends the encoding of a record to dst, as made by a logger that has a. What
// the record holds is sent as the kind that it is. A value of kind any is sent as it is
// if the receiver can tell what it is: nil, bytes, numbers, texts, and slices and maps of
// these; an error as its message, and anything else as its text.
func AppendRecord(dst []byte, a Attrs, r slog.Record) []byte {
	e := a.e
	e.buf, e.limit = dst, len(dst)+MaxRecord-logReserve
	e.time(r.Time)
	e.buf = binary.AppendVarint(e.buf, int64(r.Level))
	e.buf = binary.AppendUvarint(e.buf, uint64(r.PC))
	e.limit -= len(a.e.buf)
	e.text(r.Message)
	e.limit += len(a.e.buf)
	e.buf = append(e.buf, a.e.buf...)
	r.Attrs(func(attr slog.Attr) bool {
		e.add(attr)
		return !e.cut
	})
	for ; e.groups > 0; e.groups-- {
		e.buf = append(e.buf, logEnd)
	}
	if e.cut {
		last := logEncoder{buf: e.buf, limit: math.MaxInt}
		last.add(cutNote)
		e.buf = last.buf
	}
	return e.buf
}

// logEncoder encodes attributes. When one does not fit any more it is left out, with all that
// come after it.
type logEncoder struct {
	buf    []byte
	limit  int // of len(buf)
	n      int // attributes and groups in buf
	groups int // of these, groups that have not ended
	cut    bool
}

// add adds an attribute.
func (e *logEncoder) add(attr slog.Attr) {
	v := attr.Value.Resolve()
	switch {
	case e.cut || attr.Key == "" && v.Kind() == slog.KindAny && v.Any() == nil: // an attribute without anything is to be ignored
	case v.Kind() == slog.KindGroup:
		e.group(attr.Key, v.Group())
	default:
		start := len(e.buf)
		if e.scalar(attr.Key, v); !e.fits() {
			e.buf = e.buf[:start]
		}
	}
}

// scalar adds an attribute that is not a group.
func (e *logEncoder) scalar(key string, v slog.Value) {
	switch v.Kind() {
	case slog.KindInt64:
		e.key(logInt, key)
		e.buf = binary.AppendVarint(e.buf, v.Int64())
	case slog.KindUint64:
		e.key(logUint, key)
		e.buf = binary.AppendUvarint(e.buf, v.Uint64())
	case slog.KindFloat64:
		e.key(logFloat, key)
		e.buf = binary.LittleEndian.AppendUint64(e.buf, math.Float64bits(v.Float64()))
	case slog.KindBool:
		kind := byte(logFalse)
		if v.Bool() {
			kind = logTrue
		}
		e.key(kind, key)
	case slog.KindDuration:
		e.key(logDuration, key)
		e.buf = binary.AppendVarint(e.buf, int64(v.Duration()))
	case slog.KindTime:
		e.key(logTime, key)
		e.time(v.Time())
	case slog.KindAny:
		data, text := encodeLogged(v.Any())
		if data == nil {
			e.key(logText, key)
			e.text(text)
			return
		}
		e.key(logAny, key)
		e.buf = append(binary.AppendUvarint(e.buf, uint64(len(data))), data...)
	default:
		e.key(logText, key)
		e.text(v.String())
	}
}

func (e *logEncoder) group(key string, attrs []slog.Attr) {
	if len(attrs) == 0 || !e.begin(key) {
		return
	}
	for _, attr := range attrs {
		e.add(attr)
	}
	e.buf = append(e.buf, logEnd)
	e.groups--
}

// begin begins a group, if there is room for it.
func (e *logEncoder) begin(name string) bool {
	start := len(e.buf)
	e.key(logGroup, name)
	if e.cut || !e.fits() || e.groups == maxGroups {
		e.buf, e.cut = e.buf[:start], true
		return false
	}
	e.groups++
	return true
}

// fits reports whether there was room for what was added last.
func (e *logEncoder) fits() bool {
	e.n++
	if e.n < maxAttrs && len(e.buf) <= e.limit {
		return true
	}
	e.cut = true
	return false
}

func (e *logEncoder) key(kind byte, key string) {
	e.buf = binary.AppendUvarint(append(e.buf, kind), uint64(len(key)))
	e.buf = append(e.buf, key...)
}

// text adds a text, or as much of it as there is room for.
func (e *logEncoder) text(s string) {
	const more = "…"
	if room := e.limit - len(e.buf) - binary.MaxVarintLen32; len(s) > room && room > len(more) {
		n := room - len(more)
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s, e.cut = s[:n]+more, true
	}
	e.buf = append(binary.AppendUvarint(e.buf, uint64(len(s))), s...)
}

func (e *logEncoder) time(t time.Time) {
	_, zone := t.Zone()
	if zone <= -maxZone || zone >= maxZone {
		zone = 0
	}
	e.buf = binary.AppendVarint(e.buf, t.Unix())
	e.buf = binary.AppendUvarint(e.buf, uint64(t.Nanosecond()))
	e.buf = binary.AppendVarint(e.buf, int64(zone))
}

// maxZone bounds how far a zone is from UTC, in seconds.
const maxZone = 24 * 60 * 60

// encodeLogged returns the encoding of v, if that says all about it, without its type; else nil
// and its text. As in log/slog, what panics does not take the program along.
func encodeLogged(v any) (data []byte, text string) {
	defer func() {
		if r := recover(); r != nil {
			data, text = nil, fmt.Sprintf("!PANIC: %v", r)
		}
	}()
	var why error
	if v != nil && !plainType(reflect.TypeOf(v), 8) {
		why = anyChecker().Value(&v)
	}
	if why == nil {
		if data, why = Encode(nil, &v); why == nil {
			return data, ""
		}
	}
	if errors.Is(why, ErrTooDeep) { // the text would have no end
		return nil, "!ERROR: " + why.Error()
	}
	switch x := v.(type) {
	case error:
		return nil, fmt.Sprintf("%v", x)
	case encoding.TextMarshaler:
		text, err := x.MarshalText()
		if err != nil {
			return nil, "!ERROR: " + err.Error()
		}
		return nil, string(text)
	}
	return nil, fmt.Sprintf("%+v", v)
}

// anyChecker checks values of type any.
var anyChecker = sync.OnceValue(func() Checker { return must(Check(reflect.TypeFor[any]())) })

// plainType reports whether values of type t, which has at most so many types within each
// other, are made of nothing but numbers, texts, slices and maps, and have no methods.
func plainType(t reflect.Type, levels int) bool {
	switch {
	case t.PkgPath() != "" || levels == 0:
		return false
	case t.Kind() == reflect.Slice:
		return plainType(t.Elem(), levels-1)
	case t.Kind() == reflect.Map:
		return t.Key() == reflect.TypeFor[string]() && plainType(t.Elem(), levels-1)
	}
	return scalar(t.Kind())
}

// DecodeRecord decodes what AppendRecord has made. Nothing in the record refers to body.
func DecodeRecord(body []byte) (slog.Record, error) {
	if len(body) > MaxRecord {
		return slog.Record{}, fmt.Errorf("log record of %d bytes, over the limit of %d", len(body), MaxRecord)
	}
	d := logDecoder{rest: body}
	t, level, pc, message := d.time(), slog.Level(d.varint()), uintptr(d.uvarint()), d.text()
	attrs := d.attrs(0)
	if d.err != nil {
		return slog.Record{}, fmt.Errorf("log record: %w", d.err)
	}
	r := slog.NewRecord(t, level, message, pc)
	r.AddAttrs(attrs...)
	return r, nil
}

// logDecoder decodes a record. After an error it returns zero values.
type logDecoder struct {
	rest []byte
	n    int // attributes and groups so far
	err  error
}

// attrs returns the attributes up to the end of the group, which is depth groups deep, or the
// end of the record.
func (d *logDecoder) attrs(depth int) (attrs []slog.Attr) {
	for d.err == nil {
		if len(d.rest) == 0 && depth == 0 {
			return attrs
		}
		kind := d.bytes(1)
		if d.err != nil || kind[0] == logEnd && depth > 0 {
			return attrs
		}
		if d.n++; d.n > maxAttrs || depth > maxGroups {
			d.fail(fmt.Errorf("more than %d attributes, or %d groups within each other", maxAttrs, maxGroups))
			return nil
		}
		attr := slog.Attr{Key: d.text()}
		if kind[0] != logGroup {
			attr.Value = d.value(kind[0])
		} else if group := d.attrs(depth + 1); len(group) > 0 {
			attr.Value = slog.GroupValue(group...)
		} else {
			continue // a group without attributes is to be ignored
		}
		attrs = append(attrs, attr)
	}
	return nil
}

func (d *logDecoder) value(kind byte) slog.Value {
	switch kind {
	case logText:
		return slog.StringValue(d.text())
	case logInt:
		return slog.Int64Value(d.varint())
	case logUint:
		return slog.Uint64Value(d.uvarint())
	case logFloat:
		if b := d.bytes(8); d.err == nil {
			return slog.Float64Value(math.Float64frombits(binary.LittleEndian.Uint64(b)))
		}
	case logFalse, logTrue:
		return slog.BoolValue(kind == logTrue)
	case logDuration:
		return slog.DurationValue(time.Duration(d.varint()))
	case logTime:
		return slog.TimeValue(d.time())
	case logAny:
		var v any
		if data := d.bytes(d.uvarint()); d.err == nil {
			d.fail(Decode(data, &v))
		}
		return slog.AnyValue(printable(v))
	default:
		d.fail(fmt.Errorf("attribute of unknown kind %d", kind))
	}
	return slog.Value{}
}

// printable returns v, which was decoded, with pointers to the large integers in it: a big.Int
// alone has no text.
func printable(v any) any {
	switch v := v.(type) {
	case big.Int:
		return &v
	case []any:
		for i := range v {
			v[i] = printable(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = printable(v[k])
		}
	}
	return v
}

func (d *logDecoder) time() time.Time {
	sec, ns, zone := d.varint(), d.uvarint(), d.varint()
	if ns >= 1e9 || zone <= -maxZone || zone >= maxZone {
		d.fail(errors.New("time out of range"))
		return time.Time{}
	}
	t := time.Unix(sec, int64(ns))
	if _, here := t.Zone(); zone == 0 {
		t = t.UTC()
	} else if zone != int64(here) {
		t = t.In(time.FixedZone("", int(zone)))
	}
	return t
}

// fail notes what is wrong, if anything is.
func (d *logDecoder) fail(err error) {
	if d.err == nil && err != nil {
		d.err, d.rest = err, nil
	}
}

func (d *logDecoder) varint() int64 {
	x, n := binary.Varint(d.rest)
	d.skip(n)
	return x
}

func (d *logDecoder) uvarint() uint64 {
	x, n := binary.Uvarint(d.rest)
	d.skip(n)
	return x
}

// skip skips a number of n bytes.
func (d *logDecoder) skip(n int) {
	if n <= 0 {
		d.fail(errTruncated)
		return
	}
	d.rest = d.rest[n:]
}

func (d *logDecoder) text() string { return string(d.bytes(d.uvarint())) }

// bytes returns the next n bytes, or nil.
func (d *logDecoder) bytes(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.fail(errTruncated)
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

package wire

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// logged returns what a handler makes of a record: without the outer braces, so that it can
// be compared at a glance.
func logged(t *testing.T, r slog.Record) string {
	t.Helper()
	var buf bytes.Buffer
	h := slog.NewJSONHandler(&buf, &slog.HandlerOptions{Level: slog.Level(math.MinInt32)})
	if err := h.Handle(t.Context(), r); err != nil {
		t.Errorf("Handle: %v", err)
	}
	return strings.TrimSpace(buf.String())
}

// recordOf returns a record without a time.
func recordOf(message string, attrs ...slog.Attr) slog.Record {
	r := slog.NewRecord(time.Time{}, slog.LevelInfo, message, 0)
	r.AddAttrs(attrs...)
	return r
}

// sent returns the record after the way.
func sent(t *testing.T, a Attrs, r slog.Record) slog.Record {
	t.Helper()
	body := AppendRecord([]byte("before"), a, r)
	if !bytes.HasPrefix(body, []byte("before")) {
		t.Fatalf("AppendRecord has not appended: %.20q", body)
	}
	got, err := DecodeRecord(body[len("before"):])
	if err != nil {
		t.Fatalf("%.100s: %v", r.Message, err)
	}
	return got
}

// first returns the first attribute of a record.
func first(r slog.Record) (first slog.Attr) {
	r.Attrs(func(a slog.Attr) bool {
		first = a
		return false
	})
	return first
}

func TestRecordKeepsTimeLevelMessage(t *testing.T) {
	for _, at := range []time.Time{
		{},
		time.Now(),
		time.Date(2024, 2, 29, 23, 59, 59, 999_999_999, time.UTC),
		time.Date(1955, 1, 1, 0, 0, 0, 1, time.FixedZone("somewhere", -(3*3600+25*60+5))),
	} {
		for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, -1000, 1 << 30} {
			want := slog.NewRecord(at, level, "message of\n\xff bytes", 77)
			got := sent(t, Attrs{}, want)
			if !got.Time.Equal(at) || got.Time.IsZero() != at.IsZero() || got.Level != level || got.Message != want.Message || got.PC != 77 || got.NumAttrs() != 0 {
				t.Errorf("got %v, want %v", got, want)
			}
			const layout = time.RFC3339Nano
			if g, w := got.Time.Format(layout), at.Format(layout); g != w {
				t.Errorf("time: got %s, want %s", g, w)
			}
		}
	}
}

// panics is a value whose methods panic.
type panics struct{}

func (panics) Error() string                { panic("no text") }
func (panics) MarshalText() ([]byte, error) { panic("no text") }

type panicsText struct{ n int }

func (panicsText) MarshalText() ([]byte, error) { panic("no text") }

type failsText struct{ n int }

func (failsText) MarshalText() ([]byte, error) { return nil, errors.New("has no text") }

type secret string

func (secret) LogValue() slog.Value {
	return slog.GroupValue(slog.String("kind", "secret"), slog.Int("length", 3))
}

func TestRecordKeepsKinds(t *testing.T) {
	now := time.Now()
	cyclic := []any{1}
	cyclic[0] = cyclic
	for _, c := range []struct {
		attr slog.Attr
		want slog.Value
	}{
		{slog.String("k", ""), slog.StringValue("")},
		{slog.String("", "no key"), slog.StringValue("no key")},
		{slog.String("k", "t\x00ext"), slog.StringValue("t\x00ext")},
		{slog.Int64("k", math.MinInt64), slog.Int64Value(math.MinInt64)},
		{slog.Int("k", 5), slog.Int64Value(5)},
		{slog.Uint64("k", math.MaxUint64), slog.Uint64Value(math.MaxUint64)},
		{slog.Uint64("k", 5), slog.Uint64Value(5)},
		{slog.Float64("k", -0.1), slog.Float64Value(-0.1)},
		{slog.Float64("k", math.Inf(1)), slog.Float64Value(math.Inf(1))},
		{slog.Bool("k", true), slog.BoolValue(true)},
		{slog.Bool("k", false), slog.BoolValue(false)},
		{slog.Duration("k", -time.Nanosecond), slog.DurationValue(-time.Nanosecond)},
		{slog.Time("k", now), slog.TimeValue(now)},
		{slog.Any("k", nil), slog.AnyValue(nil)},
		{slog.Any("k", errors.New("failed")), slog.StringValue("failed")},
		{slog.Any("k", fmt.Errorf("at %d: %w", 3, errors.New("failed"))), slog.StringValue("at 3: failed")},
		{slog.Any("k", (*net.OpError)(nil)), slog.StringValue("<nil>")},
		{slog.Any("k", panics{}), slog.StringValue("%!v(PANIC=Error method: no text)")},
		{slog.Any("k", panicsText{1}), slog.StringValue("!PANIC: no text")},
		{slog.Any("k", failsText{1}), slog.StringValue("!ERROR: has no text")},
		{slog.Any("k", net.IPv4(127, 0, 0, 1)), slog.StringValue("127.0.0.1")},
		{slog.Any("k", struct{ A, B int }{1, 2}), slog.StringValue("{A:1 B:2}")},
		{slog.Any("k", time.Monday), slog.StringValue("Monday")},
		{slog.Any("k", big.NewInt(5)), slog.StringValue("5")},
		{slog.Any("k", [2]int{1, 2}), slog.StringValue("[1 2]")},
		{slog.Any("k", []time.Weekday{2, 3}), slog.StringValue("[Tuesday Wednesday]")},
		{slog.Any("k", map[int]string{1: "a"}), slog.StringValue("map[1:a]")},
		{slog.Any("k", cyclic), slog.StringValue("!ERROR: value is nested too deeply: a []interface {} contains itself")},
		{slog.Any("k", secret("xyz")), slog.GroupValue(slog.String("kind", "secret"), slog.Int("length", 3))},
		{slog.Group("k", "a", 1, slog.Group("b", "c", true), slog.Group("empty"), "d", 2.5), slog.GroupValue(slog.Int("a", 1), slog.Group("b", slog.Bool("c", true)), slog.Float64("d", 2.5))},
		{slog.Group("", "a", 1), slog.GroupValue(slog.Int("a", 1))},
	} {
		got := first(sent(t, Attrs{}, recordOf("m", c.attr)))
		if got.Key != c.attr.Key || got.Value.Kind() != c.want.Kind() || !got.Value.Equal(c.want) {
			t.Errorf("%v arrives as %s %v, want %s %v", c.attr, got.Value.Kind(), got, c.want.Kind(), c.want)
		}
	}
}

// TestRecordKeepsAny compares what handlers make of values that are sent as they are.
func TestRecordKeepsAny(t *testing.T) {
	for _, v := range []any{
		[]byte("bytes"),
		[]byte{},
		[]string{"a", "b"},
		[]int{1, -2},
		[][]float64{{1.5}, nil},
		[]bool{true},
		map[string]int{"a": 1},
		map[string][]string{"a": {"b"}},
		[]any{1, "a", nil, map[string]any{"b": 2.5}},
		map[string]any{"now": time.Date(2024, 1, 2, 3, 4, 5, 6, time.UTC)},
		[]uint64{math.MaxUint64},
		map[string]any{"a": []any{uint64(math.MaxUint64)}},
	} {
		r := recordOf("m", slog.Any("k", v))
		got := sent(t, Attrs{}, r)
		if k := first(got).Value.Kind(); k == slog.KindString {
			t.Errorf("%#v arrives as text", v)
		}
		if g, w := logged(t, got), logged(t, r); g != w {
			t.Errorf("%#v:\n got %s\nwant %s", v, g, w)
		}
	}
}

func TestAttrs(t *testing.T) {
	a := Attrs{}.With([]slog.Attr{slog.Int("a", 1), {}})
	b := a.WithGroup("g").With([]slog.Attr{slog.Int("b", 2)})
	c := a.WithGroup("h").With([]slog.Attr{slog.Int("c", 3)}).WithGroup("i")
	for _, tc := range []struct {
		attrs Attrs
		more  []slog.Attr
		want  string
	}{
		{Attrs{}, nil, `{"level":"INFO","msg":"m"}`},
		{a, nil, `{"level":"INFO","msg":"m","a":1}`},
		{b, nil, `{"level":"INFO","msg":"m","a":1,"g":{"b":2}}`},
		{b, []slog.Attr{slog.Int("d", 4), {}}, `{"level":"INFO","msg":"m","a":1,"g":{"b":2,"d":4}}`},
		{c, nil, `{"level":"INFO","msg":"m","a":1,"h":{"c":3}}`},
		{c, []slog.Attr{slog.Group("j")}, `{"level":"INFO","msg":"m","a":1,"h":{"c":3}}`},
		{c, []slog.Attr{slog.Group("j", "k", 5)}, `{"level":"INFO","msg":"m","a":1,"h":{"c":3,"i":{"j":{"k":5}}}}`},
	} {
		if got := logged(t, sent(t, tc.attrs, recordOf("m", tc.more...))); got != tc.want {
			t.Errorf("\n got %s\nwant %s", got, tc.want)
		}
	}
}

// nested is a value that has itself in a group.
type nested struct{}

func (nested) LogValue() slog.Value { return slog.GroupValue(slog.Any("n", nested{})) }

// TestLongRecords has records that are too long: they arrive, cut.
func TestLongRecords(t *testing.T) {
	const more = `,"…":"cut, the record was too long"}`
	long := strings.Repeat("ä", MaxRecord)
	many := make([]slog.Attr, 2*maxAttrs)
	for i := range many {
		many[i] = slog.Int("k", 1)
	}
	deep := Attrs{}
	for range 2 * maxGroups {
		deep = deep.WithGroup("g")
	}
	for name, c := range map[string]struct {
		attrs      Attrs
		r          slog.Record
		from, size int    // of what arrives, at least and at most
		begins     string // how it begins
	}{
		"message":         {Attrs{}, recordOf(long, slog.Int("a", 1)), MaxRecord - 200, MaxRecord + 100, `{"level":"INFO","msg":"ää`},
		"text":            {Attrs{}, recordOf("m", slog.Int("a", 1), slog.String("b", long), slog.Int("c", 1)), MaxRecord - 200, MaxRecord + 100, `{"level":"INFO","msg":"m","a":1,"b":"ää`},
		"of a struct":     {Attrs{}, recordOf("m", slog.Any("b", struct{ S string }{long})), MaxRecord - 200, MaxRecord + 100, `{"level":"INFO","msg":"m","b":"{S:ää`},
		"text in a group": {Attrs{}, recordOf("m", slog.Group("g", "b", long, "c", 1), slog.Int("d", 1)), MaxRecord - 200, MaxRecord + 100, `{"level":"INFO","msg":"m","g":{"b":"ää`},
		"slice":           {Attrs{}, recordOf("m", slog.Int("a", 1), slog.Any("b", []string{long}), slog.Int("c", 1)), 0, 200, `{"level":"INFO","msg":"m","a":1,"…`},
		"key":             {Attrs{}, recordOf("m", slog.Int("a", 1), slog.Int(long, 1)), 0, 200, `{"level":"INFO","msg":"m","a":1,"…`},
		"group's name":    {Attrs{}, recordOf("m", slog.Int("a", 1), slog.Group(long, "b", 1)), 0, 200, `{"level":"INFO","msg":"m","a":1,"…`},
		"many":            {Attrs{}, recordOf("m", many...), 6 * maxAttrs, 7 * maxAttrs, `{"level":"INFO","msg":"m","k":1,"k":1`},
		"endless":         {Attrs{}, recordOf("m", slog.Any("a", nested{})), 0, 200, `{"level":"INFO","msg":"m","…"`},
		"deep":            {deep, recordOf("m", slog.Int("a", 1)), 0, 200, `{"level":"INFO","msg":"m","…"`},
		"logger":          {Attrs{}.With([]slog.Attr{slog.Int("a", 1), slog.String("b", long)}), recordOf("m", slog.Int("c", 1)), MaxRecord/2 - 200, MaxRecord/2 + 100, `{"level":"INFO","msg":"m","a":1,"b":"ää`},
		"logger and all":  {Attrs{}.With([]slog.Attr{slog.String("b", long)}).WithGroup("g").With(many), recordOf(long, many...), MaxRecord - 200, MaxRecord + 100, `{"level":"INFO","msg":"ää`},
	} {
		body := AppendRecord(nil, c.attrs, c.r)
		if len(body) > MaxRecord {
			t.Errorf("%s: %d bytes", name, len(body))
		}
		got := logged(t, sent(t, c.attrs, c.r))
		if !strings.HasPrefix(got, c.begins) || !strings.HasSuffix(got, more) || len(got) < c.from || len(got) > c.size || strings.Contains(got, `�`) {
			t.Errorf("%s: got %d bytes: %.100s … %s", name, len(got), got, got[max(0, len(got)-100):])
		}
	}
}

// TestDecodeRecordRefuses has bodies that AppendRecord does not make.
func TestDecodeRecordRefuses(t *testing.T) {
	const head = "\x00\x00\x00\x00\x00\x01m"
	deep := head + strings.Repeat("\x01\x01g", maxGroups+1) + "\x06\x00" + strings.Repeat("\x00", maxGroups+1)
	for name, c := range map[string]struct{ body, want string }{
		"nothing":              {"", "log record: frame body is cut short"},
		"cut time":             {"\x00\x80", "log record: frame body is cut short"},
		"cut message":          {head[:6], "log record: frame body is cut short"},
		"huge message":         {"\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01m", "log record: frame body is cut short"},
		"long number":          {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "log record: frame body is cut short"},
		"nanoseconds":          {"\x00\x80\x94\xeb\xdc\x03\x00\x00\x00\x00", "log record: time out of range"},
		"zone":                 {"\x00\x00\x80\xc6\x0a\x00\x00\x00", "log record: time out of range"},
		"end of no group":      {head + "\x00", "log record: frame body is cut short"},
		"group without an end": {head + "\x01\x01g", "log record: frame body is cut short"},
		"attribute of no kind": {head + "\x0b\x01k", "log record: attribute of unknown kind 11"},
		"cut float":            {head + "\x05\x01k\x00", "log record: frame body is cut short"},
		"cut any":              {head + "\x0a\x01k\x05\x00", "log record: frame body is cut short"},
		"any of nothing":       {head + "\x0a\x01k\x00", "log record: data is cut short: EOF"},
		"any and more":         {head + "\x0a\x01k\x02\x00\x00", "log record: cbor: 1 bytes of extraneous data starting at index 1"},
		"many":                 {head + strings.Repeat("\x06\x00", maxAttrs+1), "log record: more than 4096 attributes, or 64 groups within each other"},
		"deep":                 {deep, "log record: more than 4096 attributes, or 64 groups within each other"},
		"long":                 {head + strings.Repeat("\x06\x00", MaxRecord), "log record of 131079 bytes, over the limit of 65536"},
	} {
		if r, err := DecodeRecord([]byte(c.body)); err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v, %v, want %s", name, r, err, c.want)
		}
	}
}

// FuzzRecord: whatever comes, decoding it ends, handlers can make something of what it
// returns, and once that has been sent on, it stays what it is.
func FuzzRecord(f *testing.F) {
	all := recordOf("message", slog.String("s", "text"), slog.Int("i", -1), slog.Uint64("u", 1), slog.Float64("f", 0.5), slog.Bool("b", true),
		slog.Duration("d", time.Second), slog.Time("t", time.Unix(1e9, 1)), slog.Any("a", []any{1, "x", nil}), slog.Group("g", "h", 1))
	f.Add(AppendRecord(nil, Attrs{}, all))
	f.Add(AppendRecord(nil, Attrs{}.With([]slog.Attr{slog.Int("a", 1)}).WithGroup("g"), recordOf("", slog.Bool("", false))))
	f.Add(AppendRecord(nil, Attrs{}, recordOf("", slog.Any("a", map[string]any{"k": []byte("v")}))))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := DecodeRecord(body)
		if err != nil {
			return
		}
		logged(t, r)
		once := sent(t, Attrs{}, r) // what is odd has become text
		twice := sent(t, Attrs{}, once)
		if got, want := logged(t, twice), logged(t, once); got != want {
			t.Fatalf("sent on:\n got %s\nwant %s", got, want)
		}
	})
}

package proctest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/shared"
)

var memoryCases = []behaviour{
	{"60 memory in an argument is the caller's own, both ways", needs{memory: true}, memoryArgument},
	{"61 memory travels at any depth, and zero values as they are", needs{memory: true}, memoryDepth},
	{"62 memory made by a function is the caller's", needs{memory: true}, memoryResult},
	{"63 memory goes to many calls at once", needs{memory: true}, memoryMany},
	{"64 memory goes to a worker of a worker, and back", needs{memory: true}, memoryNested},
	{"65 memory that is closed is an error of that call, and of no other", needs{memory: true, crashes: true}, memoryClosed},
	{"66 memory outlives a worker that dies with it", needs{memory: true, crashes: true}, memoryCrash},
	{"67 memory that a function keeps is there for later calls", needs{memory: true}, memoryKept},
	{"68 more pieces of memory than fit are an error of that call", needs{memory: true, crashes: true}, memoryTooMany},
	{"69 memory that is returned while nobody listens is closed", needs{memory: true}, memoryForgotten},
}

// Shelf has memory in many places.
type Shelf struct {
	Plain   shared.Memory
	Pointer *shared.Memory
	List    []shared.Memory
	Pair    [2]*shared.Memory
	ByName  map[string]shared.Memory
	Deep    *Shelf
	Private shared.Memory `cbor:"-"`
	Name    string
	innerShelf
}

type innerShelf struct{ Inner []*shared.Memory }

func (s *Shelf) all() (all []shared.Memory) {
	if s == nil {
		return nil
	}
	all = append(all, s.Plain)
	for _, p := range append([]*shared.Memory{s.Pointer, s.Pair[0], s.Pair[1]}, s.Inner...) {
		if p != nil {
			all = append(all, *p)
		}
	}
	all = append(all, s.List...)
	var names []string
	for name := range s.ByName {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		all = append(all, s.ByName[name])
	}
	return append(all, s.Deep.all()...)
}

// Count adds 1 to the first byte of all memory, and returns the sum of what was there.
var Count = multiproc.Register("count", func(_ context.Context, s Shelf) (sum int, err error) {
	for _, m := range s.all() {
		if b := m.Bytes(); b != nil {
			sum += int(b[0])
			b[0]++
		}
	}
	return sum, nil
})

// Make returns memory of that many bytes, the last of which is 7.
var Make = multiproc.Register("make", func(_ context.Context, size int) (shared.Memory, error) {
	m, err := shared.NewMemory(size)
	if err == nil {
		m.Bytes()[size-1] = 7
	}
	return m, err
})

// Mark is a byte to be written to memory.
type Mark struct {
	Memory shared.Memory
	At     int
	Byte   byte
	End    string // how the process ends; see Do
}

// Write writes a mark and returns the memory.
var Write = multiproc.Register("write", func(_ context.Context, m Mark) (shared.Memory, error) {
	m.Memory.Bytes()[m.At] = m.Byte
	if m.End != "" {
		return shared.Memory{}, die(m.End)
	}
	return m.Memory, nil
})

// Set writes a mark.
var Set = multiproc.Register("set", func(_ context.Context, m Mark) (int, error) {
	m.Memory.Bytes()[m.At] = m.Byte
	return os.Getpid(), nil
})

// SetBelow has a worker of its own write the mark and return the memory.
var SetBelow = multiproc.Register("setBelow", func(ctx context.Context, m Mark) (shared.Memory, error) {
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
	defer pool.Close()
	return Write.Call(ctx, pool, m)
})

// kept is what KeepMemory has kept in this process.
var kept struct {
	mu sync.Mutex
	m  shared.Memory
}

// KeepMemory keeps the memory for SetKept; the zero memory closes it.
var KeepMemory = multiproc.Register("keepMemory", func(_ context.Context, m shared.Memory) (int, error) {
	kept.mu.Lock()
	defer kept.mu.Unlock()
	err := kept.m.Close()
	if err == nil {
		kept.m, err = m.Keep()
	}
	return os.Getpid(), err
})

// SetKept writes to what KeepMemory has kept, at the place that the argument is.
var SetKept = multiproc.Register("setKept", func(_ context.Context, at int) (int, error) {
	kept.mu.Lock()
	defer kept.mu.Unlock()
	kept.m.Bytes()[at] = 9
	return os.Getpid(), nil
})

// newMemory makes memory, to be closed at the end of the test.
func newMemory(t testing.TB, size int) shared.Memory {
	t.Helper()
	m, err := shared.NewMemory(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeMemory(t, m) })
	return m
}

func closeMemory(t testing.TB, m shared.Memory) {
	t.Helper()
	if err := m.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func memoryArgument(t *testing.T, s Subject) {
	ex, ctx := s.start(t, Options{Workers: 1}), Within(t)
	for _, size := range []int{1, 4096, 10_000_001} {
		m := newMemory(t, size)
		Want(t, "bytes", len(m.Bytes()), size)
		for i := range 3 {
			m.Bytes()[size-1] = 100
			if _, err := Set.Call(ctx, ex, Mark{Memory: m, At: size - 1, Byte: byte(i)}); err != nil {
				t.Fatal(err)
			}
			Want(t, "byte that the function wrote", m.Bytes()[size-1], byte(i))
		}
	}
}

func memoryDepth(t *testing.T, s Subject) {
	ex, ctx := s.start(t, Options{Workers: 1}), Within(t)
	var ms []shared.Memory
	for i := range 9 {
		m := newMemory(t, 100)
		m.Bytes()[0] = byte(1 << min(i, 7))
		ms = append(ms, m)
	}
	closed := newMemory(t, 100)
	closeMemory(t, closed)
	shelf := Shelf{
		Plain: ms[0], Pointer: &ms[1], List: []shared.Memory{ms[2], {}, ms[2]}, Pair: [2]*shared.Memory{nil, &ms[3]},
		ByName: map[string]shared.Memory{"a": ms[4], "": {}}, Deep: &Shelf{Plain: ms[5], List: []shared.Memory{}},
		Private: closed, innerShelf: innerShelf{Inner: []*shared.Memory{&ms[6], {}, nil}},
	}
	sum, err := Count.Call(ctx, ex, shelf)
	if err != nil {
		t.Fatal(err)
	}
	Want(t, "sum", sum, 1<<7-1+1<<2+1) // what is there twice was counted twice
	for i, m := range ms[:7] {
		want := byte(1<<i + 1)
		if i == 2 {
			want++
		}
		Want(t, fmt.Sprintf("first byte of memory %d", i), m.Bytes()[0], want)
	}
	Want(t, "first byte of memory that was not sent", ms[8].Bytes()[0], byte(1<<7))
}

func memoryResult(t *testing.T, s Subject) {
	ex, ctx := s.start(t, Options{Workers: 1}), Within(t)
	m, err := Make.Call(ctx, ex, 5_000_000)
	if err != nil {
		t.Fatal(err)
	}
	Want(t, "bytes", m.Len(), 5_000_000)
	Want(t, "last byte", m.Bytes()[m.Len()-1], byte(7))
	again, err := Write.Call(ctx, ex, Mark{Memory: m, At: 3, Byte: 4})
	if err != nil {
		t.Fatal(err)
	}
	Want(t, "byte in the memory that went there and back", again.Bytes()[3], byte(4))
	m.Bytes()[3]++
	Want(t, "byte by the other handle", again.Bytes()[3], byte(5))
	closeMemory(t, m)
	if s.Crashes { // otherwise they are the same handle
		Want(t, "byte when the first handle is closed", again.Bytes()[3], byte(5))
	}
	closeMemory(t, again)
	if again.Bytes() != nil {
		t.Error("there are bytes after Close")
	}
}

func memoryMany(t *testing.T, s Subject) {
	ex, ctx := s.start(t, Options{Workers: 3}), Within(t)
	n := s.some(300)
	one := newMemory(t, n)
	var marks []Mark
	for i := range n {
		marks = append(marks, Mark{Memory: one, At: i, Byte: byte(i%250 + 1)})
	}
	if _, err := Set.Map(ctx, ex, marks); err != nil {
		t.Fatal(err)
	}
	for i, b := range one.Bytes() {
		if b != byte(i%250+1) {
			t.Fatalf("byte %d is %d", i, b)
		}
	}
	// Memory of its own for each call, and back.
	for i := range marks {
		marks[i].Memory, marks[i].At = newMemory(t, 10), 2
	}
	out, err := Write.Map(ctx, ex, marks, multiproc.WithBatch(100))
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range out {
		if got := m.Bytes()[2]; got != byte(i%250+1) || marks[i].Memory.Bytes()[2] != got {
			t.Fatalf("memory %d has %d, %d", i, got, marks[i].Memory.Bytes()[2])
		}
		closeMemory(t, m)
	}
}

func memoryNested(t *testing.T, s Subject) {
	ex, ctx := s.start(t, Options{Workers: 2}), Within(t)
	m := newMemory(t, 100)
	out, err := SetBelow.Call(ctx, ex, Mark{Memory: m, At: 50, Byte: 5})
	if err != nil {
		t.Fatal(err)
	}
	Want(t, "byte that the worker's worker wrote", m.Bytes()[50], byte(5))
	Want(t, "byte in what came back", out.Bytes()[50], byte(5))
	closeMemory(t, out)
}

func memoryClosed(t *testing.T, s Subject) {
	ex, ctx := s.start(t, Options{Workers: 1}), Within(t)
	m, gone := newMemory(t, 10), newMemory(t, 10)
	closeMemory(t, gone)
	_, err := Set.Map(ctx, ex, []Mark{{Memory: m, At: 0, Byte: 1}, {Memory: gone}, {Memory: m, At: 2, Byte: 3}}, multiproc.CollectErrors(), multiproc.WithBatch(3))
	WantErr(t, err, fs.ErrClosed)
	WantErr(t, err, multiproc.ErrEncoding)
	if err != nil && strings.Count(err.Error(), "set #") != 1 {
		t.Errorf("got %v, want the error of one call", err)
	}
	Want(t, "bytes that the other calls wrote", m.Bytes()[:3], []byte{1, 0, 3})
}

func memoryCrash(t *testing.T, s Subject) {
	ex, ctx := s.start(t, Options{Workers: 1}), Within(t)
	m := newMemory(t, 10)
	var marks []Mark
	for i := range 10 {
		marks = append(marks, Mark{Memory: m, At: i, Byte: 1})
	}
	marks[3].End = "exit 3"
	out, err := Write.Map(ctx, ex, marks, multiproc.CollectErrors(), multiproc.WithBatch(10))
	if crash, ok := errors.AsType[*multiproc.CrashError](err); !ok || crash.Index != 3 {
		t.Errorf("got %v, want the crash of call 3", err)
	}
	Want(t, "bytes that were written", m.Bytes(), slices.Repeat([]byte{1}, 10))
	for i, o := range out {
		if i != 3 && len(o.Bytes()) != 10 {
			t.Errorf("result %d has %d bytes", i, len(o.Bytes()))
		}
		closeMemory(t, o)
	}
}

func memoryKept(t *testing.T, s Subject) {
	if !s.Reuses {
		return // nothing is left of a call
	}
	ex, ctx := s.start(t, Options{Workers: 1}), Within(t)
	m := newMemory(t, 10)
	pid, err := KeepMemory.Call(ctx, ex, m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := SetKept.Call(ctx, ex, 4)
	if err != nil {
		t.Fatal(err)
	}
	Want(t, "process", got, pid)
	Want(t, "byte", m.Bytes()[4], byte(9))
	if _, err := KeepMemory.Call(ctx, ex, shared.Memory{}); err != nil {
		t.Error(err)
	}
}

func memoryTooMany(t *testing.T, s Subject) {
	ex, ctx := s.start(t, Options{Workers: 1}), Within(t)
	var list []shared.Memory
	for range 254 {
		list = append(list, newMemory(t, 1))
	}
	_, err := Count.Map(ctx, ex, []Shelf{{List: list[:200]}, {List: list}, {List: list[1:]}}, multiproc.CollectErrors(), multiproc.WithBatch(3))
	WantErr(t, err, multiproc.ErrEncoding)
	if err == nil || strings.Count(err.Error(), "count #1:") != 1 || strings.Contains(err.Error(), "count #2") {
		t.Errorf("got %v, want an error of call 1", err)
	}
	Want(t, "calls that had the first and the last", []byte{list[0].Bytes()[0], list[1].Bytes()[0], list[253].Bytes()[0]}, []byte{1, 2, 1})
}

func memoryForgotten(t *testing.T, s Subject) {
	ex, ctx := s.start(t, Options{Workers: 2}), Within(t)
	for out, err := range Make.Stream(ctx, ex, slices.Values([]int{10, 10, 10, 10, 10, 10})) {
		if err != nil {
			t.Fatal(err)
		}
		if out.Len() != 10 {
			t.Errorf("got %d bytes", out.Len())
		}
		break // the others are dropped, and this one has not been used
	}
}

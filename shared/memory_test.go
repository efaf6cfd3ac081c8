package shared_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
	"github.com/seed84f35039/multiproc/shared"
)

// newMemory makes memory that is closed at the end of the test.
func newMemory(t testing.TB, size int) shared.Memory {
	t.Helper()
	m, err := shared.NewMemory(size)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("this system has no memory without a name that processes could share")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// TestMemory uses memory within this process.
func TestMemory(t *testing.T) {
	t.Parallel()
	m := newMemory(t, 1000)
	proctest.Want(t, "Len", m.Len(), 1000)
	b := m.Bytes()
	proctest.Want(t, "len and cap", [2]int{len(b), cap(b)}, [2]int{1000, 1000})
	b[999] = 1
	kept, err := m.Keep()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	proctest.Want(t, "bytes after Close", m.Bytes(), []byte(nil))
	proctest.Want(t, "text after Close", m.String(), "shared memory of 1000 bytes")
	if _, err := m.Keep(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Keep after Close: %v", err)
	}
	proctest.Want(t, "byte by the other handle", kept.Bytes()[999], byte(1))
	if err := kept.Close(); err != nil {
		t.Error(err)
	}
}

// TestZeroMemory uses what is no memory.
func TestZeroMemory(t *testing.T) {
	t.Parallel()
	var m shared.Memory
	kept, err := m.Keep()
	if err != nil || m.Close() != nil || m.Len() != 0 || m.Bytes() != nil || kept != m || len(shared.View[int64](m)) != 0 {
		t.Errorf("got %v, %v, %v", kept, err, m)
	}
}

// TestNewMemoryRefuses sizes that cannot be.
func TestNewMemoryRefuses(t *testing.T) {
	t.Parallel()
	newMemory(t, 1) // or skip
	for _, size := range []int{0, -1, math.MinInt, math.MaxInt, math.MaxInt - 5000} {
		if m, err := shared.NewMemory(size); err == nil {
			t.Errorf("%d bytes: got %v", size, m)
		}
	}
}

// TestView looks at memory as numbers.
func TestView(t *testing.T) {
	t.Parallel()
	m := newMemory(t, 8*10+7)
	floats := shared.View[float64](m)
	proctest.Want(t, "len and cap", [2]int{len(floats), cap(floats)}, [2]int{10, 10})
	floats[9] = math.Pi
	proctest.Want(t, "bits", shared.View[uint64](m)[9], math.Float64bits(math.Pi))
	proctest.Want(t, "bytes", len(shared.View[uint8](m)), 87)
}

// TestAlone has memory encoded where it cannot go.
func TestAlone(t *testing.T) {
	t.Parallel()
	m := newMemory(t, 10)
	if data, err := cbor.Marshal(m); err == nil {
		t.Errorf("got %x", data)
	}
	var got shared.Memory
	if err := cbor.Unmarshal([]byte{0x82, 1, 2}, &got); err != nil {
		t.Fatal(err)
	}
	if _, err := got.Keep(); err == nil || got.Bytes() != nil {
		t.Error("there is memory behind a name")
	}
}

// hidden has memory that only its own encoding shows.
type hidden struct{ m shared.Memory }

func (h hidden) MarshalCBOR() ([]byte, error)     { return cbor.Marshal(h.m) }
func (h *hidden) UnmarshalCBOR(data []byte) error { return cbor.Unmarshal(data, &h.m) }

var hide = multiproc.Register("hide", func(_ context.Context, h hidden) (int, error) { return h.m.Len(), nil })

// size returns the size of memory, and the pid is in the error if it has none.
var size = multiproc.Register("size", func(_ context.Context, m shared.Memory) (int, error) { return len(m.Bytes()), nil })

// TestHidden has memory travel where nobody can see it: that is an error, not a loss.
func TestHidden(t *testing.T) {
	t.Parallel()
	m := newMemory(t, 10)
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
	defer pool.Close()
	_, err := hide.Call(proctest.Within(t), pool, hidden{m})
	proctest.WantErr(t, err, multiproc.ErrEncoding)
	if out, err := size.Call(proctest.Within(t), pool, m); out != 10 || err != nil {
		t.Errorf("then: %d, %v", out, err)
	}
}

// TestStart hands memory to a single process, and closes it while that starts.
func TestStart(t *testing.T) {
	t.Parallel()
	m := newMemory(t, 100)
	p, err := proctest.Write.Start(proctest.Within(t), proctest.Mark{Memory: m, At: 99, Byte: 3}, multiproc.ProcessConfig{})
	if err != nil {
		t.Fatal(err)
	}
	kept, _ := m.Keep()
	defer kept.Close()
	m.Close()
	out, err := p.Wait(proctest.Within(t))
	if err != nil {
		t.Fatal(err)
	}
	proctest.Want(t, "what the process wrote", []byte{kept.Bytes()[99], out.Bytes()[99]}, []byte{3, 3})
	out.Close()
	made, err := proctest.Make.Start(proctest.Within(t), 1000, multiproc.ProcessConfig{})
	if err != nil {
		t.Fatal(err)
	}
	out, err = made.Wait(proctest.Within(t))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	proctest.Want(t, "what the process made", out.Bytes()[999], byte(7))
	if _, err := size.Start(proctest.Within(t), m, multiproc.ProcessConfig{}); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Start with closed memory: %v", err)
	}
}

// TestSetup gives memory to each worker once.
func TestSetup(t *testing.T) {
	t.Parallel()
	m := newMemory(t, 8)
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2, Setup: proctest.KeepMemory.With(m)})
	defer pool.Close()
	if _, err := proctest.SetKept.Map(proctest.Within(t), pool, proctest.Numbers(8), multiproc.WithBatch(1)); err != nil {
		t.Fatal(err)
	}
	proctest.Want(t, "bytes", m.Bytes(), []byte(strings.Repeat("\t", 8)))
}

// TestUnused has the garbage collector close what nobody has used, and nothing else.
func TestUnused(t *testing.T) {
	t.Parallel()
	newMemory(t, 1) // or skip
	used := func() []byte {
		m, err := shared.NewMemory(10)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		kept, err := m.Keep() // not used, not closed; see proctest.Run
		if err != nil || kept.Len() != 10 {
			t.Fatal(err)
		}
		return m.Bytes()
	}()
	for range 3 {
		runtime.GC()
	}
	used[9] = 1 // would end the program
}

func Example() {
	// var sum = multiproc.Register("sum", …) at package level: it adds numbers up.
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2})
	defer pool.Close()

	m, err := shared.NewMemory(8 << 20)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	numbers := shared.View[float64](m)
	for i := range numbers {
		numbers[i] = 0.5
	}
	// Both calls have all of the memory, and nothing is copied.
	half := len(numbers) / 2
	out, err := sum.Map(context.Background(), pool, []Range{{m, 0, half}, {m, half, len(numbers)}})
	fmt.Println(out, err)
	// Output: [262144 262144] <nil>
}

// Range is some of the numbers in memory.
type Range struct {
	Numbers  shared.Memory
	From, To int
}

var sum = multiproc.Register("sum", func(_ context.Context, r Range) (sum float64, err error) {
	for _, x := range shared.View[float64](r.Numbers)[r.From:r.To] {
		sum += x
	}
	return sum, nil
})

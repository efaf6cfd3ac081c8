//go:build linux

package multiproc_test

import (
	"runtime"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// million is how many inputs make much; the race detector has enough with fewer.
func million(t *testing.T) int {
	if testing.Short() || raceEnabled {
		return 100_000
	}
	t.Helper()
	return 1_000_000
}

// TestStreamInConstantMemory has a long stream need no more memory at its end than at
// its beginning.
func TestStreamInConstantMemory(t *testing.T) {
	n := million(t)
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2})
	defer pool.Close()
	inUse := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	in := func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
	var early uint64
	i := 0
	for out, err := range proctest.Square.Stream(proctest.Within(t), pool, in) {
		if out != i*i || err != nil {
			t.Fatalf("item %d: got %d, %v", i, out, err)
		}
		if i++; i == n/10 {
			early = inUse()
		}
	}
	late := inUse()
	proctest.Want(t, "number of results", i, n)
	t.Logf("in use after a tenth: %d KiB, at the end: %d KiB", early>>10, late>>10)
	if late > early+4<<20 {
		t.Errorf("%d MiB are in use at the end, %d MiB after a tenth", late>>20, early>>20)
	}
}

// TestMapOfMany maps many inputs: all results are right and in order.
func TestMapOfMany(t *testing.T) {
	n := million(t)
	for _, s := range []proctest.Subject{threads, pool} {
		ex := s.Open(proctest.Options{Workers: 2})
		out, err := proctest.Square.Map(proctest.Within(t), ex, proctest.Numbers(n))
		if err != nil || len(out) != n {
			t.Fatalf("%s: got %d results, %v", s.Name, len(out), err)
		}
		for i, x := range out {
			if x != i*i {
				t.Fatalf("%s: result %d is %d", s.Name, i, x)
			}
		}
		if err := ex.Close(); err != nil {
			t.Error(err)
		}
	}
}

package multiproc

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/seed84f35039/multiproc/internal/wire"
)

// Each call is started or given back, never both, however claims and cuts meet.
func TestClaimsAndCuts(t *testing.T) {
	const n = 20_000
	w := newWork(1, n, "f", nil, nil)
	var started, back [n]atomic.Int32
	var wg sync.WaitGroup
	for range 2 { // one claims in earnest; hold keeps it from that for moments
		wg.Go(func() {
			for at := n; at > 0; at -= 3 {
				from, to := w.cut(at)
				for i := from; i < to; i++ {
					back[i].Add(1)
				}
			}
		})
	}
	wg.Go(func() {
		for {
			next, end := w.span()
			if next == end {
				return
			}
			if w.hold(next) {
				w.release()
			}
		}
	})
	for last := -1; ; {
		i, ok := w.claim()
		if next, end := w.span(); !ok && next == end {
			break
		} else if !ok {
			continue // on hold
		}
		if i != last+1 {
			t.Fatalf("call %d started after %d", i, last)
		}
		last = i
		started[i].Add(1)
	}
	wg.Wait()
	for i := range n {
		if started[i].Load()+back[i].Load() != 1 {
			t.Fatalf("call %d was started %d times and given back %d times", i, started[i].Load(), back[i].Load())
		}
	}
}

// What is cut out of the middle is work again.
func TestPart(t *testing.T) {
	var args []byte
	for i := range 10 {
		start := len(args)
		args = append(wire.BeginArg(args), byte(i))
		if err := wire.EndArg(args, start); err != nil {
			t.Fatal(err)
		}
	}
	w := newWork(100, 10, "f", nil, args)
	w.claim()
	from, to := w.cut(4)
	if from != 4 || to != 10 {
		t.Fatalf("cut %d to %d", from, to)
	}
	part := w.part(7, to)
	arg, _, err := wire.SplitArg(part.args)
	if next, end := part.span(); err != nil || part.id != 107 || next != 0 || end != 3 || arg[0] != 7 {
		t.Errorf("got calls %d to %d from %d on, the first with argument %v, %v", next, end, part.id, arg, err)
	}
	if next, end := w.span(); next != 1 || end != 4 {
		t.Errorf("%d to %d are left", next, end)
	}
}

package multiproc

import (
	"sync/atomic"

	"github.com/seed84f35039/multiproc/internal/handover"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// work is calls of one function as a worker got them, numbered from 0. They are started
// from the front, by one goroutine, and given back from the end, by others.
type work struct {
	id   uint64 // of call 0
	name string
	f    function          // nil if there is none of that name
	args []byte            // of all calls, as in a Calls frame; of a lone call its argument
	lone bool              // came in a Call frame
	came *handover.Arrival // with all calls, or nil
	from *origin           // of the calls
	pos  atomic.Uint64
}

// In pos stand the first call that was not started, the first one that was given back, or
// that never was, and whether no call may be started.
const (
	posEnd  = 32
	posMask = 1<<31 - 1
	posHold = 1 << 63
)

func newWork(id uint64, n int, name string, f function, args []byte) *work {
	w := &work{id: id, name: name, f: f, args: args}
	w.pos.Store(uint64(n) << posEnd)
	return w
}

// span returns which calls have not been started.
func (w *work) span() (next, end int) {
	p := w.pos.Load()
	return int(p & posMask), int(p >> posEnd & posMask)
}

// claim starts the next call. It returns false if there is none, or on hold.
func (w *work) claim() (i int, ok bool) {
	for {
		p := w.pos.Load()
		next, end := p&posMask, p>>posEnd&posMask
		if next == end || p&posHold != 0 {
			return 0, false
		}
		if w.pos.CompareAndSwap(p, p+1) {
			return int(next), true
		}
	}
}

// cut takes out the calls from i on that have not been started: from up to to.
func (w *work) cut(i int) (from, to int) {
	for {
		p := w.pos.Load()
		next, end := int(p&posMask), int(p>>posEnd&posMask)
		if from, to = max(i, next), end; from >= to {
			return to, to
		}
		if w.pos.CompareAndSwap(p, p&posHold|uint64(from)<<posEnd|uint64(next)) {
			return from, to
		}
	}
}

// part returns calls that were cut out as work of their own.
func (w *work) part(from, to int) *work {
	args := w.args
	for range from {
		_, args, _ = wire.SplitArg(args) // cannot fail: they were counted
	}
	part := newWork(w.id+uint64(from), to-from, w.name, w.f, args)
	part.lone, part.came, part.from = w.lone, w.came, w.from
	return part
}

// hold keeps w from starting another call than the one after the first next, and reports
// whether that is still so. release must follow then.
func (w *work) hold(next int) bool {
	for {
		p := w.pos.Load()
		if int(p&posMask) != next {
			return false
		}
		if w.pos.CompareAndSwap(p, p|posHold) {
			return true
		}
	}
}

func (w *work) release() { w.pos.And(posHold - 1) }

package multiproc

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/seed84f35039/multiproc/internal/wire"
)

// startedOne notes that one of several calls runs.
func (w *worker) startedOne(id uint64) error {
	if _, runs := w.in.several[id]; runs || len(w.in.several) == w.p.cfg.Concurrency {
		return fmt.Errorf("call %d started while %d others run", id, len(w.in.several))
	}
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	if id == 0 || id >= w.out.said.Load() || w.find(id) < 0 {
		return fmt.Errorf("call %d started, which the worker does not have to start", id)
	}
	w.in.several[id], w.began[id] = nil, time.Now()
	if w.p.cfg.CallTimeout > 0 {
		w.watch(w.callLimit())
	}
	return nil
}

// answered notes that the call has been answered, and whether that says that the next one
// runs. It returns which limit the call has exceeded, or nil.
func (w *worker) answered(id uint64, m *wire.Frame) (*exceeded, error) {
	if over, runs := w.in.several[id]; runs && !m.Next {
		delete(w.in.several, id)
		return over, nil
	}
	if id != w.in.running || id == 0 {
		return nil, fmt.Errorf("answer to call %d, which does not run", id)
	}
	over := w.in.over
	if w.in.running, w.in.over = 0, nil; m.Next {
		w.in.running = id + 1
	}
	return over, nil
}

// exceeded is a limit that a call has exceeded.
type exceeded struct {
	limit time.Duration
	cpu   bool
}

// error returns the error of a call that was told so and returned err; nil: did not return.
func (x *exceeded) error(at CallInfo, err error) error {
	return &TimeoutError{CallInfo: at, Limit: x.limit, CPU: x.cpu, Hard: err == nil, wrapped: err}
}

// exceededBy reads an Exceeded frame of a worker that has these limits.
func exceededBy(m *wire.Frame, timeout, cpuTime time.Duration) (*exceeded, error) {
	what, err := wire.Number(m.Body)
	switch {
	case err != nil:
		return nil, err
	case what == exceededTime && timeout > 0:
		return &exceeded{timeout, false}, nil
	case what == exceededCPU && cpuTime > 0:
		return &exceeded{cpuTime, true}, nil
	}
	return nil, fmt.Errorf("call %d exceeded a limit that there is not", m.ID)
}

func (w *worker) onExceeded(m *wire.Frame) error {
	over, err := exceededBy(m, w.p.cfg.CallTimeout, w.p.cfg.CPUTime)
	if err != nil {
		return err
	}
	if _, runs := w.in.several[m.ID]; runs {
		w.in.several[m.ID] = over
	} else if w.in.over = over; m.ID == 0 || m.ID != w.in.running {
		return fmt.Errorf("call %d exceeded a limit, but does not run", m.ID)
	}
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	if _, known := w.overtime[m.ID]; !known && w.find(m.ID) >= 0 && m.ID < w.out.said.Load() {
		if w.overtime == nil {
			w.overtime = map[uint64]time.Time{}
		}
		w.overtime[m.ID] = time.Now()
		w.watch(w.p.cfg.KillGrace + reaction)
	}
	return nil
}

// runs returns the calls that the worker runs, in order, and which limits they have
// exceeded.
func (in *incoming) runs() (ids []uint64, over []*exceeded) {
	if in.running != 0 {
		return []uint64{in.running}, []*exceeded{in.over}
	}
	ids = slices.Sorted(maps.Keys(in.several))
	for _, id := range ids {
		over = append(over, in.several[id])
	}
	return ids, over
}

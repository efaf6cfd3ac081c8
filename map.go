package multiproc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// errFirstFailed is why the rest of a Map is cancelled when a call has failed.
var errFirstFailed = errors.New("another call of the Map failed")

// Map runs the function on each input and returns the results in the order of the
// inputs.
//
// When a call fails, those after it are cancelled, those before it run on, and Map
// returns the first error in the order of the inputs together with all results
// before it, once no call of this Map runs any more. When ctx ends, Map returns its
// cause and the results up to the first one that is missing at once, and leaves it
// to the executor to end what runs. With [CollectErrors] every call is run; a call
// that failed, or had not ended when ctx did, has an error and a zero result.
//
// The inputs must not be changed before Map returns. (On Threads the function gets
// what they point to, and may use that for as long as it runs.)
func (f *Func[In, Out]) Map(ctx context.Context, ex Executor, in []In, opts ...MapOption) ([]Out, error) {
	if err := f.check(ctx, ex); err != nil {
		return nil, err
	}
	var o options
	for _, opt := range opts {
		if opt != nil {
			opt.applyMap(&o)
		}
	}
	if o.err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, o.err)
	}
	jobCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	job := &mapJob[Out]{
		out: make([]Out, len(in)), done: make([]bool, len(in)), left: len(in),
		collect: o.collect, cancel: cancel, finished: make(chan struct{}),
	}
	job.limit.Store(int64(len(in)))
	calls := &typedCalls[In, Out]{f: f, ctx: jobCtx, in: in, gate: &gate{}, to: job}
	defer calls.gate.close() // the inputs are the caller's again
	b := &Batch{ctx: jobCtx, name: f.name, n: len(in), first: numbers(len(in)), size: o.batch, calls: calls}
	if err := ex.Submit(b); err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	if len(in) == 0 {
		return job.out, nil
	}
	b.attend(ctx, &job.settledAll)
	select {
	case <-job.finished:
	case <-ctx.Done():
		job.abandon(func(i int) error { return &located{calls.info(i, 0), canceled(ctx)} })
	}
	return job.result()
}

// mapJob collects the answers of a Map.
type mapJob[Out any] struct {
	collect    bool
	cancel     context.CancelCauseFunc
	finished   chan struct{} // closed when left is 0
	settledAll atomic.Bool   // likewise true

	mu     sync.Mutex
	out    []Out
	done   []bool        // which calls are answered
	left   int           // calls not answered
	over   bool          // none are left, and finished is or will be closed
	limit  atomic.Int64  // calls from here on are not wanted: the lowest that failed, unless all are to run
	before int           // calls below limit that are not answered, once one failed
	errs   map[int]error // of the failed calls; those above limit do not matter
}

func (m *mapJob[Out]) deliver(first int, outs []Out) {
	m.mu.Lock()
	for k := range outs {
		if i := first + k; !m.done[i] {
			m.settled(i)
			m.out[i] = outs[k]
		}
	}
	m.progressed()
}

func (m *mapJob[Out]) deliverOne(i int, out Out) {
	m.mu.Lock()
	if !m.done[i] {
		m.settled(i)
		m.out[i] = out
	}
	m.progressed()
}

func (m *mapJob[Out]) fail(i int, err error) {
	m.mu.Lock()
	if !m.done[i] {
		m.settled(i)
		m.failed(i, err)
	}
	m.progressed()
}

// settled counts call i as answered. m.mu is held.
func (m *mapJob[Out]) settled(i int) {
	m.done[i] = true
	m.left--
	if m.stopping() && i < int(m.limit.Load()) {
		m.before--
	}
}

// stopping reports whether calls are not to be run because one has failed.
func (m *mapJob[Out]) stopping() bool { return int(m.limit.Load()) < len(m.out) }

// failed notes the error of call i. m.mu is held.
func (m *mapJob[Out]) failed(i int, err error) {
	if !m.collect && i >= int(m.limit.Load()) {
		return
	}
	if m.errs == nil {
		m.errs = map[int]error{}
	}
	m.errs[i] = err
	if m.collect {
		return
	}
	m.limit.Store(int64(i))
	m.before = 0
	for _, done := range m.done[:i] {
		if !done {
			m.before++
		}
	}
}

// progressed ends the job when it is time, and releases m.mu.
func (m *mapJob[Out]) progressed() {
	last := m.left == 0 && !m.over
	m.over = m.over || last
	rest := m.stopping() && m.before == 0
	m.mu.Unlock()
	if rest && !last {
		m.cancel(errFirstFailed) // only calls after the failed one are left
	}
	if last {
		m.settledAll.Store(true)
		close(m.finished)
	}
}

func (m *mapJob[Out]) wanted(i int) bool { return int64(i) < m.limit.Load() }

// abandon answers every call that is left, so that nothing writes to out any more.
func (m *mapJob[Out]) abandon(err func(i int) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, done := range m.done {
		if done {
			continue
		}
		m.done[i] = true
		m.failed(i, err(i))
	}
}

// result returns what Map returns, once every call is answered.
func (m *mapJob[Out]) result() ([]Out, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.collect {
		limit := int(m.limit.Load())
		return m.out[:limit], m.errs[limit]
	}
	var errs []error
	for i := range m.out {
		if err, failed := m.errs[i]; failed {
			errs = append(errs, err)
		}
	}
	return m.out, errors.Join(errs...)
}

package multiproc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed84f35039/multiproc/internal/handover"
	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// flying is calls that a worker has, of consecutive ids.
type flying struct {
	span
	id        uint64        // of the first
	est       time.Duration // how long each of them will take, as far as is known
	cancelled time.Time     // when they were, or zero
	told      time.Time     // when the worker was told so, or zero
}

// land takes the calls from id on out of flight, at most n and as many as were handed
// over together. It returns none if the call of that id is not in flight. p.mu is held.
func (w *worker) land(id uint64, n int) span {
	at := w.find(id)
	if at < 0 {
		return span{}
	}
	f := &w.flight[at]
	before, rest := f.split(int(id - f.id))
	s, after := rest.split(min(n, rest.n))
	s.e.out -= s.n
	w.open -= s.n
	w.load -= f.est * time.Duration(s.n)
	if w.open == 0 && w.p.cfg.IdleTimeout > 0 {
		w.rested = time.Now()
	}
	if len(w.began) > 0 {
		for k := range s.n {
			delete(w.began, id+uint64(k))
		}
	}
	if len(w.overtime) > 0 {
		for k := range s.n {
			delete(w.overtime, id+uint64(k))
		}
	}
	tail := *f
	tail.span, tail.id = after, id+uint64(s.n)
	switch {
	case before.n > 0 && after.n > 0:
		f.span = before
		w.flight = slices.Insert(w.flight, at+1, tail)
	case before.n > 0:
		f.span = before
	case after.n > 0:
		*f = tail
	case at == 0: // as ever, unless calls come back: this must not cost more the more there are
		w.flight[0] = flying{}
		w.flight = w.flight[1:]
	default:
		w.flight = slices.Delete(w.flight, at, at+1)
	}
	return s
}

// landSaid is land for calls that the worker says something about, which may be calls that
// it has not been handed yet. p.mu is held.
func (w *worker) landSaid(id uint64, n int) span {
	said := w.out.said.Load()
	if id >= said {
		return span{}
	}
	return w.land(id, int(min(uint64(n), said-id)))
}

// has reports whether the worker has calls of e. p.mu is held.
func (w *worker) has(e *entry) bool {
	return slices.ContainsFunc(w.flight, func(f flying) bool { return f.e == e })
}

// find returns where in flight the call is, or -1. p.mu is held.
func (w *worker) find(id uint64) int {
	i, found := slices.BinarySearchFunc(w.flight, id, func(f flying, id uint64) int {
		switch {
		case id < f.id:
			return 1
		case id-f.id >= uint64(f.n):
			return -1
		}
		return 0
	})
	if !found {
		return -1
	}
	return i
}

// incoming is what a worker says. Whoever holds mu may take it: the worker's receive,
// or a caller that waits for an answer.
type incoming struct {
	mu      sync.Mutex
	frame   wire.Frame           // scratch of take
	broken  error                // what it said that it must not
	running uint64               // the call that it runs, or 0
	over    *exceeded            // that call has exceeded a limit; or nil
	several map[uint64]*exceeded // the same of each call that it runs, where those can be several; otherwise nil
	known   uint64               // the same, as of the last pass
	traffic transport.Traffic    // when it was heard out last

	taken  atomic.Uint64 // how often frames were taken
	due    atomic.Bool   // it is to be judged; by receive, if nobody else gets to it
	untold int           // calls of which is not known how long they took

	// Results that were not passed on: of calls of consecutive ids.
	first   uint64 // of the first call
	results [][]byte
	ran     time.Duration // how long they took, and the untold ones before
	bytes   int           // of all results
	landed  []landed      // scratch of pass

	came *handover.Arrival // with the next result
}

// landed is calls whose results have come.
type landed struct {
	span
	results [][]byte
}

// A worker that answers calls which take less than lazily is not asked to wake its
// parent for each: it does when half of them are answered, or maxQuorum bytes are there.
// As it may come to a longer call, the parent looks after nap.
const (
	lazily    = 5 * time.Microsecond
	maxQuorum = 64 << 10
	nap       = time.Millisecond
)

// maxRan is the longest time that is believed: with more, sums would overflow.
const maxRan = 24 * time.Hour

// quorum returns for how many bytes of answers the parent waits. p.mu is held.
func (w *worker) quorum() int {
	if len(w.flight) == 0 || w.p.cfg.Concurrency > 1 {
		return 1
	}
	c := w.flight[0].e.cost
	if ran := time.Duration(c.ran.Load()); ran == 0 || ran >= lazily {
		return 1
	}
	return max(1, min(w.open/2*int(c.result.Load()+wire.ShortSize), maxQuorum))
}

// receive takes what the worker says until it is gone, or says what it must not.
func (w *worker) receive() error {
	chat := 0 // how often there was something, since it has been due to be judged
	for quorum := 1; ; {
		w.in.mu.Lock()
		more, err := w.take(0, quorum)
		w.in.mu.Unlock()
		if err != nil {
			return err
		}
		if !more || !w.in.due.Load() {
			chat = 0
		} else if chat++; chat == hearings {
			w.judge(0)
			chat = 0
		}
		if more {
			quorum = w.dispatch()
			continue
		}
		limit := time.Duration(0)
		if quorum > 1 {
			limit = nap
		}
		quorum = 1
		if err := w.link.Wait(limit); err != nil {
			return err
		}
	}
}

// take takes what the worker has said, and reports whether that was anything. It looks
// out for it as long as spin says. w.in.mu is held.
func (w *worker) take(spin time.Duration, quorum int) (more bool, err error) {
	if w.in.broken != nil {
		return false, w.in.broken
	}
	if more, err = w.link.Poll(spin, quorum); err != nil {
		return false, err
	}
	if more {
		w.in.taken.Add(1)
	}
	for {
		m := &w.in.frame
		ok, err := w.link.Next(m)
		if ok {
			if len(m.Short) > 0 {
				err = w.onShort(m.Short)
			} else {
				err = w.on(m)
			}
		}
		if !ok || err != nil {
			if e := w.pass(); err == nil {
				err = e
			}
			w.in.broken = err
			return more, err
		}
	}
}

// on takes a frame.
func (w *worker) on(m *wire.Frame) error {
	switch m.Kind {
	case wire.Started:
		switch {
		case m.ID == 0 && w.p.teardown != nil: // that is what this is
			return nil
		case w.in.several != nil:
			return w.startedOne(m.ID)
		case m.ID == 0 || w.in.running != 0:
			return fmt.Errorf("call %d started while call %d runs", m.ID, w.in.running)
		}
		w.in.running = m.ID
		return nil
	case wire.Result, wire.Failed:
		ran, body, err := wire.SplitRan(m.Body)
		if err != nil {
			return err
		}
		if ran = min(ran, maxRan); m.ID == 0 && w.p.teardown != nil {
			return w.tornDown(m, body)
		}
		if m.Kind == wire.Failed {
			return w.onFailed(m, ran, body)
		}
		w.in.ran += ran
		if err := w.onResult(m.ID, m, body); err != nil || ran < lazily && w.in.several == nil {
			return err
		}
		return w.pass() // so that what a long call took is not taken for others'
	case wire.Handover:
		w.in.came.Done(1)
		w.in.came = takeIn(w.link, *m)
		return nil
	case wire.Log:
		return w.onLog(m)
	case wire.Exceeded:
		return w.onExceeded(m)
	case wire.Pong:
		w.p.mu.Lock()
		w.pinged = time.Time{}
		w.p.mu.Unlock()
		return nil
	case wire.Returned:
		if err := w.pass(); err != nil {
			return err
		}
		return w.onReturned(m)
	}
	return fmt.Errorf("unexpected %s frame", m.Kind)
}

func (w *worker) onResult(id uint64, m *wire.Frame, result []byte) error {
	if _, err := w.answered(id, m); err != nil {
		return err
	}
	if w.in.came != nil {
		return w.onMemory(id, result)
	}
	if n := uint64(len(w.in.results)); n > 0 && id != w.in.first+n {
		if err := w.pass(); err != nil {
			return err
		}
	}
	if len(w.in.results) == 0 {
		w.in.first = id
	}
	w.in.results = append(w.in.results, result)
	w.in.bytes += len(result)
	return nil
}

// onShort takes results of the call that runs and those after it. That the worker had all
// of these is for pass to check.
func (w *worker) onShort(results [][]byte) error {
	if w.in.several != nil {
		return errors.New("a short result does not say which call it is of")
	}
	for w.in.came != nil || len(w.in.results) == 0 || w.in.running != w.in.first+uint64(len(w.in.results)) {
		if err := w.onResult(w.in.running, &wire.Frame{Next: true}, results[0]); err != nil {
			return err
		}
		if results = results[1:]; len(results) == 0 {
			return nil
		}
	}
	w.in.results = append(w.in.results, results...)
	for _, r := range results {
		w.in.bytes += len(r)
	}
	w.in.running += uint64(len(results))
	return nil
}

func (w *worker) onFailed(m *wire.Frame, ran time.Duration, failure []byte) error {
	over, err := w.answered(m.ID, m)
	if err != nil {
		return err
	}
	if err := w.pass(); err != nil {
		return err
	}
	w.p.mu.Lock()
	s := w.landSaid(m.ID, 1)
	w.ended++
	w.failed++
	w.p.mu.Unlock()
	if s.n == 0 {
		return fmt.Errorf("answer to call %d, which the worker does not have", m.ID)
	}
	w.told(s.e, 1, ran, len(failure))
	err = s.e.b.failure(s.i, w.link.PID(), failure)
	if over == nil && w.p.cfg.CallTimeout > 0 && ran >= w.p.cfg.CallTimeout { // it was quicker than the word of that
		over = &exceeded{limit: w.p.cfg.CallTimeout}
	}
	if over != nil {
		err = over.error(s.e.b.Info(s.i, w.link.PID()), err)
	}
	s.e.b.calls.fail(s.i, err)
	w.settled(landed{span: s})
	return nil
}

// tornDown notes how the teardown has ended.
func (w *worker) tornDown(m *wire.Frame, body []byte) error {
	if m.Kind != wire.Failed {
		return nil
	}
	f, err := wire.DecodeFailure(body)
	if err == nil {
		w.p.observe(Event{Kind: TeardownFailed, PID: w.link.PID(), Err: errorFrom(CallInfo{Func: w.p.cfg.Teardown.name, Index: -1, PID: w.link.PID()}, f, nil)})
	}
	return err
}

// told notes what calls have cost.
func (w *worker) told(e *entry, n int, ran time.Duration, bytes int) {
	e.cost.addResults(n, bytes)
	if w.in.untold += n; ran > 0 {
		w.p.latency.add(ran/time.Duration(w.in.untold), w.in.untold)
		e.cost.addTime(w.in.untold, ran)
		w.in.untold = 0
	}
}

// settled counts calls as answered that were.
func (w *worker) settled(ls ...landed) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	for _, l := range ls {
		l.e.end(l.n)
		w.p.drain.done(l.n)
		w.p.answered += uint64(l.n)
	}
}

// pass passes the results on that have come, and notes which call runs.
func (w *worker) pass() (err error) {
	results := w.in.results
	ls := w.in.landed[:0]
	w.p.mu.Lock()
	for k := 0; k < len(results); {
		s := w.landSaid(w.in.first+uint64(k), len(results)-k)
		if s.n == 0 {
			err = fmt.Errorf("answer to call %d, which the worker does not have", w.in.first+uint64(k))
			break
		}
		ls = append(ls, landed{s, results[k : k+s.n]})
		k += s.n
		w.ended += s.n
	}
	if now := w.in.running; now != w.in.known && err == nil {
		if now != 0 && (now >= w.out.said.Load() || w.find(now) < 0) {
			err = fmt.Errorf("call %d started, which the worker does not have to start", now)
			w.in.running = 0
		}
		w.since, w.in.known = time.Now(), now
		if limit := w.p.cfg.CallTimeout; limit > 0 && now != 0 {
			w.watch(w.callLimit())
		}
	}
	w.p.mu.Unlock()
	if len(ls) > 0 {
		n := len(results)
		for _, l := range ls {
			w.told(l.e, l.n, w.in.ran*time.Duration(l.n)/time.Duration(n), w.in.bytes*l.n/n)
			l.e.b.Return(l.i, w.link.PID(), l.results...)
		}
		w.settled(ls...)
	}
	clear(results)
	clear(ls)
	w.in.results, w.in.landed, w.in.ran, w.in.bytes = results[:0], ls, 0, 0
	return err
}

// attending is how many goroutines of this process look out for answers. One thread is
// left to the others.
var attending atomic.Int32

// Attend looks out for the answers to calls that were submitted to a pool, if they are known to be short and a worker was idle, until
// settled is true, the context of the batch ends, or that takes longer than to be woken would. It is for those who
// wait for the answers anyway, and saves them the way by another goroutine.
func (b *Batch) Attend(settled *atomic.Bool) { b.attend(b.ctx, settled) }

// attend takes what the worker says that has the first calls, in place of receive, until all
// calls are settled or that takes so long that receive may as well wake the caller.
func (b *Batch) attend(ctx context.Context, settled *atomic.Bool) {
	w := b.at
	if w == nil {
		return
	}
	if attending.Add(1) >= int32(max(2, runtime.GOMAXPROCS(0))) || !w.in.mu.TryLock() {
		attending.Add(-1)
		return
	}
	defer attending.Add(-1)
	defer w.in.mu.Unlock()
	for spin := b.within; w.takeOver(spin); {
		switch {
		case spin == 0:
			// There is more than this caller's answers, and receive has not been asked to be
			// woken for it.
			go w.catchUp() // ends when there is nothing to take, or the worker is gone; receive does not care
			return
		case settled.Load() || ctx.Err() != nil:
			spin = 0 // once more, so that receive is asked to be woken
		}
	}
}

// takeOver takes what the worker says in place of receive, and reports whether there may be
// more. If not, receive will be woken for it. w.in.mu is held.
func (w *worker) takeOver(spin time.Duration) (more bool) {
	more, err := w.take(spin, 1)
	if err != nil {
		w.link.Signal(syscall.SIGKILL) // so that receive wakes up and learns of it
	}
	if more {
		w.dispatch()
	}
	return more
}

// catchUp takes what the worker has said, until there is nothing.
func (w *worker) catchUp() {
	for more := true; more; {
		w.in.mu.Lock()
		more = w.takeOver(0)
		w.in.mu.Unlock()
	}
}

func (w *worker) onReturned(m *wire.Frame) error {
	n, err := wire.Number(m.Body)
	if err != nil {
		return err
	}
	unwanted := w.takeBack(m.ID, n)
	w.p.answer(unwanted, func(s span) { s.fail(0, ErrClosed) })
	return nil
}

// takeBack notes that the worker gives n calls back, from id on, and returns those that
// nobody is to run.
func (w *worker) takeBack(id uint64, n int) (unwanted []span) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	w.recalling = false
	running, _ := w.in.runs()
	var back []span
	end := min(id+uint64(n), w.out.said.Load())
	for {
		// What is not in flight costs nothing: a worker may speak of any number of calls.
		at, _ := slices.BinarySearchFunc(w.flight, id, func(f flying, id uint64) int {
			return cmp.Compare(f.id+uint64(f.n), id+1)
		})
		if at == len(w.flight) || max(id, w.flight[at].id) >= end {
			break
		}
		id = max(id, w.flight[at].id)
		most, runs := end-id, false
		for _, running := range running {
			if runs = runs || id == running; id < running {
				most = min(most, running-id)
			}
		}
		if runs {
			id++
			continue
		}
		s := w.land(id, int(most))
		back = append(back, s)
		id += uint64(s.n)
	}
	unwanted = w.p.putBack(back)
	if w.barren = 0; len(back) == 0 { // what it has, it has started, or so it says
		w.barren = w.recalled
	}
	if len(back) > 0 && w.open > 0 {
		w.low = 0 // it gets none of them before it has nothing else: they are for others
	}
	w.p.staff()
	w.p.rebalance() // it may have got more calls in the meantime, which could not be asked back
	return unwanted
}

package multiproc

import (
	"context"
	"fmt"
	"iter"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Result is one answer of a StreamUnordered.
type Result[Out any] struct {
	Index int // position of the input; -1 where the stream as a whole failed
	Value Out // zero when Err is set
	Err   error
}

// inputGrace bounds how long a stream that is left waits for its input sequence to
// notice: a sequence that blocks in a read cannot be woken.
const inputGrace = time.Second

// Stream runs the function on each input and yields the results in the order of
// the inputs. Inputs are pulled as the results are taken: never more of them are
// under way than [WithWindow] or the executor's window says, so that a sequence
// without an end runs in constant memory.
//
// A call that fails yields its error in its place, and the stream goes on. When
// ctx ends, or the executor refuses a call, the stream yields that error last and
// ends. Leaving the loop cancels what is under way.
//
// What an input points to must not be changed before its result has been yielded or
// the loop has been left. The input sequence runs on a goroutine of its own; it has ended when the stream
// has, unless it blocks for more than a second after being left. A panic in it
// reaches the caller after the results of the inputs before.
func (f *Func[In, Out]) Stream(ctx context.Context, ex Executor, in iter.Seq[In], opts ...StreamOption) iter.Seq2[Out, error] {
	return func(yield func(Out, error) bool) {
		f.stream(ctx, ex, in, true, opts, func(r Result[Out]) bool { return yield(r.Value, r.Err) })
	}
}

// StreamUnordered is [Func.Stream] in the order in which the calls end. Each result
// carries the index of its input. An error of the stream as a whole comes last, with
// index -1.
func (f *Func[In, Out]) StreamUnordered(ctx context.Context, ex Executor, in iter.Seq[In], opts ...StreamOption) iter.Seq[Result[Out]] {
	return func(yield func(Result[Out]) bool) {
		f.stream(ctx, ex, in, false, opts, yield)
	}
}

func (f *Func[In, Out]) stream(ctx context.Context, ex Executor, in iter.Seq[In], ordered bool, opts []StreamOption, yield func(Result[Out]) bool) {
	err := f.check(ctx, ex)
	var o options
	for _, opt := range opts {
		if opt != nil {
			opt.applyStream(&o)
		}
	}
	switch {
	case err != nil:
	case o.err != nil:
		err = fmt.Errorf("%s: %w", f.name, o.err)
	case in == nil:
		err = fmt.Errorf("%s: the input sequence is nil", f.name)
	}
	if err != nil {
		yield(Result[Out]{Index: -1, Err: err})
		return
	}
	s := &stream[In, Out]{f: f, ex: ex, ordered: ordered, opts: o, fed: make(chan struct{})}
	s.resize()
	s.wakeAt.Store(never)
	s.news.L, s.room.L = &s.mu, &s.mu
	ctx, cancel := context.WithCancelCause(ctx)
	s.ctx = ctx
	unwatch := context.AfterFunc(ctx, func() { s.end(fmt.Errorf("%s: %w", f.name, canceled(ctx))) })
	defer func() {
		unwatch()
		s.leave()
		cancel(nil)
		s.gate.close()
		s.waitFed()
	}()
	go s.feed(in) // ends at the sequence's next yield once s is over; waited for in waitFed
	s.consume(yield)
}

// stream is the state of one run of Stream or StreamUnordered. Its window holds the
// inputs that were pulled and whose results the consumer has not taken.
type stream[In, Out any] struct {
	f       *Func[In, Out]
	ex      Executor
	ctx     context.Context
	ordered bool
	opts    options
	fed     chan struct{} // closed when the feeder has ended
	gate    gate          // of the inputs

	taken  atomic.Int64 // inputs whose results were yielded
	wakeAt atomic.Int64 // at how many of these the feeder, who waits for room, is to be woken

	mu       sync.Mutex
	news     sync.Cond     // for the consumer: there is something to yield, or an end
	room     sync.Cond     // for the feeder: the window has room, or nobody wants more
	size     int           // of the window, as of late
	pulled   int           // inputs pulled
	sent     int           // of them, handed to the executor
	settled  int           // of them, answered
	pending  []In          // pulled and not sent: inputs sent..pulled
	flushing bool          // somebody is handing some over
	waiting  bool          // flushLate will be called
	late     bool          // what is pending is to go
	ready    []Result[Out] // answered and not fetched, in the order in which they are to be yielded
	slots    []slot[Out]   // ordered only: answers that came before their turn; call i is at i modulo the length
	next     int           // ordered only: the call whose turn it is
	eof      bool          // no more inputs come
	over     bool          // nobody wants results any more
	err      error         // why the stream ends at once
	refused  error         // why the executor takes no more calls
	thrown   func()        // throws in the caller what the input sequence threw
}

// slot holds an answer until its turn comes.
type slot[Out any] struct {
	r    Result[Out]
	full bool
}

// feed pulls inputs into the window.
func (s *stream[In, Out]) feed(in iter.Seq[In]) {
	thrown := runtime.Goexit // unless the sequence returns or panics
	defer close(s.fed)
	defer func() {
		if r := recover(); r != nil {
			thrown = func() { panic(r) }
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.eof, s.thrown = true, thrown
		s.flush()
		s.news.Signal()
	}()
	in(func(x In) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.eof || s.over {
			return false
		}
		if s.pending == nil {
			s.pending = make([]In, 0, max(1, min(s.sent-s.settled, s.size)/4))
		}
		s.pending = append(s.pending, x)
		s.pulled++
		if s.pulled%64 == 0 {
			s.resize()
		}
		s.flush()
		for !s.eof && !s.over && s.full() {
			s.resize()
			s.wakeAt.Store(int64(s.pulled - s.size*3/4)) // a quarter is free then
			if s.full() {                                // or a result was yielded in the meantime
				s.room.Wait()
			}
			s.wakeAt.Store(never)
		}
		return !s.eof && !s.over
	})
	thrown = nil
}

// full reports whether no input may be pulled. s.mu is held.
func (s *stream[In, Out]) full() bool { return s.pulled-int(s.taken.Load()) >= s.size }

// resize asks how large the window is to be. s.mu is held.
func (s *stream[In, Out]) resize() {
	if s.size = s.opts.window; s.size == 0 {
		s.size = max(1, s.ex.Window(s.f.name), 2*s.opts.batch)
	}
}

// flush hands pending inputs to the executor: many at a time where it has plenty to do. s.mu
// is held, but not all the time.
func (s *stream[In, Out]) flush() {
	for !s.flushing && !s.over && len(s.pending) > 0 {
		n := len(s.pending)
		if busy := min(s.sent-s.settled, s.size); n < busy/4 && !s.eof && !s.late {
			// A later input, or a later answer, makes it go. As there may be workers that
			// have nothing to do, it does not wait for long.
			if busy < s.size/2 && !s.waiting {
				s.waiting = true
				time.AfterFunc(maxHold, s.flushLate)
			}
			return
		}
		s.late = false
		first := s.sent
		calls := &typedCalls[In, Out]{f: s.f, ctx: s.ctx, in: s.pending, gate: &s.gate, first: first, answered: make([]atomic.Bool, n), to: s}
		s.pending, s.sent, s.flushing = nil, first+n, true
		s.mu.Unlock()
		err := s.ex.Submit(&Batch{ctx: s.ctx, name: s.f.name, n: n, first: numbers(n), size: s.opts.batch, calls: calls})
		s.mu.Lock()
		s.flushing = false
		if err != nil {
			s.refused = fmt.Errorf("%s: %w", s.f.name, err)
			s.eof, s.pulled, s.sent, s.pending = true, first, first, nil
			s.news.Signal()
			s.room.Signal()
		}
	}
}

// maxHold is how long an input waits for others while workers may have nothing to do.
const maxHold = 500 * time.Microsecond

// flushLate hands over inputs that have waited.
func (s *stream[In, Out]) flushLate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting, s.late = false, true
	s.flush()
	s.late = false
}

// deliver takes the results of the calls from first on.
func (s *stream[In, Out]) deliver(first int, outs []Out) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, out := range outs {
		s.settle(Result[Out]{Index: first + k, Value: out})
	}
	s.progressed()
}

func (s *stream[In, Out]) deliverOne(i int, out Out) {
	s.deliverResult(Result[Out]{Index: i, Value: out})
}

func (s *stream[In, Out]) fail(i int, err error) { s.deliverResult(Result[Out]{Index: i, Err: err}) }

func (s *stream[In, Out]) deliverResult(r Result[Out]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(r)
	s.progressed()
}

// settle takes an answer. The window bounds how many of them wait. s.mu is held.
func (s *stream[In, Out]) settle(r Result[Out]) {
	switch s.settled++; {
	case s.over:
	case !s.ordered:
		s.ready = append(s.ready, r)
	case r.Index == s.next:
		s.ready = append(s.ready, r)
		for s.next++; len(s.slots) > 0; s.next++ {
			next := &s.slots[s.next%len(s.slots)]
			if !next.full {
				break
			}
			s.ready = append(s.ready, next.r)
			*next = slot[Out]{}
		}
	default:
		if r.Index-s.next >= len(s.slots) {
			s.widen(r.Index - s.next + 1)
		}
		s.slots[r.Index%len(s.slots)] = slot[Out]{r, true}
	}
}

// widen makes room for at least n slots.
func (s *stream[In, Out]) widen(n int) {
	slots := make([]slot[Out], max(16, n, 2*len(s.slots)))
	for _, x := range s.slots {
		if x.full {
			slots[x.r.Index%len(slots)] = x
		}
	}
	s.slots = slots
}

// progressed tells those who wait for answers. s.mu is held, but not all the time.
func (s *stream[In, Out]) progressed() {
	if len(s.ready) > 0 {
		s.news.Signal()
	}
	s.flush()
}

func (s *stream[In, Out]) wanted(int) bool { return s.ctx.Err() == nil }

// end makes the stream end with err at once.
func (s *stream[In, Out]) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	s.news.Signal()
}

// consume yields results until there are no more or the caller has had enough.
func (s *stream[In, Out]) consume(yield func(Result[Out]) bool) {
	var results []Result[Out]
	for s.fetch(&results) {
		for _, r := range results {
			if s.ctx.Err() != nil {
				break // the error comes at once, as fetch finds out
			}
			if s.taken.Add(1) >= s.wakeAt.Load() {
				s.feedOn()
			}
			if !yield(r) {
				return
			}
		}
	}
	// Nothing is ready and nothing will be.
	s.mu.Lock()
	err, thrown := s.err, s.thrown
	if err == nil {
		err = s.refused
	}
	s.mu.Unlock()
	if err != nil {
		yield(Result[Out]{Index: -1, Err: err})
	} else if thrown != nil {
		thrown()
	}
}

// fetch waits for results to yield. It returns false at the end of the stream.
func (s *stream[In, Out]) fetch(results *[]Result[Out]) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.err == nil && s.ctx.Err() != nil { // whoever is to say so may come late
			s.err = fmt.Errorf("%s: %w", s.f.name, canceled(s.ctx))
		}
		if s.err != nil {
			return false
		}
		if len(s.ready) > 0 {
			old := (*results)[:0]
			clear(*results)
			*results, s.ready = s.ready, old
			return true
		}
		if s.eof && int(s.taken.Load()) == s.pulled {
			return false
		}
		s.news.Wait()
	}
}

// feedOn wakes the feeder.
func (s *stream[In, Out]) feedOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room.Signal()
}

// never is a count that is not reached.
const never = math.MaxInt64

// leave makes everybody stop.
func (s *stream[In, Out]) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	s.pending, s.ready, s.slots = nil, nil, nil
	s.room.Signal()
}

// waitFed waits for the input sequence to end, unless it blocks.
func (s *stream[In, Out]) waitFed() {
	grace := time.NewTimer(inputGrace)
	defer grace.Stop()
	select {
	case <-s.fed:
	case <-grace.C:
	}
}

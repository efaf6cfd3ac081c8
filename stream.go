package multiproc

import (
	"context"
	"fmt"
	"iter"
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
	s := &stream[In, Out]{f: f, ex: ex, ordered: ordered, opts: o, ready: map[int]Result[Out]{}, fed: make(chan struct{})}
	s.news.L, s.room.L = &s.mu, &s.mu
	ctx, cancel := context.WithCancelCause(ctx)
	s.ctx = ctx
	unwatch := context.AfterFunc(ctx, func() { s.fail(fmt.Errorf("%s: %w", f.name, canceled(ctx))) })
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

	mu       sync.Mutex
	news     sync.Cond           // for the consumer: there is something to yield, or an end
	room     sync.Cond           // for the feeder: the window has room, or nobody wants more
	pulled   int                 // inputs pulled
	sent     int                 // of them, handed to the executor
	settled  int                 // of them, answered
	taken    int                 // of them, yielded
	pending  []In                // pulled and not sent: inputs sent..pulled
	flushing bool                // somebody is handing some over
	ready    map[int]Result[Out] // answered and not yielded
	order    []int               // their indexes in the order in which they ended; unordered only
	eof      bool                // no more inputs come
	over     bool                // nobody wants results any more
	err      error               // why the stream ends at once
	refused  error               // why the executor takes no more calls
	thrown   func()              // throws in the caller what the input sequence threw
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
		s.news.Signal()
	}()
	in(func(x In) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.eof || s.over {
			return false
		}
		s.pending = append(s.pending, x)
		s.pulled++
		s.flush()
		for !s.eof && !s.over && s.pulled-s.taken >= s.window() {
			s.room.Wait()
		}
		return !s.eof && !s.over
	})
	thrown = nil
}

func (s *stream[In, Out]) window() int {
	if s.opts.window > 0 {
		return s.opts.window
	}
	return max(1, s.ex.Window(s.f.name), 2*s.opts.batch)
}

// flush hands pending inputs to the executor: at once while it may be short of
// work, otherwise when they make a quarter of the window. s.mu is held, but not
// all the time.
func (s *stream[In, Out]) flush() {
	for !s.flushing && !s.over && len(s.pending) > 0 {
		n, w := len(s.pending), s.window()
		if s.sent-s.settled >= max(1, w/2) && n < w/4 {
			return // a later answer, or a later input, makes it go
		}
		first := s.sent
		calls := &typedCalls[In, Out]{f: s.f, ctx: s.ctx, in: s.pending, gate: &s.gate, first: first, answered: make([]atomic.Bool, n), to: s}
		s.pending, s.sent, s.flushing = nil, first+n, true
		s.mu.Unlock()
		err := s.ex.Submit(&Batch{ctx: s.ctx, name: s.f.name, n: n, size: s.opts.batch, calls: calls})
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

// deliver takes the answer of call i. The window bounds how many of them wait.
func (s *stream[In, Out]) deliver(i int, out Out, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled++
	if s.over {
		return
	}
	s.ready[i] = Result[Out]{Index: i, Value: out, Err: err}
	if !s.ordered {
		s.order = append(s.order, i)
	}
	if !s.ordered || i == s.taken {
		s.news.Signal()
	}
	s.flush()
}

func (s *stream[In, Out]) wanted(int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.over
}

// fail makes the stream end with err at once.
func (s *stream[In, Out]) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	s.news.Signal()
}

// consume yields results until there are no more or the caller has had enough.
func (s *stream[In, Out]) consume(yield func(Result[Out]) bool) {
	for {
		r, ok := s.take()
		if !ok {
			break
		}
		if !yield(r) {
			return
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

// take waits for the next result to yield. It returns false at the end of the
// stream.
func (s *stream[In, Out]) take() (r Result[Out], ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.err == nil && s.ctx.Err() != nil { // whoever is to say so may come late
			s.err = fmt.Errorf("%s: %w", s.f.name, canceled(s.ctx))
		}
		if s.err != nil {
			return r, false
		}
		next := s.taken
		if !s.ordered && len(s.order) > 0 {
			next = s.order[0]
		}
		if r, ok = s.ready[next]; ok {
			delete(s.ready, next)
			if !s.ordered {
				s.order = s.order[1:]
			}
			// Wake the feeder when a quarter of the window is free, not for each.
			if s.taken++; s.pulled-s.taken <= s.window()*3/4 {
				s.room.Signal()
			}
			return r, true
		}
		if s.eof && s.taken == s.pulled {
			return r, false
		}
		s.news.Wait()
	}
}

// leave makes everybody stop.
func (s *stream[In, Out]) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	s.pending, s.order = nil, nil
	clear(s.ready)
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

package multiproc

import (
	"bytes"
	"fmt"
	"os"
	"time"

	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// runner is what the goroutine that runs calls knows.
type runner struct {
	work  *work        // that it is at; nil: none
	fresh bool         // no call of that has been answered
	rest  []byte       // of its arguments
	id    uint64       // of the call that runs, or ran last
	arg   []byte       // of that
	ctx   *callContext // likewise
	last  uint64       // the call before that
	buf   []byte       // the answer to the last call, not sent yet
	tail  wire.Tail    // what buf goes on with, or nil
	short bool         // it is a Result that may be sent in the short form
	bag   luggage      // of the last call

	// Where several run at once:
	began     time.Time // when the call did
	answering bool      // it has the server's lock of that name
	watch     stopwatch
	waits     patience
}

// next ends the call that ran and starts the next one, if there is one. It does not wait.
func (s *server) next() bool {
	r := &s.runner
	r.last = r.id
	if r.work != nil {
		r.ctx.cancel()
		if s.claim(r.work) {
			return true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.work != nil && s.claim(r.work) { // it was on hold
		return true
	}
	for len(s.queue) > 0 {
		w := s.queue[0]
		s.queue[0] = nil
		s.queue = s.queue[1:]
		s.now, r.work, r.rest, r.fresh = w, w, w.args, true
		if s.claim(w) {
			return true
		}
	}
	s.now, r.work, r.rest = nil, nil, nil
	return false
}

// claim starts the next call of w, unless there is none. Its context is there before: as
// soon as the call is claimed it may be cancelled.
func (s *server) claim(w *work) bool {
	r := &s.runner
	next, _ := w.span() // nobody else changes next
	id := w.id + uint64(next)
	ctx := s.contexts.Load().at(id)
	if ctx == nil || id == 0 { // setup and teardown have the same id, and not the same context
		cs := newContexts(id)
		s.contexts.Store(cs)
		ctx = &cs.of[0]
	}
	ctx.from = w.from // it is not the function's yet
	if _, ok := w.claim(); !ok {
		return false
	}
	r.id, r.ctx = id, ctx
	if w.lone {
		r.arg = r.rest
	} else {
		r.arg, r.rest, _ = wire.SplitArg(r.rest) // cannot fail: they were counted
	}
	return true
}

// run runs calls one after the other. What it has to say about one leaves before
// the next begins.
func (s *server) run() {
	r := &s.runner
	if r.watch.since.IsZero() { // calls may be there before anybody waits for them
		r.watch.start()
	}
	ended := false
	defer func() {
		if !ended { // the function called runtime.Goexit
			r.buf = appendFailed(r.buf[:0], r.id, r.watch.read(), &wire.Failure{Cause: wire.CausePanic, Type: "nil", Message: goexit})
			r.tail, r.short = nil, false
			go s.run() // takes the place of this one
		}
	}()
	for {
		ok := s.next()
		err := s.answer(ok)
		r.bag.drop()
		if err != nil {
			s.mute(err)
			break
		}
		if ok {
			s.call(r)
			continue
		}
		if !s.wait() {
			break
		}
	}
	ended = true
}

// answer sends the answer to the last call, if there is one, and that the next has
// started, if it has.
func (s *server) answer(started bool) error {
	r := &s.runner
	how, begins := transport.Now, started
	if started {
		how = transport.Soon
	}
	out := r.buf
	if len(out) > 0 {
		ran := r.watch.lap(r.fresh || !started || s.limiter != nil)
		wire.PutRan(out, 0, ran)
		r.fresh = false
		switch {
		case r.tail != nil:
			if err := s.conn.Send(out, r.tail, how); err != nil {
				return err
			}
			out, r.tail = out[:0], nil
		case !started || r.id != r.last+1:
		default:
			started = false // the answer says it
			short, ok := []byte(nil), false
			if ran == 0 && r.short {
				short, ok = wire.Shorten(out, 0)
			}
			if ok {
				out = short
			} else {
				wire.SetNext(out, 0)
			}
		}
	}
	if started {
		out = wire.Append(out, wire.Started, r.id, nil)
	}
	var err error
	if len(out) > 0 {
		err = s.conn.Send(out, nil, how)
	}
	if s.limiter != nil {
		r.watch.start() // to send may have taken long, which is not the next call's time
		s.limiter.next(begins, r.id)
	}
	if cap(r.buf) > 1<<20 { // do not keep the memory of a large result
		r.buf = nil
	}
	r.buf = r.buf[:0]
	return err
}

// wait waits for calls. It returns false when none will come.
func (s *server) wait() bool {
	r := &s.runner
	select {
	case <-s.more:
		return true // they are there, or were and have been run
	default:
	}
	s.mu.Lock()
	s.leave()
	s.mu.Unlock()
	s.idle.Store(true)
	defer s.idle.Store(false)
	more, _ := s.take(r.waits.begin())
	if !more {
		select {
		case <-s.more:
		case <-s.base.Done():
			return false
		}
	}
	r.waits.end()
	r.watch.start()
	return true
}

// mute ends a worker that cannot answer: the parent is gone, or a function has closed
// the connection, in which case the parent should know.
func (s *server) mute(err error) {
	if !hungUp(err) {
		fmt.Fprintf(os.Stderr, "%scannot answer the parent: %v\n", workerSays, err)
	}
	s.kill()
}

// call runs the call of r and leaves the frame that answers it in buf and tail.
func (s *server) call(r *runner) {
	f := r.work.f
	r.bag.came = r.work.came
	if f == nil {
		r.buf, r.short = appendFailed(r.buf[:0], r.id, 0, &wire.Failure{Cause: wire.CauseUnknownFunc, Message: r.work.name}), false
		return
	}
	buf := wire.AppendRan(wire.Begin(r.buf[:0], wire.Result, r.id), 0)
	buf, raw, failure := f.serve(r.ctx, r.arg, buf, &r.bag)
	if failure == nil {
		var err error
		if raw == nil {
			err = wire.End(buf, 0)
		} else {
			tail := bytes.NewReader(raw)
			if buf, err = wire.EndTail(buf, 0, tail); err == nil {
				r.tail = tail
			}
		}
		if err == nil && !r.bag.goes.Empty() {
			if s.running != nil { // what is said of it must stand right before the answer
				s.answering.Lock()
				r.answering = true
			}
			err = s.sendMemory(&r.bag.goes)
		}
		if err != nil {
			failure = &wire.Failure{Cause: wire.CauseResult, Message: err.Error()}
		}
	}
	if failure != nil {
		buf = appendFailed(buf[:0], r.id, 0, failure)
	}
	r.buf, r.short = buf, failure == nil
}

func appendFailed(buf []byte, id uint64, ran time.Duration, f *wire.Failure) []byte {
	start := len(buf)
	buf = wire.AppendRan(wire.Begin(buf, wire.Failed, id), ran)
	buf, err := wire.AppendFailure(buf, *f)
	if err == nil {
		err = wire.End(buf, start)
	}
	if err != nil { // text of more than 4 GiB
		return appendFailed(buf[:start], id, ran, &wire.Failure{Cause: f.Cause, Message: "the error could not be encoded: " + err.Error()})
	}
	return buf
}

// stopwatch measures how long calls take. It reads the clock after each long one, and
// once in a while where they are short: reading it takes longer than some of them.
type stopwatch struct {
	since time.Time // of the last reading
	calls int       // since then
	every int       // how many calls a reading
}

// A stopwatch is read after so much time, as far as is known, or so many calls.
const (
	lapTime  = 2 * time.Microsecond
	lapCalls = 32
)

func (w *stopwatch) start() { w.since, w.calls = time.Now(), 0 }

// lap notes that a call has ended. It returns how long this and those before have taken,
// or 0 if a later lap will tell. now forces it to tell.
func (w *stopwatch) lap(now bool) time.Duration {
	if w.calls++; w.calls < w.every && !now {
		return 0
	}
	return w.read()
}

// read returns how long the calls have taken since the last reading.
func (w *stopwatch) read() time.Duration {
	took := max(time.Since(w.since), 1)
	w.since = w.since.Add(took)
	w.every = int(min(lapTime/(took/time.Duration(max(w.calls, 1))+1), lapCalls))
	w.calls = 0
	return took
}

// patience decides how long to look out for what comes next before going to sleep: not
// at all, unless it has come soon lately.
type patience struct {
	since time.Time     // of begin
	soon  int           // how often it came soon, lately
	took  time.Duration // how long it took to come, rather the longest time of late
}

// Looking out takes a CPU for lookout, or twice as long as it takes lately, but not for longer than maxLookout, after it has
// proved worth it worthIt times in a row. To be woken takes 5 to 50 µs; maxLookout bears a call that comes by way of a cluster.
const (
	lookout    = 50 * time.Microsecond
	maxLookout = 3 * lookout
	worthIt    = 3
)

// begin returns how long to look out.
func (p *patience) begin() time.Duration {
	p.since = time.Now()
	if p.soon < worthIt {
		return 0
	}
	return min(max(lookout, 2*p.took), maxLookout)
}

// end notes that it has come.
func (p *patience) end() {
	took := time.Since(p.since)
	if took > maxLookout {
		p.soon, p.took = 0, 0
		return
	}
	p.soon = min(p.soon+1, worthIt)
	p.took = max(took, p.took-p.took/8)
}

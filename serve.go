package multiproc

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed84f35039/multiproc/internal/handover"
	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// serve runs the calls that come over conn, in the order in which they come, until
// the parent says stop: then it returns the exit code and true. When the parent is
// gone it returns false. Calls that run are not waited for. kill ends the worker at
// once; it is called when a call does not end in time after it was cancelled.
func serve(conn transport.Conn, cfg workerConfig, kill func()) (code int, ok bool) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := &server{conn: conn, cfg: cfg, kill: kill, base: &workerContext{Context: ctx}, more: make(chan struct{}, 1), over: make(chan int, 1), gone: make(chan struct{})}
	s.guard = newMemoryGuard(s)
	defer s.guard.stop()
	if cfg.concurrency > 1 {
		s.running = map[uint64]*runner{}
		s.idle.Store(true) // whatever comes, somebody waits for it
		go s.runMany()     // ends with ctx
	} else {
		if s.limiter = newLimiter(s); s.limiter != nil {
			defer s.limiter.stop()
			s.base.limit = s.limiter
		}
		go s.run() // ends with ctx, unless a call does not return; then the process ends, which waits for nobody
	}
	go s.listen() // ends when the connection does; likewise
	select {
	case code = <-s.over:
		return code, true
	case <-s.gone:
		return 0, false
	}
}

// server is the worker's side of a connection.
type server struct {
	conn transport.Conn
	cfg  workerConfig
	kill func()
	base *workerContext // of all calls
	more chan struct{}  // has an element when queue may have become non-empty
	over chan int       // has the exit code when the parent has said stop
	gone chan struct{}  // closed when the parent is gone, or says what it must not

	idle atomic.Bool // run has nothing to do

	receiving sync.Mutex // held while frames are taken
	frame     wire.Frame // that was taken
	broken    error      // why no more are

	mu      sync.Mutex
	now     *work              // the work of the call that runs, the last one of it that was started; nil: none runs
	queue   []*work            // not started, in the order in which they came
	slab    []byte             // what came is copied to its end
	came    *handover.Arrival  // with the next frame of calls
	leaving *int               // exit code, when the parent has said to end after the last call; or nil
	running map[uint64]*runner // the calls that run, where that can be several
	unsent  int                // calls that have run and whose answers have not left, likewise

	answering sync.Mutex // held by a call that answers, where several run

	contexts atomic.Pointer[contexts] // of the latest calls
	guard    *memoryGuard             // nil: memory has no limit
	limiter  *limiter                 // nil: calls have no limits
	runner   runner
	origins  origins // of what came; guarded by mu
}

// listen takes what the parent sends, whatever calls do meanwhile. What comes for run,
// run takes as well, as soon as it has nothing to do.
func (s *server) listen() {
	for {
		more, err := s.take(0)
		switch {
		case err != nil:
			return
		case more:
			continue
		}
		if s.conn.Wait(0) != nil {
			return
		}
	}
}

// take takes what the parent has sent, and reports whether that was anything. It looks
// out for it as long as spin says, which takes a CPU. If nothing has come, the parent is asked to wake
// listen when something does, provided that run has nothing to do.
func (s *server) take(spin time.Duration) (more bool, err error) {
	s.receiving.Lock()
	defer s.receiving.Unlock()
	if s.broken != nil {
		return false, s.broken
	}
	quorum := transport.Never
	if s.idle.Load() {
		quorum = 1
	}
	more, err = s.conn.Poll(spin, quorum)
	for err == nil {
		var ok bool
		if ok, err = s.conn.Next(&s.frame); ok && err == nil {
			err = s.on(s.frame)
		} else if err == nil {
			return more, nil
		}
	}
	s.broken = err
	close(s.gone)
	return false, err
}

// on takes a frame.
func (s *server) on(f wire.Frame) (err error) {
	var reply []byte
	switch f.Kind {
	case wire.Calls:
		return s.push(f)
	case wire.Handover:
		s.came.Done(1)
		s.came = takeIn(s.conn, f)
		return nil
	case wire.Call:
		if reply, err = s.pushLone(f); err != nil {
			return err
		}
	case wire.Cancel:
		n, rest, err := wire.SplitNumber(f.Body)
		if err != nil {
			return err
		}
		ms, err := wire.Number(rest)
		if err != nil {
			return err
		}
		reply = s.stop(f.ID, n, time.Duration(ms)*time.Millisecond)
	case wire.Recall:
		n, err := wire.Number(f.Body)
		if err != nil {
			return err
		}
		reply = s.giveBack(n)
	case wire.Ping:
		reply = wire.Append(nil, wire.Pong, 0, nil)
	case wire.Stop:
		code, rest, err := wire.SplitNumber(f.Body)
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.leaving = &code; len(rest) == 0 {
			s.queue = nil // it is not waited for
			s.leave()
		}
		select {
		case s.more <- struct{}{}: // for whoever waits for more: there is nothing more
		default:
		}
	default:
		return fmt.Errorf("unexpected %s frame", f.Kind)
	}
	if reply != nil {
		return s.conn.Send(reply, nil, transport.Now)
	}
	return nil
}

// push queues calls.
func (s *server) push(f wire.Frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, args, err := wire.SplitCalls(s.keep(f.Body))
	if err != nil {
		return err
	}
	n, err := wire.CountArgs(args)
	if err != nil || n == 0 {
		return err
	}
	w := newWork(f.ID, n, "", nil, args)
	w.came, s.came = s.came, nil
	w.came.Share(n)
	s.enqueue(w, h)
	return nil
}

// pushLone queues a call whose argument is large, unless it is not complete: then it is
// given back.
func (s *server) pushLone(f wire.Frame) (reply []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, arg, whole, err := wire.SplitCall(s.keep(f.Body))
	if err != nil {
		return nil, err
	}
	if !whole {
		return wire.Append(nil, wire.Returned, f.ID, wire.AppendNumber(nil, 1)), nil
	}
	w := newWork(f.ID, 1, "", nil, arg)
	w.lone = true
	s.enqueue(w, h)
	return nil, nil
}

// keep returns body, or a copy of it if it does not stay valid. s.mu is held.
func (s *server) keep(body []byte) []byte {
	if len(body) > wire.Large {
		return body
	}
	if cap(s.slab)-len(s.slab) < len(body) {
		s.slab = make([]byte, 0, max(len(body), min(wire.Large, 2*cap(s.slab)), 1<<10))
	}
	at := len(s.slab)
	s.slab = append(s.slab, body...)
	return s.slab[at:len(s.slab):len(s.slab)]
}

// enqueue queues calls that came with that head. s.mu is held.
func (s *server) enqueue(w *work, h wire.Head) {
	w.name, w.f = lookup(h.Name)
	w.from = s.origins.of(h, w.id, s.base)
	s.queue = append(s.queue, w)
	s.guard.wake()
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// stop gives those of the n calls from id on back that have not started. If one of them
// runs, it ends its context and sees to it that it ends within the grace.
func (s *server) stop(id uint64, n int, grace time.Duration) (reply []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	within := func(w *work) (lo, hi int) { // which calls of w are meant
		if id+uint64(n) <= w.id {
			return 0, 0
		}
		lo = int(min(max(id, w.id)-w.id, posMask))
		return lo, int(min(id+uint64(n)-w.id, posMask))
	}
	cut := func(w *work, at int) { // at is where in queue what is behind w goes
		lo, hi := within(w)
		if lo >= hi {
			return
		}
		from, to := w.cut(lo)
		if last := min(to, hi); from < last {
			reply = wire.Append(reply, wire.Returned, w.id+uint64(from), wire.AppendNumber(nil, last-from))
			w.came.Done(last - from)
		}
		if rest := max(from, hi); rest < to {
			s.queue = slices.Insert(s.queue, at, w.part(rest, to))
		}
	}
	for i := len(s.queue) - 1; i >= 0; i-- {
		cut(s.queue[i], i+1)
	}
	s.prune()
	s.stopMany(id, n, grace)
	w := s.now
	if w == nil {
		return reply
	}
	cut(w, 0)
	next, _ := w.span()
	if lo, hi := within(w); next-1 < lo || next-1 >= hi {
		return reply
	}
	if ctx := s.contexts.Load().at(w.id + uint64(next-1)); ctx != nil {
		ctx.cancel()
	}
	s.killLater(grace, func() bool { return s.now == w && w.hold(next) }) // then nothing else runs, and nothing else will
	return reply
}

// killLater ends the worker after the grace if the call still runs then. still, which is
// called with s.mu held, says so and keeps other calls from being started.
func (s *server) killLater(grace time.Duration, still func() bool) {
	time.AfterFunc(grace, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case !still():
		case transport.Sending(s.conn): // perhaps the answer to another call, and this one has not begun
			s.killLater(10*time.Millisecond, still)
		default:
			s.kill()
		}
	})
}

// prune drops work from the queue of which nothing is left. s.mu is held.
func (s *server) prune() {
	s.queue = slices.DeleteFunc(s.queue, func(w *work) bool {
		next, end := w.span()
		return next == end
	})
}

// giveBack gives back the last n calls that have not started, or as many as there
// are.
func (s *server) giveBack(n int) (reply []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.queue
	if s.now != nil {
		last = slices.Concat([]*work{s.now}, s.queue)
	}
	for i := len(last) - 1; i >= 0 && n > 0; i-- {
		w := last[i]
		_, end := w.span()
		from, to := w.cut(max(0, end-n))
		if from < to {
			n -= to - from
			reply = wire.Append(reply, wire.Returned, w.id+uint64(from), wire.AppendNumber(nil, to-from))
			w.came.Done(to - from)
		}
	}
	s.prune()
	if reply == nil {
		reply = wire.Append(nil, wire.Returned, 0, wire.AppendNumber(nil, 0))
	}
	return reply
}

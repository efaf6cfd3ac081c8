package multiproc

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// serve runs the calls that come over conn, in the order in which they come, until
// the parent says stop: then it returns the exit code and true. When the parent is
// gone it returns false. Calls that run are not waited for. kill ends the worker at
// once; it is called when a call does not end in time after it was cancelled.
func serve(conn transport.Conn, kill func()) (code int, ok bool) {
	s := &server{conn: conn, kill: kill, more: make(chan struct{}, 1), over: make(chan int, 1), gone: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go s.run(ctx) // ends with ctx, unless a call does not return; then the process ends, which waits for nobody
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
	kill func()
	more chan struct{} // has an element when queue may have become non-empty
	over chan int      // has the exit code when the parent has said stop
	gone chan struct{} // closed when the parent is gone, or says what it must not

	idle atomic.Bool // run has nothing to do

	receiving sync.Mutex // held while frames are taken
	broken    error      // why no more are

	mu    sync.Mutex
	queue []work       // not started, in the order in which they came
	now   uint64       // the call that runs
	ctx   *callContext // of that, or nil
	slab  []byte       // what came is copied to its end
}

// work is calls of one function as they came.
type work struct {
	id   uint64 // of the first
	n    int
	name string
	f    function // nil if there is none of that name
	args []byte   // of these calls, and possibly of others that were given back
}

// task is a call.
type task struct {
	id   uint64
	name string
	f    function
	arg  []byte
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
		// The next Wait blocks in the kernel, and for the scheduler to find out takes
		// longer than most calls: let one begin before. A call that goes on is
		// preempted for the sake of this goroutine.
		runtime.Gosched()
		if s.conn.Wait(0) != nil {
			return
		}
	}
}

// take takes what the parent has sent, and reports whether that was anything. It looks
// out for it as long as spin says. If nothing has come, the parent is asked to wake
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
		var f wire.Frame
		var ok bool
		if f, ok, err = s.conn.Next(); ok && err == nil {
			err = s.on(f)
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
	case wire.Stop:
		code, err := wire.Number(f.Body)
		if err != nil {
			return err
		}
		select {
		case s.over <- code:
		default:
		}
	default:
		return fmt.Errorf("unexpected %s frame", f.Kind)
	}
	if reply != nil {
		return s.conn.Send(reply, transport.Now)
	}
	return nil
}

func (s *server) push(f wire.Frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	body := f.Body
	const slabSize = 64 << 10
	if len(body) <= slabSize { // a larger one stays valid
		if cap(s.slab)-len(s.slab) < len(body) {
			s.slab = make([]byte, 0, slabSize)
		}
		at := len(s.slab)
		s.slab = append(s.slab, body...)
		body = s.slab[at:len(s.slab):len(s.slab)]
	}
	name, args, err := wire.SplitCalls(body)
	if err != nil {
		return err
	}
	n, err := wire.CountArgs(args)
	if err != nil || n == 0 {
		return err
	}
	w := work{id: f.ID, n: n, args: args}
	w.name, w.f = lookup(name)
	s.queue = append(s.queue, w)
	select {
	case s.more <- struct{}{}:
	default:
	}
	return nil
}

// stop gives those of the n calls from id on back that have not started. If one of them
// runs, it ends its context and sees to it that it ends within the grace.
func (s *server) stop(id uint64, n int, grace time.Duration) (reply []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 0; i < len(s.queue); i++ {
		w := &s.queue[i]
		from, to := max(id, w.id), min(id+uint64(n), w.id+uint64(w.n))
		if from >= to {
			continue
		}
		reply = wire.Append(reply, wire.Returned, from, wire.AppendNumber(nil, int(to-from)))
		before, after := *w, *w
		before.n = int(from - w.id)
		after.skip(int(to - w.id))
		s.queue = slices.Replace(s.queue, i, i+1, before, after)
		i++
	}
	s.queue = slices.DeleteFunc(s.queue, func(w work) bool { return w.n == 0 })
	if now := s.now; s.ctx != nil && now >= id && now-id < uint64(n) {
		s.ctx.cancel()
		time.AfterFunc(grace, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.ctx != nil && s.now == now { // so nothing else does, and nothing else will
				s.kill()
			}
		})
	}
	return reply
}

// skip leaves the first n calls out.
func (w *work) skip(n int) {
	w.id += uint64(n)
	w.n -= n
	for ; n > 0; n-- {
		_, w.args, _ = wire.SplitArg(w.args) // cannot fail: they were counted
	}
}

// giveBack gives back the last n calls that have not started, or as many as there
// are.
func (s *server) giveBack(n int) (reply []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n > 0 && len(s.queue) > 0 {
		last := &s.queue[len(s.queue)-1]
		k := min(n, last.n)
		last.n -= k
		n -= k
		reply = wire.Append(reply, wire.Returned, last.id+uint64(last.n), wire.AppendNumber(nil, k))
		if last.n == 0 {
			*last = work{}
			s.queue = s.queue[:len(s.queue)-1]
		}
	}
	if reply == nil {
		reply = wire.Append(nil, wire.Returned, 0, wire.AppendNumber(nil, 0))
	}
	return reply
}

// next returns the next call and marks it as running.
func (s *server) next(ctx context.Context) (t task, callCtx *callContext, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx != nil {
		s.ctx.cancel()
		s.ctx = nil
	}
	if len(s.queue) == 0 {
		return task{}, nil, false
	}
	w := &s.queue[0]
	t = task{id: w.id, name: w.name, f: w.f}
	t.arg, w.args, _ = wire.SplitArg(w.args) // cannot fail: they were counted
	w.id++
	if w.n--; w.n == 0 {
		*w = work{}
		s.queue = s.queue[1:]
	}
	s.now, s.ctx = t.id, newCallContext(ctx)
	return t, s.ctx, true
}

// run runs calls one after the other. What it has to say about one leaves before
// the next begins.
func (s *server) run(ctx context.Context) {
	var current uint64
	ended := false
	defer func() {
		if !ended { // the function called runtime.Goexit
			failed := appendFailed(nil, current, 0, &wire.Failure{Cause: wire.CausePanic, Type: "nil", Message: goexit})
			if err := s.conn.Send(failed, transport.Now); err != nil {
				s.mute(err)
			} else {
				go s.run(ctx) // takes the place of this one
			}
		}
	}()
	var buf []byte // the answer to the last call, not sent yet
	for {
		t, callCtx, ok := s.next(ctx)
		how := transport.Now
		if ok {
			current = t.id
			buf = wire.Append(buf, wire.Started, t.id, nil)
			how = transport.Soon
		}
		if len(buf) > 0 {
			if err := s.conn.Send(buf, how); err != nil {
				s.mute(err)
				break
			}
		}
		if cap(buf) > 1<<20 { // do not keep the memory of a large result
			buf = nil
		}
		buf = buf[:0]
		if ok {
			buf = s.call(callCtx, t, buf)
			continue
		}
		s.idle.Store(true)
		if more, _ := s.take(0); more {
			s.idle.Store(false)
			continue
		}
		select {
		case <-s.more:
			s.idle.Store(false)
		case <-ctx.Done():
			ended = true
			return
		}
	}
	ended = true
}

// mute ends a worker that cannot answer: the parent is gone, or a function has closed
// the connection, in which case the parent should know.
func (s *server) mute(err error) {
	if !hungUp(err) {
		fmt.Fprintf(os.Stderr, "%scannot answer the parent: %v\n", workerSays, err)
	}
	s.kill()
}

// call runs one call and appends the frame that answers it.
func (s *server) call(ctx context.Context, t task, buf []byte) []byte {
	if t.f == nil {
		return appendFailed(buf, t.id, 0, &wire.Failure{Cause: wire.CauseUnknownFunc, Message: t.name})
	}
	start := len(buf)
	buf = wire.AppendRan(wire.Begin(buf, wire.Result, t.id), 0)
	began := time.Now()
	buf, failure := t.f.serve(ctx, t.arg, buf)
	ran := time.Since(began)
	if failure == nil {
		wire.PutRan(buf[start+wire.HeaderSize:], ran)
		if err := wire.End(buf, start); err != nil {
			failure = &wire.Failure{Cause: wire.CauseResult, Message: err.Error()}
		}
	}
	if failure != nil {
		return appendFailed(buf[:start], t.id, ran, failure)
	}
	return buf
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

// callContext is the context of a call in a worker. It costs nothing until somebody
// asks for more than its values.
type callContext struct {
	parent context.Context
	mu     sync.Mutex
	inner  context.Context // nil until it is needed
	stop   context.CancelFunc
	ended  bool
}

func newCallContext(parent context.Context) *callContext { return &callContext{parent: parent} }

// cancel ends the context.
func (c *callContext) cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended = true; c.stop != nil {
		c.stop()
	}
}

// real returns the context that does the work.
func (c *callContext) real() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner == nil {
		c.inner, c.stop = context.WithCancel(c.parent)
		if c.ended {
			c.stop()
		}
	}
	return c.inner
}

// The methods of context.Context.
func (c *callContext) Deadline() (deadline time.Time, ok bool) { return c.parent.Deadline() }
func (c *callContext) Done() <-chan struct{}                   { return c.real().Done() }
func (c *callContext) Err() error                              { return c.real().Err() }
func (c *callContext) Value(key any) any                       { return c.real().Value(key) }

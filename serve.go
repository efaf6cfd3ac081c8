package multiproc

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// serve runs the calls that come over conn, in the order in which they come, until
// the parent says stop: then it returns the exit code and true. When the parent is
// gone it returns false. Calls that run are not waited for. kill ends the worker at
// once; it is called when a call does not end in time after it was cancelled.
func serve(conn transport.Conn, kill func()) (code int, ok bool) {
	s := &server{conn: conn, kill: kill, more: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go s.run(ctx) // ends with ctx, unless a call does not return; then the process ends, which waits for nobody
	return s.listen()
}

// server is the worker's side of a connection.
type server struct {
	conn transport.Conn
	kill func()
	more chan struct{} // has an element when queue may have become non-empty

	mu     sync.Mutex
	queue  []task // not started, in the order in which they came
	now    uint64 // the call that runs
	cancel context.CancelFunc
	slab   []byte // the bodies of calls are copied to its end
}

// task is a call as it came.
type task struct {
	id   uint64
	body []byte
}

// listen takes what the parent sends.
func (s *server) listen() (code int, ok bool) {
	for {
		f, err := s.conn.Recv()
		if err != nil {
			return 0, false
		}
		var reply []byte
		switch f.Kind {
		case wire.Call:
			s.push(f)
			if s.conn.Buffered() == 0 {
				// The next Recv blocks in the kernel, and for the scheduler to find
				// out takes longer than most calls: let the call begin before. A
				// call that goes on is preempted for the sake of this goroutine.
				runtime.Gosched()
			}
		case wire.Cancel:
			ms, err := wire.Number(f.Body)
			if err != nil {
				return 0, false
			}
			reply = s.stop(f.ID, time.Duration(ms)*time.Millisecond)
		case wire.Recall:
			n, err := wire.Number(f.Body)
			if err != nil {
				return 0, false
			}
			reply = s.giveBack(n)
		case wire.Stop:
			code, err := wire.Number(f.Body)
			return code, err == nil
		default:
			return 0, false
		}
		if reply != nil && s.conn.Send(reply) != nil {
			return 0, false
		}
	}
}

func (s *server) push(f wire.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	const slabSize = 64 << 10
	if cap(s.slab)-len(s.slab) < len(f.Body) {
		s.slab = make([]byte, 0, max(slabSize, len(f.Body)))
	}
	at := len(s.slab)
	s.slab = append(s.slab, f.Body...)
	s.queue = append(s.queue, task{f.ID, s.slab[at:len(s.slab):len(s.slab)]})
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// stop ends the context of the call and sees to it that it ends within the grace, or
// gives it back if it has not started.
func (s *server) stop(id uint64, grace time.Duration) (reply []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runs(id) {
		s.cancel()
		time.AfterFunc(grace, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.runs(id) { // so nothing else does, and nothing else will
				s.kill()
			}
		})
		return nil
	}
	for i, t := range s.queue {
		if t.id == id {
			s.queue = slices.Delete(s.queue, i, i+1)
			return wire.Append(nil, wire.Returned, id, wire.AppendNumber(nil, 1))
		}
	}
	return nil // it has ended in the meantime
}

// runs reports whether the call runs. s.mu is held.
func (s *server) runs(id uint64) bool { return s.cancel != nil && s.now == id }

// giveBack gives back the last n calls that have not started, or as many as there
// are.
func (s *server) giveBack(n int) (reply []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := max(len(s.queue)-n, 0)
	back := s.queue[keep:]
	if len(back) == 0 {
		return wire.Append(nil, wire.Returned, 0, wire.AppendNumber(nil, 0))
	}
	first, last := back[0].id, back[len(back)-1].id
	clear(back)
	s.queue = s.queue[:keep]
	return wire.Append(nil, wire.Returned, first, wire.AppendNumber(nil, int(last-first)+1))
}

// next returns the next call and marks it as running.
func (s *server) next(ctx context.Context) (task, context.Context, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		s.cancel()
		s.cancel = nil
	}
	if len(s.queue) == 0 {
		return task{}, nil, false
	}
	t := s.queue[0]
	s.queue[0] = task{}
	s.queue = s.queue[1:]
	s.now = t.id
	callCtx, cancel := context.WithCancel(ctx)
	s.cancel = cancel
	return t, callCtx, true
}

// run runs calls one after the other. What it has to say about one leaves before
// the next begins.
func (s *server) run(ctx context.Context) {
	var current uint64
	ended := false
	defer func() {
		if !ended { // the function called runtime.Goexit
			failed := appendFailed(nil, current, 0, &wire.Failure{Cause: wire.CausePanic, Type: "nil", Message: goexit})
			if err := s.conn.Send(failed); err != nil {
				s.mute(err)
			} else {
				go s.run(ctx) // takes the place of this one
			}
		}
	}()
	var buf []byte // the answer to the last call, not sent yet
	for {
		t, callCtx, ok := s.next(ctx)
		if ok {
			current = t.id
			buf = wire.Append(buf, wire.Started, t.id, nil)
		}
		if len(buf) > 0 {
			if err := s.conn.Send(buf); err != nil {
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
		select {
		case <-s.more:
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
	name, arg, err := wire.SplitCall(t.body)
	if err != nil {
		return appendFailed(buf, t.id, 0, &wire.Failure{Cause: wire.CauseArgument, Message: err.Error()})
	}
	f, ok := lookup(string(name))
	if !ok {
		return appendFailed(buf, t.id, 0, &wire.Failure{Cause: wire.CauseUnknownFunc, Message: string(name)})
	}
	start := len(buf)
	buf = wire.AppendRan(wire.Begin(buf, wire.Result, t.id), 0)
	began := time.Now()
	buf, failure := f.serve(ctx, arg, buf)
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

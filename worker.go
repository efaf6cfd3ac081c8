package multiproc

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/seed84f35039/multiproc/internal/child"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// worker is one of a pool's processes. Two goroutines serve it: run, which starts
// it and takes what it says, and send.
type worker struct {
	p    *Pool
	wake chan struct{} // has an element when send has something to look at
	gone chan struct{} // closed when the process has ended and its calls are elsewhere

	// Guarded by p.mu.
	state     workerState
	link      link          // nil until the process has started
	failure   error         // why it never became ready
	verdict   error         // why it was killed, and what its running call is told
	flight    []flying      // calls handed to it, in order; the first is not answered
	first     uint64        // id of flight[0]; ids count from 1
	open      int           // calls in flight that are not answered
	load      time.Duration // how long they will take, as far as is known
	low       int           // hand out more calls when open is this small
	since     time.Time     // when it last started a call
	served    int           // calls handed to it so far
	ended     int           // calls it has answered
	cancels   []uint64      // calls to be cancelled
	recall    int           // calls to be asked back
	recalling bool          // calls have been asked back, and the answer is not in
	stopping  bool          // gets no more calls, and is told to stop after the last one
	stopSent  bool
}

type workerState int

const (
	stateStarting workerState = iota
	stateReady
	stateEnded
)

// flying is a call that a worker has.
type flying struct {
	ref
	est       time.Duration
	started   bool
	answered  bool
	cancelled bool
}

// hire starts a worker. p.mu is held.
func (p *Pool) hire() *worker {
	w := &worker{p: p, wake: make(chan struct{}, 1), gone: make(chan struct{}), first: 1}
	p.workers[w] = struct{}{}
	go w.run() // ends when the process does; waited for through gone
	return w
}

// run sees the worker through its life.
func (w *worker) run() {
	p := w.p
	l, err := p.launch()
	if err != nil {
		w.settle(child.Ended{}, fmt.Errorf("start worker: %w", err))
		return
	}
	p.mu.Lock()
	if w.link = l; w.verdict != nil { // it was not wanted any more before it began
		l.Signal(syscall.SIGKILL)
	}
	p.mu.Unlock()
	if err := prepare(l, p.cfg.Setup, p.cfg.StartTimeout); err != nil {
		ended := l.Reap()
		l.Close()
		w.settle(ended, fmt.Errorf("start worker: %w", refine(err, l.PID(), ended)))
		return
	}
	p.mu.Lock()
	w.state = stateReady
	p.announce()
	p.mu.Unlock()
	sent := make(chan struct{})
	go func() { // ends with the state below; waited for below
		defer close(sent)
		w.send()
	}()
	err = w.receive()
	ended := l.Reap()
	l.Close()
	p.mu.Lock()
	w.state = stateEnded
	w.poke()
	p.mu.Unlock()
	<-sent // bounded: the connection is closed
	w.settle(ended, err)
}

// settle finds a place for the calls that the worker has not answered, now that it
// is gone. err is why, where it is not how the process ended.
func (w *worker) settle(ended child.Ended, err error) {
	p := w.p
	p.mu.Lock()
	started := w.state == stateEnded // it was ready once
	var charged, back []ref
	for _, f := range w.flight {
		switch {
		case f.answered:
		case f.started:
			charged = append(charged, f.ref)
		default:
			back = append(back, f.ref)
		}
	}
	w.state, w.flight = stateEnded, nil
	delete(p.workers, w)
	p.queue.unpop(back)
	verdict, pid := w.verdict, 0
	if w.link != nil {
		pid = w.link.PID()
	}
	if verdict == nil && started {
		reason := ""
		if err != nil && !hungUp(err) {
			reason = "protocol error: " + err.Error()
		}
		verdict = crash(ended, reason)
	}
	var lost []ref // calls that nobody will run
	lostTo := ErrClosed
	if !started {
		w.failure = err
		if verdict != nil {
			w.failure = verdict
		}
	}
	switch {
	case p.dead:
		lost = p.queue.remove(nil)
	case w.ended > 0 || len(charged) > 0:
		p.failures, p.notUntil = 0, time.Time{}
	case w.verdict == nil && !w.stopping:
		if started {
			err = verdict // it died before it ran anything
		}
		lost, lostTo = p.failed(err), err
	}
	p.mu.Unlock()

	p.answer(charged, func(r ref) { r.e.b.Fail(r.i, pid, verdict) })
	p.answer(lost, func(r ref) { r.e.b.Fail(r.i, 0, lostTo) })

	p.mu.Lock()
	p.staff()
	p.announce()
	p.checkGone()
	p.mu.Unlock()
	close(w.gone)
}

// kill ends the process; the call that it runs gets the verdict. p.mu is held.
func (w *worker) kill(verdict error) {
	if w.verdict != nil || w.state == stateEnded {
		return
	}
	w.verdict = verdict
	if l := w.link; l != nil {
		l.Signal(syscall.SIGKILL)
		// The connection ends with the process, unless somebody else has got hold
		// of it.
		time.AfterFunc(time.Second, func() { l.Close() })
	}
}

// stop lets the process end once it has no calls. p.mu is held.
func (w *worker) stop() {
	w.stopping = true
	w.poke()
}

// poke makes send look at what there is to do.
func (w *worker) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// cancel ends the calls of e that the worker has. p.mu is held.
func (w *worker) cancel(e *entry) {
	for i := range w.flight {
		f, id := &w.flight[i], w.first+uint64(i)
		if f.e != e || f.answered || f.cancelled {
			continue
		}
		f.cancelled = true
		w.cancels = append(w.cancels, id)
		time.AfterFunc(w.p.cfg.KillGrace, func() {
			w.p.mu.Lock()
			defer w.p.mu.Unlock()
			if f := w.find(id); f != nil && f.started {
				w.kill(canceled(e.ctx))
			}
		})
	}
	w.poke()
}

// find returns the call of that id, or nil if it is not, or no longer, to be
// answered. p.mu is held.
func (w *worker) find(id uint64) *flying {
	if id < w.first || id-w.first >= uint64(len(w.flight)) || w.flight[id-w.first].answered {
		return nil
	}
	return &w.flight[id-w.first]
}

// land takes the call out of flight. p.mu is held.
func (w *worker) land(f *flying) {
	f.answered = true
	w.open--
	w.load -= f.est
	n := 0
	for n < len(w.flight) && w.flight[n].answered {
		w.flight[n] = flying{}
		n++
	}
	w.flight, w.first = w.flight[n:], w.first+uint64(n)
	if w.open <= w.low {
		w.poke()
	}
}

// receive takes what the worker says until it is gone, or says what it must not.
func (w *worker) receive() error {
	p := w.p
	answered := 0 // calls that the pool has not counted yet
	count := func() {
		p.mu.Lock()
		p.drain.done(answered)
		p.mu.Unlock()
		answered = 0
	}
	defer count()
	for {
		if answered >= 64 || answered > 0 && w.link.Buffered() == 0 {
			count()
		}
		m, err := w.link.Recv()
		if err != nil {
			return err
		}
		switch m.Kind {
		case wire.Started:
			err = w.onStarted(m.ID)
		case wire.Result, wire.Failed:
			if err = w.onAnswer(m); err == nil {
				answered++
			}
		case wire.Returned:
			err = w.onReturned(m)
		default:
			err = fmt.Errorf("unexpected %s frame", m.Kind)
		}
		if err != nil {
			return err
		}
	}
}

func (w *worker) onStarted(id uint64) error {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	f := w.find(id)
	if f == nil || f.started {
		return fmt.Errorf("call %d started, which the worker does not have to start", id)
	}
	f.started, w.since = true, time.Now()
	return nil
}

func (w *worker) onAnswer(m wire.Frame) error {
	ran, body, err := wire.SplitRan(m.Body)
	if err != nil {
		return err
	}
	w.p.mu.Lock()
	f := w.find(m.ID)
	if f == nil || !f.started {
		w.p.mu.Unlock()
		return fmt.Errorf("answer to call %d, which does not run", m.ID)
	}
	r := f.ref
	w.land(f)
	w.ended++
	r.e.cost.add(ran, len(m.Body))
	r.e.end(1)
	w.p.mu.Unlock()
	if m.Kind == wire.Result {
		r.e.b.Return(r.i, w.link.PID(), body)
	} else {
		r.e.b.ReturnFailure(r.i, w.link.PID(), body)
	}
	return nil
}

func (w *worker) onReturned(m wire.Frame) error {
	n, err := wire.Number(m.Body)
	if err != nil {
		return err
	}
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	w.recalling = false
	var back []ref
	for id := m.ID; n > 0 && id < w.first+uint64(len(w.flight)); id, n = id+1, n-1 {
		if f := w.find(id); f != nil && !f.started {
			back = append(back, f.ref)
			w.land(f)
		}
	}
	w.p.queue.unpop(back)
	w.p.staff()
	return nil
}

// send hands calls to the worker, and what else is to be said.
func (w *worker) send() {
	var buf []byte
	var calls []handed
	for {
		w.p.mu.Lock()
		ended := w.state == stateEnded
		buf = w.control(buf[:0])
		calls = w.take(calls[:0])
		if len(buf)+len(calls) == 0 {
			w.p.rebalance()
		}
		w.p.mu.Unlock()
		switch {
		case ended:
			return
		case len(buf)+len(calls) == 0:
			<-w.wake // poked by whoever changes something, and at the end
			continue
		}
		buf = w.encode(buf, calls)
		if len(buf) > 0 {
			w.link.Send(buf) // if it fails the worker is gone, which receive notices
		}
		clear(calls)
		if cap(buf) > 2*maxBatchBytes { // do not keep the memory of a large argument
			buf = nil
		}
	}
}

// control appends what is to be said besides calls. p.mu is held.
func (w *worker) control(buf []byte) []byte {
	for _, id := range w.cancels {
		if w.find(id) != nil {
			buf = wire.Append(buf, wire.Cancel, id, nil)
		}
	}
	w.cancels = w.cancels[:0]
	if w.recall > 0 {
		buf = wire.Append(buf, wire.Recall, 0, wire.AppendNumber(nil, w.recall))
		w.recall = 0
	}
	if w.stopping && w.open == 0 && !w.stopSent {
		buf = wire.Append(buf, wire.Stop, 0, wire.AppendNumber(nil, 0))
		w.stopSent = true
		grace := w.p.cfg.KillGrace
		time.AfterFunc(grace, func() {
			w.p.mu.Lock()
			defer w.p.mu.Unlock()
			w.kill(fmt.Errorf("the worker did not stop within %v", grace))
		})
		w.p.staff() // another may take its place
	}
	return buf
}

// handed is a call on its way to the worker.
type handed struct {
	ref
	id uint64
}

// take takes calls from the queue. p.mu is held.
func (w *worker) take(calls []handed) []handed {
	q := &w.p.queue
	if w.open > w.low {
		return calls
	}
	for !w.stopping && w.state == stateReady {
		e := q.peek()
		if e == nil || w.open > 0 && !w.room(e) {
			break
		}
		r, _ := q.pop()
		id := w.first + uint64(len(w.flight))
		est := time.Duration(e.cost.ran.Load())
		w.flight = append(w.flight, flying{ref: r, est: est})
		w.open++
		w.load += est
		calls = append(calls, handed{r, id})
		if w.served++; w.served == w.p.maxCalls {
			w.stopping = true
		}
	}
	w.low = w.open / 2
	return calls
}

// room reports whether the worker may have another call of e besides those it has.
func (w *worker) room(e *entry) bool {
	if n := e.b.Size(); n > 0 {
		return w.open < n
	}
	return w.open < e.cost.batch() && w.load+time.Duration(e.cost.ran.Load()) <= slice
}

// encode appends the frames of calls. A call that is not wanted, or whose argument
// cannot be encoded, is answered here.
func (w *worker) encode(buf []byte, calls []handed) []byte {
	for _, c := range calls {
		err := errors.New("not wanted")
		if wanted := c.wanted(); wanted {
			buf, err = appendCall(buf, c.id, c.e.b.Func(), func(dst []byte) ([]byte, error) { return c.e.b.AppendArg(dst, c.i) })
			if err != nil {
				c.e.b.Fail(c.i, 0, err)
			}
		} else {
			c.drop()
		}
		if err == nil {
			continue
		}
		w.p.mu.Lock()
		if f := w.find(c.id); f != nil {
			w.land(f)
		}
		c.e.end(1)
		w.ended++
		w.p.drain.done(1)
		w.p.mu.Unlock()
	}
	return buf
}

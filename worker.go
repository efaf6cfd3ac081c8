package multiproc

import (
	"fmt"
	"syscall"
	"time"

	"github.com/seed84f35039/multiproc/internal/child"
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

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
	in   incoming
	out  outgoing

	// Guarded by p.mu.
	state     workerState
	link      link                 // nil until the process has started
	failure   error                // why it never became ready
	killed    string               // why multiproc killed it, if it did
	flight    []flying             // calls handed to it and not answered, in the order of their ids
	next      uint64               // id of the next call; ids count from 1
	open      int                  // calls in flight
	load      time.Duration        // how long they will take, as far as is known
	low       int                  // hand out more calls when open is this small
	since     time.Time            // when it last started a call
	turn      uint64               // which of the pool's turns its last was
	served    int                  // calls handed to it so far
	ended     int                  // calls it has answered
	failed    int                  // of them, those that failed
	born      time.Time            // when it was ready
	rested    time.Time            // since when it has no calls, where there is an IdleTimeout
	after     *worker              // takes the place of that one, and no calls before that has none; or nil
	heir      *worker              // the other way round
	old       bool                 // it is to be replaced by its heir as soon as that is ready
	heirless  time.Time            // until then it is not tried again to give it an heir
	began     map[uint64]time.Time // when the calls that run did, where they can be several
	needsLook bool                 // it has had calls since its memory was looked at
	ping      bool                 // a sign of life is to be asked for
	pinged    time.Time            // when one was asked for and has not come, or zero
	cancels   []idRange            // calls to be cancelled
	recall    int                  // calls to be asked back
	recalling bool                 // calls have been asked back, and the answer is not in
	recalled  uint64               // what next was when they were
	barren    uint64               // there was nothing to give back when next was this
	stopping  bool                 // gets no more calls, and is told to stop after the last one
	stopSent  time.Time            // when it was told, or zero
	overdue   *time.Timer          // to look whether it does what it was told
	watches   uint64               // how many timers there were for that
	unheard   time.Time            // since when what it has said could not be taken, or zero
	lookAt    time.Time            // when that is due
	takenThen uint64               // how many frames had been taken then
	moved     uint64               // bytes that the connection had carried when it was looked last
	movedAt   time.Time            // when something large was seen to move
	overtime  map[uint64]time.Time // when it said of calls that run that they have exceeded a limit
	late      map[uint64]bool      // the calls that exceeded CallTimeout, for which it was killed
}

type workerState int

const (
	stateStarting workerState = iota
	stateReady
	stateEnded
)

// hire starts a worker. p.mu is held.
func (p *Pool) hire() *worker {
	w := &worker{p: p, wake: make(chan struct{}, 1), gone: make(chan struct{}), next: 1}
	if p.cfg.Concurrency > 1 {
		w.in.several, w.began = map[uint64]*exceeded{}, map[uint64]time.Time{}
	}
	p.hired++
	p.workers[w] = struct{}{}
	go w.run() // ends when the process does; waited for through gone
	return w
}

// run sees the worker through its life.
func (w *worker) run() {
	p := w.p
	l, ready, err := p.spares.get()
	if err != nil {
		w.settle(child.Ended{}, fmt.Errorf("%w: %w", errStart, err))
		return
	}
	p.mu.Lock()
	if w.link = l; w.killed != "" { // it was not wanted any more before it began
		l.Signal(syscall.SIGKILL)
	}
	p.mu.Unlock()
	if !ready {
		err = p.spares.prepare(l)
	}
	if err != nil {
		ended := l.Reap()
		l.Close()
		w.settle(ended, fmt.Errorf("%w: %w", errStart, refine(err, l.PID(), ended)))
		return
	}
	p.mu.Lock()
	w.state, w.born = stateReady, time.Now()
	w.rested = w.born
	if a := w.after; a != nil && a.old {
		a.retire()
	}
	p.lookAfter()
	p.announce()
	p.mu.Unlock()
	p.observe(Event{Kind: WorkerStarted, PID: l.PID()})
	sent := make(chan struct{})
	go func() { // ends with the state below; waited for below
		defer close(sent)
		w.send()
	}()
	err = w.receive()
	p.mu.Lock()
	w.state = stateEnded
	w.poke()
	if w.ended > 0 { // it was of use, and so will be another, which need not wait until this one is buried
		p.staff()
	}
	p.mu.Unlock()
	ended := l.Reap()
	l.Close()
	<-sent          // bounded: the connection is closed
	w.out.mu.Lock() // until whoever else was encoding calls has done with them
	w.out.unsent = nil
	w.out.mu.Unlock()
	w.settle(ended, err)
}

// settle finds a place for the calls that the worker has not answered, now that it
// is gone. err is why, where it is not how the process ended.
func (w *worker) settle(ended child.Ended, err error) {
	p := w.p
	w.in.mu.Lock()
	running, over := w.in.runs()
	w.in.came.Done(1)
	w.in.came = nil
	w.in.mu.Unlock()
	p.mu.Lock()
	wasReady := w.state == stateEnded // see run
	var charged, back []span          // the call that it ran, and those that it did not start
	overOf := map[span]*exceeded{}
	for k, id := range running {
		if s := w.landSaid(id, 1); s.n > 0 {
			charged = append(charged, s)
			if overOf[s] = over[k]; over[k] == nil && w.late[id] {
				overOf[s] = &exceeded{limit: p.cfg.CallTimeout}
			}
		}
	}
	if h := w.heir; h != nil && h.state == stateReady {
		h.rested = time.Now() // it has stood until now
		h.poke()
	}
	predecessor := w.after
	if predecessor != nil && predecessor.heir == w {
		predecessor.heir = nil
		if !wasReady {
			predecessor.disinherit()
		}
	}
	for _, f := range w.flight {
		f.e.out -= f.n
		back = append(back, f.span)
	}
	w.state, w.flight = stateEnded, nil
	delete(p.workers, w)
	p.settling++
	lost := p.putBack(back) // calls that nobody will run, as the pool is closed
	var failed []span       // or as no worker starts
	if w.overdue != nil {
		w.overdue.Stop()
	}
	pid := 0
	if w.link != nil {
		pid = w.link.PID()
	}
	died := crash(ended, w.killed)
	if w.killed == "" && wasReady && err != nil && !hungUp(err) {
		died.Reason = "protocol error: " + err.Error()
	}
	if wasReady {
		err = died
	} else {
		w.failure = err
	}
	switch {
	case p.dead:
		lost = append(lost, p.queue.removeAll()...)
	case w.ended > 0 || len(charged) > 0:
		p.failures, p.notUntil = 0, time.Time{}
	case !wasReady && predecessor != nil && predecessor.state == stateReady: // it is missed by nobody yet
	case !w.stopping: // it died before it ran anything
		failed = p.failed(err)
	}
	p.mu.Unlock()

	p.answer(charged, func(s span) {
		if s.e.ctx.Err() != nil {
			s.drop() // its end was wanted
		} else if over := overOf[s]; over != nil {
			s.e.b.calls.fail(s.i, over.error(s.e.b.Info(s.i, pid), nil))
		} else {
			s.fail(pid, died)
		}
	})
	p.answer(lost, func(s span) { s.fail(0, ErrClosed) })
	p.answer(failed, func(s span) { s.fail(0, err) })

	p.observe(Event{Kind: WorkerEnded, PID: pid, Err: err, Planned: w.stopping && w.killed == ""})

	p.mu.Lock()
	p.settling--
	p.staff()
	p.rebalance()
	p.lookAfter()
	p.announce()
	p.checkGone()
	p.mu.Unlock()
	close(w.gone)
}

// kill ends the process, and says why. p.mu is held.
func (w *worker) kill(why string) {
	if w.killed != "" || w.state == stateEnded {
		return
	}
	w.killed = why
	if l := w.link; l != nil {
		end(l)
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

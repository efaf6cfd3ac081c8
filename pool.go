package multiproc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// Pool runs calls in worker processes that stay. A crash costs the call that its
// worker was running and no other; the worker is replaced.
//
// Calls are handed out first come, first served. A worker is handed as many at a
// time as take it about ten milliseconds; those it has not started when another
// worker runs out of work go to that one.
//
// A Pool must be closed, or its workers stay as long as the program. They do not
// outlive it, however it ends.
type Pool struct {
	cfg      PoolConfig
	bad      error // what is wrong with the configuration
	launch   launcher
	ready    func() error // why workers cannot be started at all, if so
	spares   *Spares      // which become workers
	retries  retries
	teardown []byte // the frame of that call, or nil
	latency  histogram

	mu       sync.Mutex
	queue    queue
	workers  map[*worker]struct{} // started and not yet seen to end
	costs    costs
	turns    uint64 // how often a worker was handed calls
	drain    drain
	hired    int           // workers so far
	answered uint64        // calls so far
	lastSeen mark          // of Snapshot
	stopped  bool          // calls that no worker has begun are not run any more
	dead     bool          // workers are not replaced any more
	gone     chan struct{} // closed when dead and no worker is left
	failures int           // workers in a row that ended without ending a call
	notUntil time.Time     // when the next worker may be started
	retry    *time.Timer   // for then
	balance  *time.Timer   // for another look at who could help whom
	pulse    *time.Timer   // for asking workers for a sign of life
	care     *time.Timer   // for a look at who is to be replaced
	careDue  time.Time     // when that is due
	settling int           // workers that have ended and whose calls are being answered
	changed  chan struct{} // closed and replaced when a worker has become ready or ended
}

// NewPool returns a pool of worker processes. It starts nothing; what is wrong with
// the configuration is the error of [Pool.Start] or of the first call.
func NewPool(cfg PoolConfig) *Pool {
	p := &Pool{}
	p.configure(cfg)
	return p
}

// configure makes the zero Pool usable.
func (p *Pool) configure(cfg PoolConfig) {
	cfg, err := cfg.check()
	if err != nil {
		p.bad = fmt.Errorf("PoolConfig: %w", err)
	}
	p.cfg, p.ready = cfg, canSpawn
	p.retries = retries{Retry: cfg.Retry, maxCrashes: cfg.MaxCrashes, mu: &p.mu, queue: &p.queue, drain: &p.drain, staff: p.staff}
	p.launch = launch{command: cfg.Command, env: cfg.Env, dir: cfg.Dir, stdout: cfg.Stdout, stderr: cfg.Stderr, gomaxprocs: cfg.GOMAXPROCS, worker: cfg.worker(), cage: cfg.Cage}.start
	p.spares = newSpares(cfg.Spares, func() (link, error) { return p.launch() }, cfg.Setup, cfg.StartTimeout, cfg.Logger)
	if cfg.Teardown != nil && p.bad == nil {
		if p.teardown, err = cfg.Teardown.frame(); err != nil {
			p.bad = fmt.Errorf("PoolConfig: Teardown: %w", err)
		}
	}
	p.lastSeen.at = time.Now()
	p.workers, p.changed, p.drain = map[*worker]struct{}{}, make(chan struct{}), newDrain()
}

// refuses returns why the pool takes no calls. p.mu is held.
func (p *Pool) refuses() error {
	if p.launch == nil {
		return errors.New("the executor was not made by multiproc.NewPool or NewProcesses")
	}
	if p.bad != nil {
		return p.bad
	}
	if p.stopped || p.drain.closing() {
		return ErrClosed
	}
	return p.ready()
}

// Start starts all workers and spares and returns when they are ready, or with the first
// error, or when ctx ends; then those that it started are stopped again. It is not needed:
// without it workers are started when there is work, and spares after them.
func (p *Pool) Start(ctx context.Context) error {
	if ctx == nil {
		return errors.New("multiproc: Start: the context is nil; pass context.Background()")
	}
	p.mu.Lock()
	if err := p.refuses(); err != nil {
		p.mu.Unlock()
		return fmt.Errorf("multiproc: start: %w", err)
	}
	var mine []*worker
	for len(p.workers) < p.cfg.Workers {
		mine = append(mine, p.hire())
	}
	err := p.await(ctx)
	if err == nil {
		p.mu.Unlock()
		err = p.spares.fill(ctx)
		p.mu.Lock()
	}
	var ending []*worker
	for _, w := range mine {
		switch {
		case err == nil:
		case w.state == stateReady:
			w.stop() // it may have calls
		default:
			w.kill("killed by multiproc: Start gave up")
			ending = append(ending, w)
		}
	}
	p.mu.Unlock()
	for _, w := range ending {
		<-w.gone // bounded: it was killed
	}
	if err != nil {
		return fmt.Errorf("multiproc: start: %w", err)
	}
	return nil
}

// await waits until all workers are ready, or one has failed. p.mu is held, but not
// all the time.
func (p *Pool) await(ctx context.Context) error {
	ws := slices.Collect(maps.Keys(p.workers))
	for {
		ready := 0
		for _, w := range ws {
			if w.failure != nil {
				return w.failure
			}
			if w.state > stateStarting {
				ready++
			}
		}
		if ready == len(ws) {
			return nil
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
			p.mu.Lock()
		case <-ctx.Done():
			p.mu.Lock()
			return canceled(ctx)
		}
	}
}

// Submit implements [Executor].
func (p *Pool) Submit(b *Batch) error {
	p.mu.Lock()
	if err := p.refuses(); err != nil || b.Len() == 0 {
		p.mu.Unlock()
		return err
	}
	cost := p.costs.of(b.Func())
	e := newEntry(b, cost, false, p.cancelled)
	if p.retries.Attempts > 1 || p.cfg.Observe != nil {
		b.calls.onFailure(func(i int, err error) (error, bool) { return p.judge(e, i, err) })
	}
	p.queue.push(e)
	p.drain.add(b.Len())
	w := p.idle() // saves the way by another goroutine
	if w == nil || p.queue.n > 1 {
		p.staffBut(w)
	}
	p.mu.Unlock()
	if w != nil {
		w.dispatch()
		p.mu.Lock()
		all := time.Duration(cost.ran.Load()) * time.Duration(b.Len()) / time.Duration(p.cfg.Workers)
		if all < lookout && w.has(e) {
			b.at, b.within = w, lookout+2*all
		}
		if p.queue.n > 0 { // the worker was busy with something else meanwhile
			p.staff()
		}
		p.mu.Unlock()
	}
	return nil
}

// idle returns a worker that waits for calls, or nil: the one that had calls last, which may
// be looking out for the next. p.mu is held.
func (p *Pool) idle() (last *worker) {
	for w := range p.workers {
		if w.state == stateReady && w.open == 0 && !w.stopping && !w.stands() && (last == nil || w.turn > last.turn) {
			last = w
		}
	}
	return last
}

// maxAhead is the most inputs a worker that a stream is ahead.
const maxAhead = 4 << 10

// Window implements [Executor]: twice what the workers are handed at a time.
func (p *Pool) Window(function string) int {
	return 2 * p.cfg.Workers * max(2, min(p.costs.of(function).batch(), maxAhead))
}

// cancelled ends the calls of a batch that is not wanted any more.
func (p *Pool) cancelled(e *entry) {
	p.mu.Lock()
	if p.dead { // all calls have been given up, and are cancelled in the right order
		p.mu.Unlock()
		return
	}
	removed := p.queue.remove(e)
	if e.out > 0 {
		for w := range p.workers {
			w.cancel(e)
		}
	}
	p.mu.Unlock()
	p.answer(removed, span.drop)
}

// judge decides what becomes of a call that has failed.
func (p *Pool) judge(e *entry, i int, err error) (verdict error, again bool) {
	again = p.retries.again(e, i, err)
	if again {
		p.observe(Event{Kind: CallRetried, PID: callInfo(err).PID, Err: err})
	} else if at := callInfo(err); at != nil {
		p.observe(Event{Kind: CallFailed, PID: at.PID, Err: err})
	}
	return err, again
}

// putBack puts calls that a worker did not begin to the front of the queue; if there are to
// be none, it returns them, to be answered. p.mu is held.
func (p *Pool) putBack(spans []span) (unwanted []span) {
	if p.stopped {
		return spans
	}
	p.queue.unpop(spans)
	return nil
}

// answer answers calls that no worker has.
func (p *Pool) answer(spans []span, how func(span)) {
	if len(spans) == 0 {
		return
	}
	for _, s := range spans {
		how(s)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range spans {
		s.e.end(s.n)
	}
	p.drain.done(calls(spans))
}

package multiproc

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// ThreadsConfig configures [NewThreads]. The zero value works.
type ThreadsConfig struct {
	// Workers is how many calls run at once. 0 means runtime.GOMAXPROCS(0).
	Workers int

	// CallTimeout is how long a call may run before its context ends: see [TimeoutError].
	// That is all that can be done to a goroutine: a call that does not look runs on, and is
	// waited for; Hard is never true here. 0 means no limit.
	CallTimeout time.Duration

	// Retry says whether calls that have failed are run again. The zero value means no.
	Retry Retry

	// Grace is how long Close waits for another call to end before it gives up on
	// those that run. 0 means 5 seconds.
	Grace time.Duration
}

// check returns the configuration with its defaults, or everything that is wrong.
func (c ThreadsConfig) check() (ThreadsConfig, error) {
	retry, err := c.Retry.check()
	c.Retry = retry
	err = errors.Join(atLeast0("Workers", c.Workers), atLeast0("Grace", c.Grace), atLeast0("CallTimeout", c.CallTimeout), err)
	if c.Workers == 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.Grace == 0 {
		c.Grace = defaultGrace
	}
	return c, err
}

const defaultGrace = 5 * time.Second

func atLeast0[T int | int64 | time.Duration](field string, v T) error {
	if v < 0 {
		return fmt.Errorf("%s is %v; it must not be negative (0 means the default)", field, v)
	}
	return nil
}

// Threads runs calls on goroutines of this process: the executor with the least
// cost, for functions that behave. They share memory with the caller and each
// other. What it cannot do is end a call: one that ignores its context runs on, and
// a crash takes the whole program along. No goroutine is left when no call runs.
//
// A function that makes calls on the Threads that run it occupies one of their
// workers while it waits: when all workers wait, nothing runs. Give such calls
// Threads of their own.
type Threads struct {
	cfg ThreadsConfig
	bad error // what is wrong with the configuration

	retries retries

	mu      sync.Mutex
	queue   queue
	running map[*thread]struct{} // one for each goroutine
	stopped bool                 // calls that have not begun are not run any more
	drain   drain
	costs   costs
}

// thread is a goroutine that runs calls.
type thread struct {
	now span            // a single call
	ctx context.Context // of that, where it is not the batch's
	ran int             // calls so far

	contexts []callInBatch // for the next calls
	own      [1]callInBatch
}

// NewThreads returns an executor on goroutines. It starts nothing; what is wrong
// with the configuration is the error of the first call.
func NewThreads(cfg ThreadsConfig) *Threads {
	cfg, err := cfg.check()
	if err != nil {
		err = fmt.Errorf("ThreadsConfig: %w", err)
	}
	t := &Threads{cfg: cfg, bad: err, running: map[*thread]struct{}{}, drain: newDrain()}
	t.retries = retries{Retry: cfg.Retry, mu: &t.mu, queue: &t.queue, drain: &t.drain, staff: t.staff}
	return t
}

// Submit implements [Executor].
func (t *Threads) Submit(b *Batch) error {
	if t.running == nil {
		return errors.New("the Threads were not made by multiproc.NewThreads")
	}
	if t.bad != nil {
		return t.bad
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped || t.drain.closing() {
		return ErrClosed
	}
	if b.Len() == 0 {
		return nil
	}
	e := newEntry(b, t.costs.of(b.Func()), true, t.cancelled)
	if t.retries.Attempts > 1 || t.cfg.CallTimeout > 0 {
		b.calls.onFailure(func(i int, err error) (error, bool) { return t.judge(e, i, err) })
	}
	t.queue.push(e)
	t.drain.add(b.Len())
	t.staff()
	return nil
}

// staff starts goroutines for the calls that wait. t.mu is held.
func (t *Threads) staff() {
	for n := min(t.queue.n, t.cfg.Workers-len(t.running)); n > 0; n-- {
		th := &thread{}
		th.contexts = th.own[:]
		t.running[th] = struct{}{}
		go t.work(th) // ends when the queue is empty; waited for in Shutdown
	}
}

// judge decides what becomes of a call that has failed.
func (t *Threads) judge(e *entry, i int, err error) (verdict error, again bool) {
	t.mu.Lock()
	for th := range t.running {
		if th.now == (span{e, i, 1}) && th.ctx != nil && th.ctx.Err() != nil && e.ctx.Err() == nil {
			err = &TimeoutError{CallInfo: e.b.Info(i, 0), Limit: t.cfg.CallTimeout, wrapped: err}
		}
	}
	t.mu.Unlock()
	return err, t.retries.again(e, i, err)
}

// threadWindow is the most inputs a worker that a stream pulls ahead on Threads.
const threadWindow = 64

// Window implements [Executor]: a few calls for each worker, more where they are
// short.
func (t *Threads) Window(function string) int {
	return 2 * t.cfg.Workers * max(2, min(t.costs.of(function).batch(), threadWindow))
}

// cancelled answers the calls of a batch that is not wanted any more. Those that
// run see their context.
func (t *Threads) cancelled(e *entry) {
	t.mu.Lock()
	removed := t.queue.remove(e)
	t.mu.Unlock()
	t.drop(removed, span.drop)
}

// drop answers calls that were taken out of the queue.
func (t *Threads) drop(spans []span, how func(span)) {
	for _, s := range spans {
		how(s)
	}
	t.mu.Lock()
	for _, s := range spans {
		s.e.end(s.n)
	}
	t.drain.done(calls(spans))
	t.mu.Unlock()
}

// work runs calls until there are none.
func (t *Threads) work(th *thread) {
	ended := false
	defer func() {
		if !ended { // the function called runtime.Goexit, which its call knows already
			t.ended(th)
			go t.work(th) // takes the place of this one
		}
	}()
	for {
		t.mu.Lock()
		s := t.queue.pop(1)
		if th.now = s; s.n == 0 {
			delete(t.running, th)
			ended = true
			t.mu.Unlock()
			return
		}
		t.mu.Unlock()
		if s.e.ctx.Err() == nil && s.e.b.Wanted(s.i) {
			t.run(th, s)
		} else {
			s.drop()
		}
		t.ended(th)
	}
}

// run runs a call, and looks at the clock for every sixteenth.
func (t *Threads) run(th *thread, s span) {
	ctx := s.e.ctx
	if limit := t.cfg.CallTimeout; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		t.mu.Lock()
		th.ctx = ctx
		t.mu.Unlock()
		defer func() {
			t.mu.Lock()
			th.ctx = nil // its end is no sign of anything: see judge
			t.mu.Unlock()
			cancel()
		}()
	}
	of := s.e.in
	if ctx != s.e.ctx {
		of = &batchContext{ctx, of.prefix, of.first}
	}
	c := th.context(of, s.i)
	if th.ran++; th.ran%16 != 1 {
		s.e.b.calls.run(c, s.i)
		return
	}
	began := time.Now()
	s.e.b.calls.run(c, s.i)
	s.e.cost.addTime(1, time.Since(began))
}

// context returns one for a call. They are made for many calls at a time.
func (th *thread) context(of *batchContext, i int) *callInBatch {
	if len(th.contexts) == 0 {
		th.contexts = make([]callInBatch, min(th.ran+1, 64))
	}
	c := &th.contexts[0]
	th.contexts = th.contexts[1:]
	c.batchContext, c.i = of, i
	return c
}

// ended counts the call that the goroutine ran.
func (t *Threads) ended(th *thread) {
	t.mu.Lock()
	defer t.mu.Unlock()
	th.now.e.end(1)
	th.now, th.ctx = span{}, nil
	t.drain.done(1)
}

// Shutdown implements [Executor]. Calls that run on after ctx has ended cannot be
// killed; they are answered with ErrClosed, and the error says how many there are.
func (t *Threads) Shutdown(ctx context.Context) error { return t.shutdown(ctx, 0, false) }

// Close implements [Executor]: it waits until every call has ended, but gives up
// when none ends for the configured Grace. The error then says how many run on,
// with their contexts cancelled.
func (t *Threads) Close() error { return t.shutdown(context.Background(), t.cfg.Grace, false) }

// Stop is Shutdown for somebody who cannot wait for what has not begun: calls that wait get
// ErrClosed at once, those that run are waited for as by Shutdown.
func (t *Threads) Stop(ctx context.Context) error {
	if ctx == nil {
		return errors.New("multiproc: Stop: the context is nil; pass context.Background()")
	}
	t.mu.Lock()
	t.stopped = true
	t.retries.end()
	queued := t.queue.removeAll()
	t.mu.Unlock()
	t.drop(queued, func(s span) { s.fail(0, ErrClosed) })
	return t.shutdown(ctx, 0, true)
}

func (t *Threads) shutdown(ctx context.Context, stall time.Duration, insist bool) error {
	if ctx == nil {
		return errors.New("multiproc: Shutdown: the context is nil; pass context.Background()")
	}
	return t.drain.run(ctx, &t.mu, stall, insist, func(cause error) error {
		t.mu.Lock()
		queued := t.queue.removeAll()
		t.retries.end()
		var running []span
		for th := range t.running {
			if th.now.e != nil {
				running = append(running, th.now)
			}
		}
		t.mu.Unlock()
		giveUp(append(running, queued...), func() {})
		t.drop(queued, span.drop)
		switch {
		case cause == nil:
			return nil
		case len(running) > 0:
			return fmt.Errorf("multiproc: close: %w; %d calls still run, as goroutines cannot be killed", cause, len(running))
		}
		return fmt.Errorf("multiproc: close: %w", cause)
	})
}

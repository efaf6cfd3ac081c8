package multiproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"
)

// PoolConfig configures [NewPool] and [NewProcesses]. The zero value works.
type PoolConfig struct {
	// Workers is how many worker processes run at once. They are started when
	// there is work for them. 0 means runtime.GOMAXPROCS(0), which respects the
	// CPU limit of a container.
	Workers int

	// KillGrace is how long a call that is not wanted any more may go on after its
	// context has ended. Then its worker is killed, with everything that it
	// started, and replaced. It is also how long Close waits for another call to
	// end before it gives up on those that run. 0 means 5 seconds.
	KillGrace time.Duration

	// StartTimeout is how long a new process may take to reach Init. 0 means 30
	// seconds.
	StartTimeout time.Duration

	// Setup is called in each worker before its first call: see [Func.With]. While
	// it fails no call is run; calls that wait get its error. nil means none.
	Setup *Setup

	// GOMAXPROCS is how many threads of each worker may run Go code at once. 0
	// means runtime.GOMAXPROCS(0)/Workers, at least 1.
	GOMAXPROCS int

	// Env adds variables to the environment of the workers, as "NAME=value"; they
	// win over those that this process has.
	Env []string

	// Dir is the working directory of the workers. Empty means that of this
	// process.
	Dir string

	// Stdout receives what the workers write to standard output. An *os.File is
	// handed to them as it is; another writer gets whole lines, from one worker at
	// a time. nil means os.Stdout; io.Discard drops it.
	Stdout io.Writer

	// Stderr receives what the workers write to standard error, in whole lines,
	// from one worker at a time. nil means os.Stderr; io.Discard drops it. The last
	// lines are part of a CrashError either way.
	Stderr io.Writer
}

// check returns the configuration with its defaults, or everything that is wrong.
func (c PoolConfig) check() (PoolConfig, error) {
	errs := []error{
		atLeast0("Workers", c.Workers), atLeast0("KillGrace", c.KillGrace),
		atLeast0("StartTimeout", c.StartTimeout), atLeast0("GOMAXPROCS", c.GOMAXPROCS), checkPlace(c.Dir, c.Env),
	}
	if c.Workers == 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.KillGrace == 0 {
		c.KillGrace = defaultGrace
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = defaultStartTimeout
	}
	if c.GOMAXPROCS == 0 {
		c.GOMAXPROCS = max(1, runtime.GOMAXPROCS(0)/max(1, c.Workers))
	}
	c.Stdout, c.Stderr = outputs(c.Stdout, c.Stderr)
	return c, errors.Join(errs...)
}

const defaultStartTimeout = 30 * time.Second

// checkPlace checks a working directory and additions to an environment.
func checkPlace(dir string, env []string) error {
	var errs []error
	if dir != "" {
		if info, err := os.Stat(dir); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", "Dir", err))
		} else if !info.IsDir() {
			errs = append(errs, fmt.Errorf("%s: %s is not a directory", "Dir", dir))
		}
	}
	for _, kv := range env {
		if name, _, ok := strings.Cut(kv, "="); !ok || name == "" || strings.Contains(kv, "\x00") {
			errs = append(errs, fmt.Errorf("%s: %q is not of the form NAME=value", "Env", kv))
		}
	}
	return errors.Join(errs...)
}

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
	maxCalls int          // calls after which a worker is replaced; 0: never

	mu       sync.Mutex
	queue    queue
	workers  map[*worker]struct{} // started and not yet seen to end
	costs    costs
	drain    drain
	dead     bool          // workers are not replaced any more
	gone     chan struct{} // closed when dead and no worker is left
	failures int           // workers in a row that ended without ending a call
	notUntil time.Time     // when the next worker may be started
	retry    *time.Timer   // for then
	balance  *time.Timer   // for another look at who could help whom
	changed  chan struct{} // closed and replaced when a worker has become ready or ended
}

// NewPool returns a pool of worker processes. It starts nothing; what is wrong with
// the configuration is the error of [Pool.Start] or of the first call.
func NewPool(cfg PoolConfig) *Pool {
	p := &Pool{}
	p.configure(cfg, 0)
	return p
}

// configure makes the zero Pool usable.
func (p *Pool) configure(cfg PoolConfig, maxCalls int) {
	cfg, err := cfg.check()
	if err != nil {
		p.bad = fmt.Errorf("PoolConfig: %w", err)
	}
	p.cfg, p.maxCalls, p.ready = cfg, maxCalls, canSpawn
	p.launch = launch{env: cfg.Env, dir: cfg.Dir, stdout: cfg.Stdout, stderr: cfg.Stderr, gomaxprocs: cfg.GOMAXPROCS}.start
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
	if p.drain.closing() {
		return ErrClosed
	}
	return p.ready()
}

// Start starts all workers and returns when they are ready, or with the first error,
// or when ctx ends; then those that were started are stopped again. It is not needed:
// without it workers are started when there is work.
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
	err := p.await(ctx, mine)
	if err != nil {
		for _, w := range mine {
			w.kill(ErrClosed)
		}
	}
	p.mu.Unlock()
	if err != nil {
		for _, w := range mine {
			<-w.gone // bounded: it was killed
		}
		return fmt.Errorf("multiproc: start: %w", err)
	}
	return nil
}

// await waits until all these workers are ready, or one has failed. p.mu is held,
// but not all the time.
func (p *Pool) await(ctx context.Context, ws []*worker) error {
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
	defer p.mu.Unlock()
	if err := p.refuses(); err != nil {
		return err
	}
	if b.Len() == 0 {
		return nil
	}
	p.queue.push(newEntry(b, p.costs.of(b.Func()), p.cancelled))
	p.drain.add(b.Len())
	p.staff()
	return nil
}

// Window implements [Executor]: twice what the workers are handed at a time.
func (p *Pool) Window(function string) int {
	return 2 * p.cfg.Workers * max(2, p.costs.of(function).batch())
}

// cancelled ends the calls of a batch that is not wanted any more.
func (p *Pool) cancelled(e *entry) {
	p.mu.Lock()
	refs := p.queue.remove(e)
	for w := range p.workers {
		w.cancel(e)
	}
	p.mu.Unlock()
	p.answer(refs, func(r ref) { r.drop() })
}

// answer answers calls that no worker has.
func (p *Pool) answer(refs []ref, how func(ref)) {
	if len(refs) == 0 {
		return
	}
	for _, r := range refs {
		how(r)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range refs {
		r.e.end(1)
	}
	p.drain.done(len(refs))
}

// Shutdown implements [Executor]. The calls that ctx leaves no time for have their
// contexts cancelled and their workers killed.
func (p *Pool) Shutdown(ctx context.Context) error { return p.shutdown(ctx, 0) }

// Close implements [Executor]: it waits until every call has ended, but not for
// longer than KillGrace after the last one did. What still runs then is killed and
// gets ErrClosed, and Close returns an error that says how many there were.
func (p *Pool) Close() error { return p.shutdown(context.Background(), p.cfg.KillGrace) }

// Kill ends everything at once: all calls get ErrClosed, all workers are killed. It
// also cuts short a Close or Shutdown that waits. It returns when no worker is left.
func (p *Pool) Kill() {
	p.mu.Lock()
	p.drain.hurryUp()
	p.mu.Unlock()
	p.shutdown(context.Background(), 0)
}

// softGrace is how long calls that Close or Shutdown gave up on have to see that
// their contexts ended.
const softGrace = 200 * time.Millisecond

func (p *Pool) shutdown(ctx context.Context, stall time.Duration) error {
	if ctx == nil {
		return errors.New("multiproc: Shutdown: the context is nil; pass context.Background()")
	}
	return p.drain.run(ctx, &p.mu, stall, func(cause error) error {
		p.mu.Lock()
		queued := p.queue.remove(nil)
		p.dead, p.gone = true, make(chan struct{})
		p.stopTimers()
		running := map[*entry]struct{}{}
		n := 0
		for w := range p.workers {
			for _, s := range w.flight {
				if !s.answered {
					running[s.e] = struct{}{}
				}
			}
			n += w.open
		}
		p.mu.Unlock()
		if cause != nil {
			for _, r := range queued {
				r.e.cancel(ErrClosed)
			}
			p.answer(queued, func(r ref) { r.e.b.Fail(r.i, 0, ErrClosed) })
			for e := range running {
				e.cancel(ErrClosed)
			}
		}
		p.dismiss(cause)
		switch {
		case cause == nil || errors.Is(cause, ErrClosed):
			return nil
		case errors.Is(cause, errStalled):
			return fmt.Errorf("multiproc: close: no call ended for %v; %d running and %d waiting calls were given up", stall, n, len(queued))
		}
		return cause
	})
}

// dismiss ends all workers and waits until they are gone: at once when they have
// been idle, otherwise after softGrace.
func (p *Pool) dismiss(cause error) {
	grace := p.cfg.KillGrace
	if errors.Is(cause, ErrClosed) {
		grace = 0
	} else if cause != nil {
		grace = softGrace
	}
	p.mu.Lock()
	for w := range p.workers {
		if w.state == stateStarting || grace == 0 {
			w.kill(ErrClosed)
		} else {
			w.stop()
		}
	}
	p.checkGone()
	p.mu.Unlock()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.gone:
		return
	case <-timer.C:
	case <-p.drain.hurry:
	}
	p.mu.Lock()
	for w := range p.workers {
		w.kill(ErrClosed)
	}
	p.mu.Unlock()
	<-p.gone // bounded: killed processes are waited for with a limit
}

// checkGone closes gone when it is time. p.mu is held.
func (p *Pool) checkGone() {
	if !p.dead || len(p.workers) > 0 {
		return
	}
	select {
	case <-p.gone:
	default:
		close(p.gone)
	}
}

func (p *Pool) stopTimers() {
	for _, t := range []*time.Timer{p.retry, p.balance} {
		if t != nil {
			t.Stop()
		}
	}
}

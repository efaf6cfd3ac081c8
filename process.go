package multiproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/seed84f35039/multiproc/internal/child"
	"github.com/seed84f35039/multiproc/internal/handover"
	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// ProcessConfig configures [Func.Start]. The zero value works.
type ProcessConfig struct {
	// Name is what the process is called by [Process.Name]. Empty means the name of
	// the function.
	Name string

	// KillGrace is how long the call may go on after its context has ended, before
	// the process is killed with everything that it started. 0 means 5 seconds.
	KillGrace time.Duration

	// CallTimeout is how long the call may run, from its start in the process: see
	// [TimeoutError]. 0 means no limit.
	CallTimeout time.Duration

	// CPUTime is how much CPU time the call may take, likewise: see [PoolConfig]. 0 means no
	// limit.
	CPUTime time.Duration

	// StartTimeout is how long the process may take to reach Init. 0 means 30
	// seconds.
	StartTimeout time.Duration

	// MemoryLimit is how much memory the process may have, in bytes: see [PoolConfig]. 0 means
	// no limit.
	MemoryLimit int64

	// OpenFiles is how many descriptors the process may have: see [PoolConfig]. 0 means as
	// many as this process.
	OpenFiles int

	// Nice is added to the niceness of the process: see [PoolConfig].
	Nice int

	// CPUs are the CPUs on which the process may run: see [PoolConfig]. None means those of
	// this process.
	CPUs []int

	// Cage limits the process and all that it starts from outside: see [PoolConfig]. nil means
	// none.
	Cage Cage

	// GOMAXPROCS is how many threads of the process may run Go code at once. 0 means
	// that of this process.
	GOMAXPROCS int

	// Env adds variables to the environment, as "NAME=value".
	Env []string

	// Dir is the working directory. Empty means that of this process.
	Dir string

	// Stdout receives what the process writes to standard output; see [PoolConfig].
	Stdout io.Writer

	// Stderr receives what the process writes to standard error; see [PoolConfig].
	Stderr io.Writer

	// Logger gets what the process logs; see [PoolConfig]. A handler that blocks holds up the
	// answer of the process until it returns. nil means that it logs to its standard error.
	Logger *slog.Logger

	// Spares gives the call to a process that stands ready, if there is one. What the
	// processes are like is said to [NewSpares] then: all other fields but Name and
	// KillGrace must be left out. nil means that a process is started.
	Spares *Spares
}

// check returns the configuration with its defaults, or everything that is wrong.
func (c ProcessConfig) check() (ProcessConfig, error) {
	if c.Spares != nil {
		return c.ofSpares()
	}
	err := errors.Join(atLeast0("KillGrace", c.KillGrace), atLeast0("StartTimeout", c.StartTimeout),
		atLeast0("CallTimeout", c.CallTimeout), atLeast0("CPUTime", c.CPUTime), c.limits().Validate(),
		atLeast0("GOMAXPROCS", c.GOMAXPROCS), checkPlace(c.Dir, c.Env), checkLogger(c.Logger))
	if c.KillGrace == 0 {
		c.KillGrace = defaultGrace
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = defaultStartTimeout
	}
	if c.GOMAXPROCS == 0 {
		c.GOMAXPROCS = runtime.GOMAXPROCS(0)
	}
	c.Stdout, c.Stderr = outputs(c.Stdout, c.Stderr)
	if err != nil {
		err = fmt.Errorf("ProcessConfig: %w", err)
	}
	return c, err
}

// ofSpares returns the configuration of a process that is one of the spares, or takes
// the place of one.
func (c ProcessConfig) ofSpares() (ProcessConfig, error) {
	own := c.Spares.cfg
	if own.Spares = c.Spares; c.Name != "" {
		own.Name = c.Name
	}
	if c.KillGrace != 0 {
		own.KillGrace = c.KillGrace
	}
	err := errors.Join(c.Spares.usable(), atLeast0("KillGrace", c.KillGrace))
	if c.Name, c.KillGrace, c.Spares = "", 0, nil; !reflect.ValueOf(c).IsZero() {
		err = errors.Join(err, errors.New("Spares: the process may be there already, so only Name and KillGrace can be given beside it; give the others to NewSpares"))
	}
	if err != nil {
		err = fmt.Errorf("ProcessConfig: %w", err)
	}
	return own, err
}

// launch returns how such a process is started.
func (c ProcessConfig) launch() launch {
	return launch{env: c.Env, dir: c.Dir, stdout: c.Stdout, stderr: c.Stderr, gomaxprocs: c.GOMAXPROCS, worker: c.worker(), cage: c.Cage}
}

func (c ProcessConfig) limits() child.Limits {
	return child.Limits{Memory: c.MemoryLimit, OpenFiles: c.OpenFiles, Nice: c.Nice, CPUs: c.CPUs}
}

// worker returns what the process has to know.
func (c ProcessConfig) worker() workerConfig {
	return workerConfig{timeout: c.CallTimeout, cpuTime: c.CPUTime, grace: c.KillGrace, concurrency: 1, limits: c.limits(), log: lowest(c.Logger)}
}

// get returns a process, and whether it is ready for the call.
func (c ProcessConfig) get() (l link, ready bool, err error) {
	if c.Spares != nil {
		return c.Spares.get()
	}
	l, err = c.launch().start()
	return l, false, err
}

// Process is a process that runs one call, started by [Func.Start]. It ends by
// itself after the call: with exit code 0, or 1 if the function failed. Its methods
// may be called from several goroutines at once.
type Process[Out any] struct {
	name  string
	info  CallInfo
	cfg   ProcessConfig
	link  link
	ready bool          // it was a spare
	sent  bool          // it has the call
	told  chan struct{} // closed when out and err are known
	done  chan struct{} // closed when the process has ended
	over  *exceeded     // the call has exceeded a limit; or nil. Only run and what it calls look at it

	result side

	mu        sync.Mutex
	cancelled error            // why the call was cancelled, if it was
	out       Out              // not written after told is closed
	err       error            // likewise
	state     *os.ProcessState // not written after done is closed
}

// Start starts a process that runs the function on in, and returns without waiting
// for it. The process ends when ctx does: see [ProcessConfig].KillGrace. Somebody
// should call Wait, or listen on Done, but nothing is left behind if nobody does.
func (f *Func[In, Out]) Start(ctx context.Context, in In, cfg ProcessConfig) (*Process[Out], error) {
	if f == nil || f.fn == nil {
		return nil, fmt.Errorf("multiproc: %w", ErrUnknownFunc)
	}
	if ctx == nil {
		return nil, fmt.Errorf("%s: the context is nil; pass context.Background()", f.name)
	}
	cfg, err := cfg.check()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, canceled(ctx))
	}
	parcel := &handover.Parcel{}
	call, err := singleCall(1, f.name, func(dst []byte, p *handover.Parcel) ([]byte, error) {
		return encode(dst, &in, f.in, "argument", p)
	}, parcel)
	if err != nil {
		parcel.Release()
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	l, ready, err := cfg.get()
	if err != nil {
		parcel.Release()
		return nil, fmt.Errorf("%s: start process: %w", f.name, err)
	}
	p := &Process[Out]{
		name: cfg.Name, info: CallInfo{Func: f.name, Index: -1, PID: l.PID()}, cfg: cfg, result: f.out,
		link: l, ready: ready, told: make(chan struct{}), done: make(chan struct{}),
	}
	if p.name == "" {
		p.name = f.name
	}
	// If there is room the call is there before the process is, and nobody has to be woken
	// for it.
	p.sent = parcel.Empty() && l.Send(call, nil, transport.Try) == nil
	go p.run(ctx, call, parcel) // ends with the process; waited for through done
	return p, nil
}

// run sees the process through its life.
func (p *Process[Out]) run(ctx context.Context, call []byte, parcel *handover.Parcel) {
	unwatch := context.AfterFunc(ctx, func() { p.cancel(ctx) })
	out, answered, err := p.converse(ctx, call, parcel)
	parcel.Release()
	if answered {
		p.tell(out, err)
		p.stop(err)
	}
	unwatch()
	ended := p.link.Reap()
	p.link.Close()
	if !answered {
		p.tell(out, p.died(err, ended))
	}
	p.state = ended.State
	close(p.done)
}

// tell makes the outcome of the call known.
func (p *Process[Out]) tell(out Out, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil && p.cancelled != nil {
		err = &located{p.info, p.cancelled}
	}
	p.out, p.err = out, err
	close(p.told)
}

// died makes the error of a call that got no answer.
func (p *Process[Out]) died(err error, ended child.Ended) error {
	if p.over != nil {
		return p.over.error(p.info, nil)
	}
	var c *CrashError
	switch {
	case errors.Is(err, errNoHello) && ended.Signal() == 0:
		return &located{p.info, refine(err, p.PID(), ended)}
	case hungUp(err) || errors.Is(err, errNoHello):
		c = crash(ended, "")
	case errors.Is(err, errStart):
		return &located{p.info, err}
	default:
		c = crash(ended, "protocol error: "+err.Error())
	}
	c.CallInfo = p.info
	return c
}

// converse has the process run the call. answered says that err is the call's; otherwise
// it says why there is no answer.
func (p *Process[Out]) converse(ctx context.Context, call []byte, parcel *handover.Parcel) (out Out, answered bool, err error) {
	if !p.ready {
		if err := prepare(p.link, nil, p.cfg.StartTimeout, p.cfg.Logger); err != nil {
			return out, false, fmt.Errorf("%w: %w", errStart, err)
		}
	}
	if !p.sent {
		if call, err = ship(p.link, parcel, call); err != nil {
			return out, false, fmt.Errorf("%w: %w", errStart, err)
		}
		if err := p.link.Send(call, nil, transport.Now); err != nil {
			_, err = transport.Recv(p.link) // says better that the process is gone
			return out, false, err
		}
	}
	if ctx.Err() != nil { // the first Cancel may have come before the call
		p.link.Send(appendCancel(nil, 1, 1, p.cfg.KillGrace), nil, transport.Urgent)
	}
	var came *handover.Arrival
	defer func() { came.Done(1) }()
	late := &lateness{kill: func() { p.link.Signal(syscall.SIGKILL) }} // for a process that does not see to its limit itself
	defer func() {
		if late.stop() && !answered && p.over == nil {
			p.over = &exceeded{limit: p.cfg.CallTimeout}
		}
	}()
	for {
		m, err := transport.Recv(p.link)
		if err != nil {
			return out, false, err
		}
		switch m.Kind {
		case wire.Started:
			if p.cfg.CallTimeout > 0 {
				late.in(p.cfg.CallTimeout + p.cfg.KillGrace + reaction)
			}
			continue
		case wire.Exceeded:
			told := p.over != nil
			if p.over, err = exceededBy(&m, p.cfg.CallTimeout, p.cfg.CPUTime); err != nil {
				return out, false, err
			}
			if !told {
				late.in(p.cfg.KillGrace + reaction)
			}
			continue
		case wire.Log:
			late.pause()
			err := forward(ctx, p.cfg.Logger, &m, p.info)
			late.resume()
			if err != nil {
				return out, false, err
			}
			continue
		case wire.Handover:
			came.Done(1)
			came = takeIn(p.link, m)
			continue
		case wire.Returned: // cancelled before it started
			return out, true, &located{p.info, context.Canceled}
		case wire.Result, wire.Failed:
		default:
			return out, false, fmt.Errorf("unexpected %s frame", m.Kind)
		}
		out, err = p.answer(m, came)
		return out, true, err
	}
}

// lateness kills a process at some time, unless its parent is held up: then it gets the time
// that this takes, up to heldUp, and some to be heard.
type lateness struct {
	kill func()

	mu     sync.Mutex
	timer  *time.Timer
	due    time.Time
	paused time.Time // since when its parent is held up, or zero
	fired  bool
}

// in has it be killed after that time, if that is sooner than it would be.
func (l *lateness) in(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	due := time.Now().Add(d)
	if l.timer == nil {
		l.due = due
		l.timer = time.AfterFunc(d, l.fire)
	} else if due.Before(l.due) && !l.fired {
		l.due = due
		l.timer.Reset(d)
	}
}

func (l *lateness) fire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := time.Until(l.due)
	if !l.paused.IsZero() && time.Since(l.paused) < heldUp {
		left = reaction
	}
	if left > 0 {
		l.timer.Reset(left)
		return
	}
	l.fired = true
	l.kill()
}

func (l *lateness) pause() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused = time.Now()
}

func (l *lateness) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if held := time.Since(l.paused); l.timer != nil && held < heldUp {
		l.due = l.due.Add(held)
		if soon := time.Now().Add(reaction); l.due.Before(soon) {
			l.due = soon
		}
	}
	l.paused = time.Time{}
}

// stop ends it, and reports whether the process was killed.
func (l *lateness) stop() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
	}
	return l.fired
}

// answer decodes the answer to the call.
func (p *Process[Out]) answer(m wire.Frame, came *handover.Arrival) (out Out, err error) {
	ran, body, err := wire.SplitRan(m.Body)
	if err == nil && m.Kind == wire.Result {
		err = p.result.decode(body, &out, came)
	}
	if err == nil && m.Kind == wire.Failed {
		var f wire.Failure
		if f, err = wire.DecodeFailure(body); err == nil {
			err = errorFrom(p.info, f, nil)
			if p.over == nil && p.cfg.CallTimeout > 0 && ran >= p.cfg.CallTimeout { // see onFailed
				p.over = &exceeded{limit: p.cfg.CallTimeout}
			}
			if p.over != nil {
				err = p.over.error(p.info, err)
			}
			return out, err
		}
	}
	if err != nil {
		return out, &located{p.info, fmt.Errorf("%w: decode result: %w", ErrEncoding, err)}
	}
	return out, nil
}

// stop tells the process to end, with a code that says whether the call failed, and waits
// until it does, at most KillGrace.
func (p *Process[Out]) stop(failed error) {
	code := 0
	if failed != nil {
		code = 1
	}
	late := time.AfterFunc(p.cfg.KillGrace, func() { p.link.Signal(syscall.SIGKILL) })
	defer late.Stop()
	if p.link.Send(wire.Append(nil, wire.Stop, 0, wire.AppendNumber(nil, code)), nil, transport.Urgent) != nil {
		return
	}
	for {
		m, err := transport.Recv(p.link)
		if err != nil {
			return
		}
		if m.Kind == wire.Log { // of what the call has left behind
			forward(context.Background(), p.cfg.Logger, &m, CallInfo{Index: -1, PID: p.PID()})
		}
	}
}

// cancel ends the call's context, and the process after KillGrace.
func (p *Process[Out]) cancel(ctx context.Context) {
	p.mu.Lock()
	p.cancelled = canceled(ctx)
	p.mu.Unlock()
	// The process ends in time by itself, unless it is stopped or not ready yet.
	hard := time.AfterFunc(p.cfg.KillGrace, func() { p.link.Signal(syscall.SIGKILL) })
	p.link.Send(appendCancel(nil, 1, 1, p.cfg.KillGrace), nil, transport.Urgent)
	<-p.done // bounded by the timer
	hard.Stop()
}

// Wait waits for the process to end and returns the result of the call. When ctx
// ends before, it returns the cause of that at once, and the process goes on. The
// errors are those of [Func.Call]; a process that was killed or terminated is a
// *CrashError, also when this program did it.
func (p *Process[Out]) Wait(ctx context.Context) (Out, error) {
	var zero Out
	if err := await(ctx, p.done); err != nil {
		return zero, &located{p.info, err}
	}
	return p.out, p.err
}

// Result waits for the outcome of the call like Wait, but not for the end of the process
// after it has answered.
func (p *Process[Out]) Result(ctx context.Context) (Out, error) {
	var zero Out
	if err := await(ctx, p.told); err != nil {
		return zero, &located{p.info, err}
	}
	return p.out, p.err
}

// Done returns a channel that is closed when the process has ended.
func (p *Process[Out]) Done() <-chan struct{} { return p.done }

// PID returns the process id, which is also the id of the process group of all that
// the process starts.
func (p *Process[Out]) PID() int { return p.link.PID() }

// Name returns the name that the configuration gave the process.
func (p *Process[Out]) Name() string { return p.name }

// Alive reports whether the process has not ended.
func (p *Process[Out]) Alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// ExitState returns how the process ended, with its exit code or signal, the CPU
// time it took and the memory it needed; nil while it is alive.
func (p *Process[Out]) ExitState() *os.ProcessState {
	select {
	case <-p.done:
		return p.state
	default:
		return nil
	}
}

// Signal sends a signal to the process and all that it started. After its end the
// error is os.ErrProcessDone.
func (p *Process[Out]) Signal(sig os.Signal) error {
	s, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("%v: signal %v is not one of this system", p.info, sig)
	}
	return p.link.Signal(s)
}

// Terminate sends SIGTERM.
func (p *Process[Out]) Terminate() error { return p.link.Signal(syscall.SIGTERM) }

// Kill sends SIGKILL.
func (p *Process[Out]) Kill() error { return p.link.Signal(syscall.SIGKILL) }

package multiproc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// Spares are processes that were started ahead: they have reached Init, wait for their
// first call, and take no CPU meanwhile. A call that [Func.Start] gives to one of them
// saves the start of a process; another takes its place in the background. Where none is
// ready, Start starts a process as it does without spares.
//
//	spares := multiproc.NewSpares(2, multiproc.ProcessConfig{})
//	defer spares.Close()
//	p, err := square.Start(ctx, 3, multiproc.ProcessConfig{Spares: spares})
//
// Spares must be closed, or they stay as long as the program. They do not outlive it,
// however it ends. [PoolConfig].Spares is the same for [Pool] and [Processes].
//
// The methods may be called from several goroutines at once.
type Spares struct {
	n       int
	cfg     ProcessConfig    // of NewSpares, with its defaults
	bad     error            // what is wrong with it
	start   launcher         // starts a process
	timeout time.Duration    // for what every process does alike
	prepare func(link) error // waits until it can take calls
	logger  *slog.Logger     // what they log goes to; or nil
	may     func() error     // why processes cannot be started at all, if so

	mu       sync.Mutex
	all      []*spare // n at most; the oldest first
	closed   bool
	failures int           // spares in a row that were lost before they were of use
	lastErr  error         // why the last of them was, since somebody asked for more
	timer    *time.Timer   // until then no more are started, or nil
	changed  chan struct{} // closed and replaced when a spare has become ready or is gone
}

// spare is a process that nobody has taken. What it has is guarded by the mutex of its
// Spares.
type spare struct {
	link     link          // nil until the process has started
	ready    bool          // it can be taken
	stood    time.Duration // how long it was ready before it ended
	unwanted bool          // it was killed, or is as soon as it is there
	stirred  chan struct{} // closed when it has said something, or ended, since it was ready
}

// settled is how long a spare has to stand ready for its end not to count among those
// in a row after which no more are started.
const settled = time.Minute

// respite is how long after the use of one the next spare is started: the call should not
// have to share the CPU with that from its beginning, and short ones are over by then.
const respite = 2 * time.Millisecond

// NewSpares returns n spare processes for [Func.Start], and starts none: they are started
// after the first use, or by [Spares.Start], which also tells what is wrong with cfg. With
// n = 0 there are none.
//
// cfg is for all of them. What is given to Func.Start beside Spares may have a Name and a
// KillGrace of its own, and no more, as the processes may be there already.
func NewSpares(n int, cfg ProcessConfig) *Spares {
	cfg, err := cfg.check()
	errs := []error{err, atLeast0("NewSpares: n", n)}
	if cfg.Spares != nil {
		errs = append(errs, errors.New("NewSpares: the ProcessConfig of spares cannot have Spares"))
	}
	s := newSpares(n, cfg.launch().start, nil, cfg.StartTimeout, cfg.Logger)
	s.cfg, s.bad = cfg, errors.Join(errs...)
	return s
}

// newSpares returns spares that start starts and that run the setup.
func newSpares(n int, start launcher, setup *Setup, timeout time.Duration, logger *slog.Logger) *Spares {
	return &Spares{
		n: n, start: start, timeout: timeout, logger: logger, may: canSpawn, changed: make(chan struct{}),
		prepare: func(l link) error { return prepare(l, setup, timeout, logger) },
	}
}

// Start starts all spares and returns when they are ready, or with the first error, or
// when ctx ends; then none is left. It is not needed.
func (s *Spares) Start(ctx context.Context) error {
	if ctx == nil {
		return errors.New("multiproc: start spares: the context is nil; pass context.Background()")
	}
	err := s.usable()
	if err == nil {
		err = s.may()
	}
	if err == nil {
		err = s.fill(ctx)
	}
	if err != nil {
		return fmt.Errorf("multiproc: start spares: %w", err)
	}
	return nil
}

// Close ends all spares, and returns when they are gone. Processes that calls were given
// to are none of them any more and go on. Close may be called again.
func (s *Spares) Close() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.dismiss()
	return nil
}

// usable returns why there can be no spares.
func (s *Spares) usable() error {
	if s.start == nil {
		return errors.New("the spares were not made by multiproc.NewSpares")
	}
	return s.bad
}

// get returns a process, and whether it is ready for calls or still has to be prepared.
func (s *Spares) get() (l link, ready bool, err error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, false, ErrClosed
	}
	s.failures = min(s.failures, maxFailures-1) // there is a reason to try again
	s.hireAfter(respite)
	for i, sp := range s.all {
		if sp.ready && !sp.unwanted && !sp.link.Exited() {
			s.all = slices.Delete(s.all, i, i+1)
			s.failures = 0
			s.mu.Unlock()
			return &taken{sp.link, sp.stirred}, true, nil
		}
	}
	s.mu.Unlock()
	l, err = s.start()
	return l, false, err
}

// hire starts as many as are missing, if it is time. s.mu is held.
func (s *Spares) hire() {
	for !s.closed && s.timer == nil && len(s.all) < s.n {
		if s.failures > 0 && slices.ContainsFunc(s.all, starting) {
			return // one at a time, until one works
		}
		sp := &spare{stirred: make(chan struct{})}
		s.all = append(s.all, sp)
		go s.keep(sp) // ends when the spare does, or was taken; waited for by dismiss, or by whoever took it
	}
}

func starting(sp *spare) bool { return !sp.ready }

// hireAfter calls hire after a while, unless that is planned already. s.mu is held.
func (s *Spares) hireAfter(wait time.Duration) {
	if s.n == 0 || s.closed || s.timer != nil {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.timer == timer { // it was not stopped
			s.timer = nil
			s.hire()
		}
	})
	s.timer = timer
}

// keep sees a spare through its life, until somebody takes it.
func (s *Spares) keep(sp *spare) {
	l, err := s.start()
	if err == nil {
		s.mu.Lock()
		sp.link = l
		if sp.unwanted {
			end(l)
		}
		s.mu.Unlock()
		err = s.prepare(l)
		if err == nil && s.warmUp(l) == nil && s.watch(sp) {
			return
		}
		ended := l.Reap()
		l.Close()
		if err == nil {
			err = &spareDied{crash(ended, ""), l.PID()}
		} else {
			err = refine(err, l.PID(), ended)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(s.all, func(other *spare) bool { return other == sp })
	if !sp.unwanted {
		s.lost(fmt.Errorf("%w: %w", errStart, err), sp.stood)
	}
	s.announce()
}

// watch waits until somebody has taken the spare and it says something: then it returns
// true. It returns false when the spare ends before that, or says something that nobody
// has asked for. It may log something.
func (s *Spares) watch(sp *spare) (taken bool) {
	for since := time.Now(); ; {
		s.mu.Lock()
		if !slices.Contains(s.all, sp) {
			s.mu.Unlock()
			close(sp.stirred)
			return true
		}
		more, err := sp.link.Poll(0, wire.HeaderSize+1)
		if ended := err != nil || sp.unwanted; more || ended {
			sp.ready, sp.stood = false, time.Since(since)
			s.mu.Unlock()
			if ended || forwardAll(s.logger, sp.link) != nil {
				return false
			}
			continue
		}
		if !sp.ready {
			sp.ready = true
			s.hire() // after a failure they come one at a time
			s.announce()
		}
		s.mu.Unlock()
		sp.link.Wait(0) // which may return early
	}
}

// lost sees to it that another spare is started, but not again and again for nothing.
// stood is how long the last was ready. s.mu is held.
func (s *Spares) lost(err error, stood time.Duration) {
	s.lastErr = err
	if s.timer != nil || s.closed {
		return // one of several that were started together: they count once
	}
	if stood >= settled {
		s.failures = 0
	}
	if s.failures++; s.failures >= maxFailures {
		return // until somebody wants one
	}
	s.hireAfter(firstPause << (s.failures - 1))
}

// fill starts what is missing and waits until all are ready, or one has failed, or ctx
// ends; then it ends them.
func (s *Spares) fill(ctx context.Context) error {
	s.mu.Lock()
	s.failures, s.lastErr = min(s.failures, maxFailures-1), nil
	s.hire()
	s.mu.Unlock()
	err := s.await(ctx)
	if err != nil {
		s.dismiss()
	}
	return err
}

func (s *Spares) await(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.closed:
			return ErrClosed
		case s.lastErr != nil:
			return s.lastErr
		case len(s.all) == s.n && !slices.ContainsFunc(s.all, starting):
			return nil
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
			s.mu.Lock()
		case <-ctx.Done():
			s.mu.Lock()
			return canceled(ctx)
		}
	}
}

// dismiss ends all spares and waits until they are gone.
func (s *Spares) dismiss() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	for _, sp := range s.all {
		if sp.unwanted = true; sp.link != nil {
			end(sp.link)
		}
	}
	for slices.ContainsFunc(s.all, func(sp *spare) bool { return sp.unwanted }) {
		changed := s.changed
		s.mu.Unlock()
		<-changed // bounded: they were killed
		s.mu.Lock()
	}
}

// stuck is how long a process that was killed may take to end.
const stuck = 3 * time.Second

// end kills a process that is not needed.
func end(l link) {
	l.Signal(syscall.SIGKILL)
	// The connection ends with the process, unless that is stuck in the kernel, or somebody else
	// has got hold of it where there is no OnExit.
	time.AfterFunc(stuck, func() { transport.HangUp(l) })
}

// announce tells who waits that a spare has become ready or is gone. s.mu is held.
func (s *Spares) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// spareDied is the end of a process that waited for its first call.
type spareDied struct {
	*CrashError
	pid int
}

func (e *spareDied) Error() string {
	return fmt.Sprintf("a spare (pid %d) ended while it waited: %v", e.pid, e.CrashError)
}

// taken is the link of a spare that somebody has taken. Its first Wait is the one in
// which the spare was left.
type taken struct {
	link
	stirred <-chan struct{} // nil once that has returned
}

// HangUp is for [transport.HangUp].
func (t *taken) HangUp() { transport.HangUp(t.link) }

// Traffic is for [transport.TrafficOf].
func (t *taken) Traffic() transport.Traffic { return transport.TrafficOf(t.link) }

// Files returns the way for files, which taken would hide.
func (t *taken) Files() transport.Files { return transport.FilesOf(t.link) }

// Wait implements [transport.Conn].
func (t *taken) Wait(limit time.Duration) error {
	if t.stirred == nil {
		return t.link.Wait(limit)
	}
	var late <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-t.stirred:
		t.stirred = nil
	case <-late:
	}
	return nil
}

// nothing is the function without a name, which every worker knows. It returns its
// argument.
var nothing = &Func[int, int]{fn: func(_ context.Context, x int) (int, error) { return x, nil }}

// warmUp has a process make a call of nothing: what has been run once takes half the time.
// A process that does not return from that within StartTimeout is stuck, and killed.
func (s *Spares) warmUp(l link) error {
	late := time.AfterFunc(s.timeout, func() { end(l) })
	defer late.Stop()
	return runSetup(l, nothing.With(1), s.logger)
}

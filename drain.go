package multiproc

import (
	"context"
	"errors"
	"sync"
	"time"
)

// giveUp answers calls with ErrClosed, all of them before it ends their contexts, so
// that none is quick enough to say of itself that it was cancelled. In between stop is
// called, which sees to it that the end of one does not let another begin.
func giveUp(spans []span, stop func()) {
	for _, s := range spans {
		s.fail(0, ErrClosed)
	}
	stop()
	for _, s := range spans {
		if s.e.cancel != nil {
			s.e.cancel(ErrClosed)
		}
	}
}

// errStalled is why Close stops waiting.
var errStalled = errors.New("no call ended in time")

// drain counts the calls that an executor has to answer, and closes it when they
// are. It is guarded by the executor's mutex but for run, which takes it.
type drain struct {
	open    int           // calls submitted and not answered
	last    time.Time     // when one was answered last, once closing
	empty   chan struct{} // closed when open is 0, once closing
	hurry   chan struct{} // closed when nothing is to be waited for any more
	stopped chan struct{} // closed when run has ended; nil before
	err     error         // of run; read after stopped is closed
}

func newDrain() drain { return drain{hurry: make(chan struct{})} }

func (d *drain) closing() bool { return d.stopped != nil }

func (d *drain) add(n int) { d.open += n }

func (d *drain) done(n int) {
	d.open -= n
	if n > 0 && d.closing() {
		d.last = time.Now()
	}
	d.check()
}

// hurryUp makes run stop waiting, now or later.
func (d *drain) hurryUp() {
	select {
	case <-d.hurry:
	default:
		if d.hurry != nil {
			close(d.hurry)
		}
	}
}

func (d *drain) check() {
	if d.closing() && d.open == 0 {
		select {
		case <-d.empty:
		default:
			close(d.empty)
		}
	}
}

// run refuses new calls and waits until every call is answered: then cause is nil.
// It waits no longer when ctx ends, or when none has been answered for the time
// stall (unless that is 0): then there is a cause, and release has to answer the
// rest. Only the first run does this; the others wait for it, and if they insist it waits no
// longer either when their ctx ends. mu is the executor's mutex.
func (d *drain) run(ctx context.Context, mu *sync.Mutex, stall time.Duration, insist bool, release func(cause error) error) error {
	mu.Lock()
	if d.closing() {
		stopped := d.stopped
		mu.Unlock()
		select {
		case <-stopped:
			return d.err
		case <-ctx.Done():
			if insist {
				mu.Lock()
				d.hurryUp()
				mu.Unlock()
				<-stopped // bounded: what runs is given up
			}
			return canceled(ctx)
		}
	}
	d.empty, d.stopped, d.last = make(chan struct{}), make(chan struct{}), time.Now()
	d.check()
	mu.Unlock()
	d.err = release(d.wait(ctx, mu, stall))
	close(d.stopped)
	return d.err
}

// wait returns nil when every call is answered.
func (d *drain) wait(ctx context.Context, mu *sync.Mutex, stall time.Duration) error {
	var late <-chan time.Time
	var timer *time.Timer
	if stall > 0 {
		timer = time.NewTimer(stall)
		defer timer.Stop()
		late = timer.C
	}
	for {
		select {
		case <-d.empty:
			return nil
		default:
		}
		select {
		case <-d.empty:
			return nil
		case <-ctx.Done():
			return canceled(ctx)
		case <-d.hurry:
			return ErrClosed
		case <-late:
			mu.Lock()
			left := stall - time.Since(d.last)
			mu.Unlock()
			if left <= 0 {
				return errStalled
			}
			timer.Reset(left)
		}
	}
}

package multiproc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Retry says whether and when a call that has failed is run again. The zero value: never,
// so that a call runs at most once. With it a call runs at least once: one whose worker
// died may have done its work before, so the function should be idempotent; [Key] helps with that.
//
// Only what became of the call itself is a reason to run it again: an error that it
// returned, a panic, a crash, a time limit. A call whose context has ended, that could
// not be encoded, or whose executor was closed is not. What the call gets in the end is
// the error of the last attempt, whose CallInfo tells how many there were.
type Retry struct {
	// Attempts is how often a call is run at most. 0 and 1 mean once.
	Attempts int

	// Backoff is the pause before the second attempt; it doubles with each further
	// one. Each pause is shortened at random by up to a half, so that calls that
	// failed together do not come back together. 0 means 100 ms.
	Backoff time.Duration

	// MaxBackoff is the longest pause. 0 means 30 seconds.
	MaxBackoff time.Duration

	// If reports whether a call that failed with err is to be run again. It may be
	// called from several goroutines at once, and must not block. nil means yes.
	If func(err error) bool
}

// check returns the configuration with its defaults, or everything that is wrong.
func (r Retry) check() (Retry, error) {
	err := errors.Join(atLeast0("Retry.Attempts", r.Attempts), atLeast0("Retry.Backoff", r.Backoff), atLeast0("Retry.MaxBackoff", r.MaxBackoff))
	if r.Backoff == 0 {
		r.Backoff = 100 * time.Millisecond
	}
	if r.MaxBackoff == 0 {
		r.MaxBackoff = max(30*time.Second, r.Backoff)
	}
	if err == nil && r.MaxBackoff < r.Backoff {
		err = fmt.Errorf("Retry.MaxBackoff is %v, which is less than Retry.Backoff, %v", r.MaxBackoff, r.Backoff)
	}
	return r, err
}

// pause returns how long to wait before the next attempt, after n have failed.
func (r Retry) pause(n int) time.Duration {
	most, doublings := r.MaxBackoff, min(n-1, 62)
	if r.Backoff <= r.MaxBackoff>>doublings {
		most = r.Backoff << doublings
	}
	return most - rand.N(most/2+1)
}

// attempts is how often a call has failed.
type attempts struct {
	failed  int
	crashes int // of them, by the death of its worker
}

// retries has the calls of an executor that failed run again. Its fields are guarded by the
// executor's mutex, mu.
type retries struct {
	Retry
	maxCrashes int // so many workers, and no more, may a call kill; 0: any
	mu         *sync.Mutex
	queue      *queue
	drain      *drain
	staff      func() // sees to it that the calls that wait are run; mu is held

	over  bool        // no more calls are run again
	timer *time.Timer // for the next call that is put off
	count uint64      // of calls that were run again
}

// again notes that call i of e has failed with err, and reports whether it is going to be run
// again. If not, err tells how often it was run.
func (r *retries) again(e *entry, i int, err error) bool {
	at := callInfo(err)
	if at == nil || r.Attempts <= 1 {
		return false
	}
	a := r.note(e, i, err)
	again := a.failed < r.Attempts && (r.maxCrashes == 0 || a.crashes < r.maxCrashes) && (r.If == nil || r.If(err))
	r.mu.Lock()
	defer r.mu.Unlock()
	if !again || r.over || e.ctx.Err() != nil {
		at.Attempts = a.failed
		delete(e.failed, i)
		return false
	}
	// This is a new call before the old one is counted as answered.
	e.left++
	r.drain.add(1)
	r.count++
	r.queue.off = append(r.queue.off, putOff{span{e, i, 1}, time.Now().Add(r.pause(a.failed))})
	r.resume()
	return true
}

// note counts a failure, and returns how many there are.
func (r *retries) note(e *entry, i int, err error) attempts {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := e.failed[i]
	a.failed++
	if crash, crashed := err.(*CrashError); crashed {
		a.crashes++
		crash.Crashes = a.crashes
	}
	if e.failed == nil {
		e.failed = map[int]attempts{}
	}
	e.failed[i] = a
	return a
}

// resume has the calls run that were put off and whose time has come. mu is held.
func (r *retries) resume() {
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	if next, ok := r.queue.due(); ok {
		r.timer = time.AfterFunc(next, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			if !r.over {
				r.resume()
			}
		})
	}
	r.staff()
}

// end has no more calls run again. Those that are put off are for the queue's owner to
// answer. mu is held.
func (r *retries) end() {
	r.over = true
	if r.timer != nil {
		r.timer.Stop()
	}
}

// callInfo returns the CallInfo of an error that says what became of the call itself, or
// nil if err says something else.
func callInfo(err error) *CallInfo {
	switch err := err.(type) {
	case *RemoteError:
		return &err.CallInfo
	case *PanicError:
		return &err.CallInfo
	case *CrashError:
		return &err.CallInfo
	case *TimeoutError:
		return &err.CallInfo
	case *RawFailure: // which has no place for the number of attempts
		return &CallInfo{PID: err.PID}
	}
	return nil
}

// TimeoutError is the end of a call by a limit of its executor's: CallTimeout or CPUTime.
// It counts as context.DeadlineExceeded. A call whose own context has a deadline ends with
// that context's error instead.
//
// The limit is soft at first: the context of the function ends, and if it returns an error
// then, this error wraps that. (A result that comes after all is a result.) When it has not
// returned KillGrace later, the limit is hard: its worker process is killed with everything
// that it started, and replaced.
type TimeoutError struct {
	CallInfo
	Limit time.Duration // that was exceeded
	CPU   bool          // it is a limit for the CPU time, not for the time that passes
	Hard  bool          // the process was killed

	wrapped error // what the function returned
}

// Error returns the call, the limit, and what was done.
func (e *TimeoutError) Error() string {
	what, how := "time limit", "its context was cancelled"
	if e.CPU {
		what = "CPU time limit"
	}
	if e.Hard {
		how = "its process was killed"
	}
	return fmt.Sprintf("%v: %s of %v exceeded: %s", e.CallInfo, what, e.Limit, how)
}

// Is reports whether target is context.DeadlineExceeded.
func (e *TimeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// Timeout returns true, as errors of the standard library do that are a timeout.
func (e *TimeoutError) Timeout() bool { return true }

// Unwrap returns the error that the function returned when its context had ended, or nil.
func (e *TimeoutError) Unwrap() error { return e.wrapped }

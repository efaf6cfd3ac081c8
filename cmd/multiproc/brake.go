package main

import (
	"context"
	"errors"
	"sync"

	"github.com/seed84f35039/multiproc/cmd/multiproc/internal/jobs"
)

// brake counts jobs that have ended, and has no more begin when enough have. Jobs of this process look at it
// themselves, so that not a single one begins too late.
type brake struct {
	halt jobs.Halt

	mu                sync.Mutex
	failed, succeeded int
	code              int           // of the last job that had failed when it was reached, or that has failed
	reached           bool          // no more jobs are to begin
	now               chan struct{} // closed when those that run are to end
}

func newBrake(h jobs.Halt) *brake { return &brake{halt: h, now: make(chan struct{})} }

// errHalted is what becomes of jobs that the brake has kept from running.
var errHalted = errors.New("no more jobs are to run")

// ended counts a job.
func (b *brake) ended(ok bool, code int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ok {
		b.succeeded++
	} else {
		b.failed++
		if !b.reached {
			b.code = code
		}
	}
	if !b.reached && b.halt.Reached(b.failed, b.succeeded) {
		b.reached = true
		if b.halt.Now {
			close(b.now)
		}
	}
}

// isReached reports whether no more jobs are to begin.
func (b *brake) isReached() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reached
}

// brakeKey is the key of a brake in the context of jobs in this process.
type brakeKey struct{}

// withBrake has jobs of this process look at a brake.
func withBrake(ctx context.Context, b *brake) context.Context {
	return context.WithValue(ctx, brakeKey{}, b)
}

// run runs a job, which ends when its context does, and counts it. A nil brake does nothing.
func (b *brake) run(ctx context.Context, job func(ctx context.Context) (ok bool, code int)) error {
	if b == nil {
		job(ctx)
		return nil
	}
	if b.isReached() {
		return errHalted
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over := make(chan struct{})
	defer close(over)
	if b.halt.Now {
		go func() { // ends with the job
			select {
			case <-b.now:
				cancel(errHalted)
			case <-over:
			}
		}()
	}
	ok, code := job(ctx)
	if context.Cause(ctx) == errHalted && !ok {
		return errHalted
	}
	if ctx.Err() == nil || ok {
		b.ended(ok, code)
	}
	return nil
}

// exitCode returns the exit code of the command: by how many jobs have failed.
func (b *brake) exitCode() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.reached && b.halt.Succeed > 0:
		return 0
	case b.reached && b.halt.Now && b.halt.Failed > 0:
		return b.code
	}
	return min(b.failed, 101)
}

// count returns how many jobs have ended.
func (b *brake) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed + b.succeeded
}

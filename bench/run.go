package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"
)

// run does the row's job in rounds: each lets every contender have one turn. A contender that fails
// is not asked again. The error is that of ctx.
func (r row) run(ctx context.Context, e *env, rounds int, progress io.Writer) (*result, error) {
	res := &result{row: r, failed: map[string]error{}}
	for i := range rounds {
		began := time.Now()
		round := map[string]figures{}
		for _, c := range r.contenders {
			if res.failed[c.name] != nil {
				continue
			}
			f, err := c.turn(ctx, e)
			if ctx.Err() != nil {
				return res, context.Cause(ctx)
			}
			if err != nil {
				res.failed[c.name] = err
				fmt.Fprintf(progress, "%s: %s: %v\n", r.name, c.name, err)
				continue
			}
			round[c.name] = f
		}
		res.rounds = append(res.rounds, round)
		fmt.Fprintf(progress, "%s: round %d of %d took %.1f s\n", r.name, i+1, rounds, time.Since(began).Seconds())
	}
	return res, nil
}

// turn measures once. What the one before left in memory is given back first: it is not to
// be collected, or copied by fork, on the account of this one.
func (c contender) turn(ctx context.Context, e *env) (figures, error) {
	debug.FreeOSMemory()
	ctx, cancel := context.WithTimeoutCause(ctx, measureTimeout, fmt.Errorf("not done after %v", measureTimeout))
	defer cancel()
	f, err := c.measure(ctx, e)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return f, err
}

// broken returns what kept contenders from being measured that should have been: ours, Go's own and
// limits that are not missing. Peers may fail.
func (r *result) broken() error {
	var errs []error
	for _, c := range r.row.contenders {
		err := r.failed[c.name]
		if _, lacks := errors.AsType[missing](err); err != nil && !lacks && c.group != peer {
			errs = append(errs, fmt.Errorf("%s: %s: %w", r.row.name, c.name, err))
		}
	}
	return errors.Join(errs...)
}

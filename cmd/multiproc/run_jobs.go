package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/cluster"
	"github.com/seed84f35039/multiproc/cmd/multiproc/internal/jobs"
)

// runner runs the jobs of a command line.
type runner struct {
	flags          *runFlags
	inputs         jobs.Inputs
	template       *jobs.Template // nil: inputs are commands themselves
	timeout, grace time.Duration
	halt           jobs.Halt
	jobs           int
	stdout, stderr io.Writer
	files          []*os.File // of inputs

	joblog io.Writer // or nil
	brake  *brake

	mu      sync.Mutex
	pending map[int]pendingJob // those that are under way, by their index
	broken  error              // why there are no more inputs
}

// pendingJob is what is to be known of a job when it has ended.
type pendingJob struct {
	shown string
	tag   string
}

func (r *runner) close() {
	for _, f := range r.files {
		f.Close()
	}
}

// run runs all jobs. The error is nil, or a *failure.
func (r *runner) run(ctx context.Context) error {
	if r.flags.dryRun {
		return r.print()
	}
	if r.flags.joblog != "" {
		file, err := os.Create(r.flags.joblog)
		if err != nil {
			return &failure{code: codeOwn, err: err}
		}
		defer file.Close()
		r.joblog = file
		if _, err := io.WriteString(file, jobs.LogHeader); err != nil {
			return &failure{code: codeOwn, err: fmt.Errorf("write job log: %w", err)}
		}
	}
	ctx, release := untilSignal(ctx, func() {})
	defer release()
	ex, err := r.executor(ctx)
	if err != nil {
		return &failure{code: codeOwn, err: err}
	}
	err = r.runOn(ctx, ex)
	// What runs is ended by its context by now, or has ended; and if not, a second signal ends all of it.
	if closeErr := shutdown(ex, r.grace); err == nil {
		err = closeErr
	}
	var by stopped
	if errors.As(context.Cause(ctx), &by) {
		return &failure{code: codeOwn, err: fmt.Errorf("%w after %d jobs", by, r.brake.count())}
	}
	if err != nil {
		return &failure{code: codeOwn, err: err}
	}
	if code := r.brake.exitCode(); code != 0 {
		return &failure{code: code}
	}
	return nil
}

// executor returns what runs the jobs.
func (r *runner) executor(ctx context.Context) (multiproc.Executor, error) {
	if !r.flags.cluster.local() {
		return r.flags.cluster.dial(ctx, r.grace)
	}
	return multiproc.NewThreads(multiproc.ThreadsConfig{Workers: r.jobs}), nil
}

// window returns how many jobs may have been begun whose output was not written.
func (r *runner) window() (opts []multiproc.StreamOption) {
	switch {
	case !r.flags.cluster.local() && r.flags.jobsSet:
		return append(opts, multiproc.WithWindow(r.jobs))
	case r.flags.cluster.local() && r.flags.keep: // others go on while a slow one holds up the output
		return append(opts, multiproc.WithWindow(4*r.jobs+64))
	}
	return nil
}

// runOn runs all jobs on an executor, until there are no more or it was halted.
func (r *runner) runOn(ctx context.Context, ex multiproc.Executor) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	local := r.flags.cluster.local()
	if local {
		ctx = withBrake(ctx, r.brake)
	}
	results := func(yield func(multiproc.Result[ranCommand]) bool) {
		runCommand.StreamUnordered(ctx, ex, r.commands(ctx), r.window()...)(yield)
	}
	if r.flags.keep {
		results = func(yield func(multiproc.Result[ranCommand]) bool) {
			i := -1
			for out, err := range runCommand.Stream(ctx, ex, r.commands(ctx), r.window()...) {
				if i++; !yield(multiproc.Result[ranCommand]{Index: i, Value: out, Err: err}) {
					return
				}
			}
		}
	}
	for result := range results {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		job, known := r.take(result.Index)
		switch {
		case errors.Is(result.Err, errHalted):
			continue
		case result.Err != nil && (!known || fatal(result.Err)):
			return result.Err
		case result.Err != nil || !local: // otherwise it was counted where it ran
			r.brake.ended(result.Err == nil && result.Value.ok(), result.Value.code())
		}
		if err := r.ended(result.Index+1, job, &result.Value, result.Err); err != nil {
			return err
		}
		if !local && r.halt.Now && r.brake.isReached() {
			return nil // the context ends the others
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.broken
}

// fatal reports whether an error of a call is one of all calls.
func fatal(err error) bool {
	var refused *cluster.RefusedError
	return errors.Is(err, cluster.ErrNoAgents) || errors.Is(err, multiproc.ErrClosed) || errors.As(err, &refused)
}

// commands yields what is to be run, until it is stopped.
func (r *runner) commands(ctx context.Context) iter.Seq[command] {
	return func(yield func(command) bool) {
		r.pending = map[int]pendingJob{}
		seq := 0
		for args := range untilDone(ctx, r.inputs.All(r.fail)) {
			seq++
			c, job, err := r.command(jobs.Job{Seq: seq, Args: args})
			if err != nil {
				r.fail(err)
				return
			}
			r.mu.Lock()
			r.pending[seq-1] = job
			r.mu.Unlock()
			if r.brake.isReached() || !yield(c) {
				return
			}
		}
	}
}

// untilDone yields what seq does until ctx ends, even when seq blocks then.
func untilDone[T any](ctx context.Context, seq iter.Seq[T]) iter.Seq[T] {
	return func(yield func(T) bool) {
		values, left := make(chan T, 64), make(chan struct{})
		defer close(left)
		go func() { // ends with seq, with ctx, or when nobody wants more; or with the program, when seq blocks
			defer close(values)
			for v := range seq {
				select {
				case values <- v:
				case <-left:
					return
				case <-ctx.Done():
					return
				}
			}
		}()
		for {
			select {
			case v, ok := <-values:
				if !ok || !yield(v) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// command makes the command of a job.
func (r *runner) command(j jobs.Job) (command, pendingJob, error) {
	c := command{
		Env: []string{"MP_SEQ=" + strconv.Itoa(j.Seq)}, Dir: r.flags.directory, Timeout: r.timeout, Grace: r.grace, Tries: r.flags.retries,
		Local: r.flags.cluster.local(),
	}
	job := pendingJob{tag: strings.Join(j.Args, " ") + "\t"}
	if r.template == nil {
		job.shown = strings.Join(j.Args, " ")
		c.Argv = []string{"sh", "-c", job.shown}
		return c, job, nil
	}
	var err error
	c.Argv, job.shown, err = r.template.Command(j)
	return c, job, err
}

// print prints the commands.
func (r *runner) print() error {
	w := bufio.NewWriter(r.stdout)
	seq := 0
	for args := range r.inputs.All(r.fail) {
		seq++
		_, job, err := r.command(jobs.Job{Seq: seq, Args: args})
		if err != nil {
			r.fail(err)
			break
		}
		fmt.Fprintln(w, strings.ReplaceAll(job.shown, jobs.SlotMark, "{%}"))
	}
	if err := errors.Join(r.broken, w.Flush()); err != nil {
		return &failure{code: codeOwn, err: err}
	}
	return nil
}

// fail notes why there are no more inputs.
func (r *runner) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken == nil {
		r.broken = err
	}
}

// take returns what is known of a job that has ended.
func (r *runner) take(index int) (pendingJob, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	job, known := r.pending[index]
	delete(r.pending, index)
	return job, known
}

// ended writes what a job has written, and notes how it has ended. callErr is why nothing is known of it.
func (r *runner) ended(seq int, job pendingJob, o *ranCommand, callErr error) error {
	defer o.Stdout.Close()
	defer o.Stderr.Close()
	if callErr != nil {
		o.ExitCode, o.Host = -1, "-"
		fmt.Fprintf(&o.Stderr, "multiproc: job %d: %v\n", seq, callErr)
	}
	size := o.Stdout.Len()
	if err := r.write(r.stdout, &o.Stdout, job.tag); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	if err := r.write(r.stderr, &o.Stderr, job.tag); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	if o.TimedOut {
		fmt.Fprintf(r.stderr, "multiproc: job %d was ended, as it took longer than %v: %s\n", seq, r.timeout, job.shown)
	}
	if r.joblog == nil {
		return nil
	}
	e := jobs.Entry{
		Seq: seq, Host: o.Host, Start: o.Start, Runtime: o.Runtime, Receive: size, Exit: o.ExitCode, Signal: o.Signal, Command: job.shown,
	}
	if r.flags.cluster.local() {
		e.Host = ":"
	}
	if o.Signal > 0 {
		e.Exit = 0
	}
	if o.TimedOut {
		e.Exit = -1
	}
	if _, err := e.WriteTo(r.joblog); err != nil {
		return fmt.Errorf("write job log: %w", err)
	}
	return nil
}

// write writes what a job has written.
func (r *runner) write(w io.Writer, s *jobs.Spool, tag string) error {
	if s.Len() == 0 {
		return nil
	}
	if r.flags.tag {
		w = &tagged{w: bufio.NewWriter(w), tag: tag}
	}
	_, err := s.WriteTo(w)
	return err
}

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/cmd/multiproc/internal/jobs"
)

const poolHelp = `Hand the lines of standard input to workers that stay: programs of any language that read a line, write a line that
answers it, and flush, again and again. The answers are written, each on a line, as they come, or in order with -k.

A worker that dies costs the record that it had not answered: the error names that. It is replaced by another one, and
what it had been sent beyond that record is sent again. --on-death says what becomes of the record. Workers have nothing
but records on standard input, which ends when there are no more; their standard error is passed on.

WORKER is a program with its arguments; a single word with blanks or other special characters is a text for sh.

On a cluster (--nats) each slot of an agent has a worker of its own, which ends when its slot has been idle for a while. Workers run in
the working directory of the agents, or in --dir there, and with their environment; for --key see multiproc run.

SIGINT, SIGTERM or SIGHUP: workers get SIGTERM, and SIGKILL after --grace. A second one ends everything at once.

Exit code: 0 if all records were answered, 1 to 100 the number of those that were not, 101 if there are more, 255 if it
was stopped, or for an error of its own.`

const poolExample = `  multiproc pool -j4 -k python3 -u upper.py < words.txt
  multiproc pool --timeout 2s --on-death retry ./score --model m.bin < records.jsonl > scores.jsonl
  multiproc pool --nats nats://10.0.0.1:4222 --key my.key 'sed -u s/a/b/' < words.txt`

// poolFlags are the flags of pool as they were given.
type poolFlags struct {
	files            []string
	jobs             string
	keep             bool
	window, lifespan int
	timeout, grace   string
	onDeath, proto   string
	directory        string
	cluster          clusterFlags
	useless          []string // of those that were given
}

func poolCommandLine() *cobra.Command {
	var flags poolFlags
	cmd := &cobra.Command{
		Use:     "pool [flags] WORKER [ARG...]",
		Short:   "Hand lines to persistent workers of any language, here or on a cluster",
		Long:    poolHelp,
		Example: poolExample,
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range []string{"jobs", "window"} {
				if !flags.cluster.local() && cmd.Flags().Changed(name) {
					flags.useless = append(flags.useless, name)
				}
			}
			p, err := flags.plan(args, cmd.InOrStdin())
			if err != nil {
				return &failure{code: codeOwn, err: err, hint: "multiproc pool --help tells what there is"}
			}
			p.stdout, p.stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
			defer p.close()
			return p.run(cmd.Context())
		},
	}
	ownUsageCode(cmd)
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.SortFlags = false
	f.StringArrayVarP(&flags.files, "arg-file", "a", nil, "file with records instead of standard input, which is -; may be given again")
	f.StringVarP(&flags.jobs, "jobs", "j", "100%", "how many workers there are: N, +N or -N (more or less than CPUs), N% of the CPUs;\non a cluster agents say that")
	f.BoolVarP(&flags.keep, "keep-order", "k", false, "write the answers in the order of the records")
	f.StringVar(&flags.proto, "proto", "line", "how workers read and write: line, or json for objects {\"id\":1,\"data\":RECORD}, which are\nanswered by {\"id\":1,\"result\":…} or {\"id\":1,\"error\":\"…\"} in any order; records are JSON then")
	f.IntVar(&flags.window, "window", 2, "how many records a worker is sent before it has answered the first; 1 on a cluster")
	f.StringVar(&flags.timeout, "timeout", "", "end a worker that takes longer for a record, such as 30s, 1.5h or 90 (seconds)")
	f.StringVar(&flags.grace, "grace", "5s", "how long a worker that is to end has, and again from SIGTERM to SIGKILL")
	f.StringVar(&flags.onDeath, "on-death", "skip", "what becomes of the record of a worker that died: skip it, retry it with up to three workers,\nor fail, which ends everything")
	f.IntVar(&flags.lifespan, "lifespan", 0, "replace a worker after so many records (default never)")
	f.StringVar(&flags.directory, "dir", "", "working directory of the workers")
	flags.cluster.add(f)
	return cmd
}

// recordPool hands records to workers.
type recordPool struct {
	flags          *poolFlags
	inputs         []jobs.Inputs // one after the other
	spec           workerSpec
	stdout, stderr io.Writer
	files          []*os.File

	failed, answered int

	mu      sync.Mutex
	pending map[int]string // records that are under way, by their index
	broken  error          // why there are no more
}

// What becomes of a record whose worker died.
var onDeaths = []string{"skip", "retry", "fail"}

// maxDeaths is how many workers a record may cost if it is tried again.
const maxDeaths = 3

// plan checks the flags and the arguments, tells everything that is wrong with them, and opens files.
func (f *poolFlags) plan(args []string, stdin io.Reader) (p *recordPool, err error) {
	p = &recordPool{flags: f, pending: map[int]string{}}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	var errs []error
	fault := func(name string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	if len(args) == 0 {
		errs = append(errs, errors.New("there is no worker"))
	} else if p.spec.Argv = args; len(args) == 1 && jobs.NeedsShell(args[0]) {
		p.spec.Argv = []string{"sh", "-c", args[0]}
	}
	for _, name := range f.useless {
		errs = append(errs, fmt.Errorf("--%s is not for clusters: each slot of an agent has a worker, which is sent one record at a time; see multiproc agent --slots", name))
	}
	for _, name := range f.files {
		source := jobs.Source{Reader: stdin, Name: "standard input"}
		if name != "-" {
			file, err := os.Open(name)
			fault("--arg-file", err)
			p.files = append(p.files, file)
			source = jobs.Source{Reader: file, Name: name}
		}
		p.inputs = append(p.inputs, jobs.Inputs{Sources: []jobs.Source{source}, AnyByte: true})
	}
	if len(f.files) == 0 {
		p.inputs = []jobs.Inputs{{Sources: []jobs.Source{{Reader: stdin, Name: "standard input"}}, AnyByte: true}}
	}
	if p.spec.Proto = jobs.Protocol(f.proto); !slices.Contains(jobs.Protocols, p.spec.Proto) {
		errs = append(errs, fmt.Errorf("--proto: unknown protocol %q; there are line, json", f.proto))
	}
	p.spec.Local = f.cluster.local()
	if f.directory != "" && p.spec.Local {
		fault("--dir", checkDir(f.directory))
	}
	p.spec.Workers, err = jobs.ParseJobs(f.jobs, runtime.GOMAXPROCS(0), jobLimit())
	fault("--jobs", err)
	p.spec.Timeout, err = parseSeconds(f.timeout)
	fault("--timeout", err)
	p.spec.Grace, err = parseSeconds(f.grace)
	fault("--grace", err)
	if f.window < 1 || f.window > maxWindow {
		errs = append(errs, fmt.Errorf("--window is %d, want 1 to %d", f.window, maxWindow))
	}
	if f.lifespan < 0 {
		errs = append(errs, fmt.Errorf("--lifespan is %d, want at least 1, or 0 for no limit", f.lifespan))
	}
	if !slices.Contains(onDeaths, f.onDeath) {
		errs = append(errs, fmt.Errorf("--on-death: unknown way %q; there are %s", f.onDeath, strings.Join(onDeaths, ", ")))
	}
	p.spec.Session, p.spec.Dir, p.spec.Window, p.spec.Lifespan, p.spec.Deaths = rand.Text(), f.directory, f.window, f.lifespan, 1
	if f.onDeath == "retry" {
		p.spec.Deaths = maxDeaths
	}
	if !f.cluster.local() { // each process has one call at a time
		p.spec.Workers, p.spec.Window = 1, 1
	}
	return p, errors.Join(errs...)
}

const maxWindow = 1 << 16

func (p *recordPool) close() {
	for _, f := range p.files {
		f.Close()
	}
}

// run hands out all records. The error is nil, or a *failure.
func (p *recordPool) run(ctx context.Context) error {
	ctx, release := untilSignal(ctx, func() {})
	defer release()
	var ex multiproc.Executor
	var err error
	if p.flags.cluster.local() {
		ex = multiproc.NewThreads(multiproc.ThreadsConfig{Workers: p.spec.Workers * p.spec.Window})
	} else if ex, err = p.flags.cluster.dial(ctx, p.spec.Grace); err != nil {
		return &failure{code: codeOwn, err: err}
	}
	err = p.runOn(ctx, ex)
	if closeErr := shutdown(ex, p.spec.Grace); err == nil {
		err = closeErr
	}
	if endErr := crews.end(p.spec.Session); err == nil {
		err = endErr
	}
	var by stopped
	if errors.As(context.Cause(ctx), &by) {
		return &failure{code: codeOwn, err: fmt.Errorf("%w after %d records", by, p.failed+p.answered)}
	}
	if err != nil {
		return &failure{code: codeOwn, err: err}
	}
	if p.failed > 0 {
		return &failure{code: min(p.failed, 101)}
	}
	return nil
}

// runOn hands out all records on an executor.
func (p *recordPool) runOn(ctx context.Context, ex multiproc.Executor) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := newLineWriter(p.stdout)
	for r := range p.results(ctx, ex) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p.mu.Lock()
		text, known := p.pending[r.Index]
		delete(p.pending, r.Index)
		p.mu.Unlock()
		failed := r.Value.Failed
		switch {
		case errors.Is(r.Err, errWorker): // whose call it was is no news
			_, why, _ := strings.Cut(r.Err.Error(), errWorker.Error())
			return fmt.Errorf("%w%s", errWorker, why)
		case r.Err != nil && (!known || fatal(r.Err)):
			return r.Err
		case r.Err != nil:
			failed = r.Err.Error()
		}
		if failed == "" {
			p.answered++
			if err := out.line(r.Value.Line); err != nil {
				return fmt.Errorf("write answers: %w", err)
			}
			continue
		}
		p.failed++
		err := fmt.Errorf("record %d (%.60q): %s", r.Index+1, text, failed)
		if p.flags.onDeath == "fail" {
			return errors.Join(err, out.close())
		}
		fmt.Fprintf(p.stderr, "multiproc: %v\n", err)
	}
	if err := out.close(); err != nil {
		return fmt.Errorf("write answers: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken
}

// results yields the answers, in order if they are to be.
func (p *recordPool) results(ctx context.Context, ex multiproc.Executor) iter.Seq[multiproc.Result[answer]] {
	var opts []multiproc.StreamOption
	if p.flags.cluster.local() { // enough for each worker, while a slow one holds up the output
		opts = append(opts, multiproc.WithWindow(8*p.spec.Workers*p.spec.Window+256))
	}
	if !p.flags.keep {
		return poolRecord.StreamUnordered(ctx, ex, p.records(ctx), opts...)
	}
	return func(yield func(multiproc.Result[answer]) bool) {
		i := -1
		for out, err := range poolRecord.Stream(ctx, ex, p.records(ctx), opts...) {
			if i++; !yield(multiproc.Result[answer]{Index: i, Value: out, Err: err}) {
				return
			}
		}
	}
}

// records yields the records, until ctx ends.
func (p *recordPool) records(ctx context.Context) iter.Seq[record] {
	return func(yield func(record) bool) {
		fail := func(err error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.broken = err
		}
		index := 0
		lines := func(yield func([]string) bool) {
			for _, in := range p.inputs {
				for line := range in.All(fail) {
					if !yield(line) {
						return
					}
				}
			}
		}
		for line := range untilDone(ctx, lines) {
			p.mu.Lock()
			p.pending[index] = line[0]
			p.mu.Unlock()
			index++
			if !yield(record{Spec: &p.spec, Line: line[0]}) {
				return
			}
		}
	}
}

// lineWriter writes lines, and has none wait for long.
type lineWriter struct {
	w     io.Writer
	mu    sync.Mutex
	buf   []byte
	timer *time.Timer // nil: nothing waits
	err   error
}

// maxLineWait is how long a line waits for others, and maxLineBuffer how many bytes do.
const (
	maxLineWait   = 5 * time.Millisecond
	maxLineBuffer = 64 << 10
)

func newLineWriter(w io.Writer) *lineWriter { return &lineWriter{w: w} }

// line writes a line.
func (l *lineWriter) line(text string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(append(l.buf, text...), '\n')
	if len(l.buf) >= maxLineBuffer {
		l.flush()
	} else if l.timer == nil {
		l.timer = time.AfterFunc(maxLineWait, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.flush()
		})
	}
	return l.err
}

// flush writes what waits. l.mu is held.
func (l *lineWriter) flush() {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	if l.err == nil && len(l.buf) > 0 {
		_, l.err = l.w.Write(l.buf)
	}
	l.buf = l.buf[:0]
}

// close writes what waits.
func (l *lineWriter) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flush()
	return l.err
}

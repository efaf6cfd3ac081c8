package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/cmd/multiproc/internal/jobs"
	"github.com/seed84f35039/multiproc/internal/child"
)

// poolRecord has a worker answer a record: one of several on this machine, where it runs on Threads, or the one that
// the process has where it is a worker of an agent itself.
var poolRecord = multiproc.Register("multiproc.pool", func(ctx context.Context, r record) (answer, error) {
	if r.Spec == nil {
		return answer{}, errors.New("the record has no worker")
	}
	return crews.of(*r.Spec).ask(ctx, r.Line)
})

// record is a line for a worker.
type record struct {
	Spec *workerSpec
	Line string
}

// answer is what a worker has made of a record.
type answer struct {
	Line   string
	Failed string // why there is none
}

// workerSpec says what workers are like.
type workerSpec struct {
	Session        string // workers answer records of one session alone
	Argv           []string
	Proto          jobs.Protocol
	Local          bool // they are of the process that the command is
	Dir            string
	Workers        int           // how many there are in this process
	Window         int           // records that each has at a time
	Lifespan       int           // records until it is replaced; 0: no limit
	Deaths         int           // workers that a record may cost
	Timeout, Grace time.Duration // for a record; for a worker that is to end
}

// errWorker is the error of workers that cannot be used at all.
var errWorker = multiproc.RegisterError("multiproc.pool.worker", errors.New("the worker is of no use"))

// crews are the workers of this process. More than one session at a time is one too many: where another one comes, the
// former has ended.
var crews crewRoom

type crewRoom struct {
	mu  sync.Mutex
	now *crew
}

// of returns the workers of a session.
func (r *crewRoom) of(spec workerSpec) *crew {
	r.mu.Lock()
	former := r.now
	if former == nil || former.spec.Session != spec.Session {
		r.now = &crew{spec: spec}
	} else {
		former = nil
	}
	c := r.now
	r.mu.Unlock()
	if former != nil {
		former.end()
	}
	return c
}

// end ends the workers of a session.
func (r *crewRoom) end(session string) error {
	r.mu.Lock()
	c := r.now
	if c == nil || c.spec.Session != session {
		r.mu.Unlock()
		return nil
	}
	r.now = nil
	r.mu.Unlock()
	return c.end()
}

// crew is workers of one kind.
type crew struct {
	spec workerSpec

	mu      sync.Mutex
	workers []*lineWorker // that may be given records
	ending  sync.WaitGroup
	broken  error // why there are no more
	unasked error // a worker has written what it should not have
}

// ask has a worker answer a record. The error is that of ctx, or of workers that are of no use.
func (c *crew) ask(ctx context.Context, line string) (answer, error) {
	if err := c.spec.Proto.Check(line); err != nil {
		return answer{Failed: err.Error()}, nil
	}
	for deaths := 0; ; {
		q := &question{line: line, done: make(chan reply, 1)}
		w, err := c.give(q)
		if err != nil {
			return answer{}, err
		}
		var r reply
		select {
		case r = <-q.done:
		case <-ctx.Done():
			w.kill("")
			<-w.gone
			return answer{}, context.Cause(ctx)
		}
		switch {
		case r.died == nil:
			return r.answer, nil
		case r.innocent:
			continue
		}
		if deaths++; deaths >= c.spec.Deaths {
			return answer{Failed: r.died.Error()}, nil
		}
	}
}

// give gives a question to the worker with the least to do, which may be a new one.
func (c *crew) give(q *question) (*lineWorker, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return nil, c.broken
	}
	var best *lineWorker
	for _, w := range c.workers {
		if best == nil || w.open < best.open {
			best = w
		}
	}
	if best == nil || best.open > 0 && len(c.workers) < c.spec.Workers {
		w, err := c.hire()
		if err != nil {
			c.broken = fmt.Errorf("%w: %w", errWorker, err)
			return nil, c.broken
		}
		best = w
	}
	best.open++
	best.given++
	best.add(q)
	if c.spec.Lifespan > 0 && best.given >= c.spec.Lifespan {
		c.drop(best)
		best.retire()
	}
	return best, nil
}

// drop has a worker given no more. c.mu is held.
func (c *crew) drop(w *lineWorker) {
	if i := slices.Index(c.workers, w); i >= 0 {
		c.workers = slices.Delete(c.workers, i, i+1)
	}
}

// end lets all workers end, waits for them, and returns what was wrong with what they have written.
func (c *crew) end() error {
	c.mu.Lock()
	if c.broken == nil {
		c.broken = fmt.Errorf("%w: its session has ended", errWorker)
	}
	for _, w := range c.workers {
		w.retire()
	}
	c.workers = nil
	c.mu.Unlock()
	c.ending.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unasked
}

// question is a record that a worker is to answer.
type question struct {
	id   uint64 // of this worker, from 1 on
	line string
	done chan reply // gets one
}

// reply is what has become of a question.
type reply struct {
	answer   answer
	died     error // of the worker, or nil
	innocent bool  // it was not the question that the worker had before it
}

// lineWorker is a process that answers lines by lines, in order.
type lineWorker struct {
	crew  *crew
	child *child.Child
	stdin *os.File
	gone  chan struct{} // closed when it has ended
	news  chan struct{} // has an element when there is something to write

	// Guarded by crew.mu.
	open  int // questions without an answer
	given int // questions so far

	mu      sync.Mutex
	ids     uint64      // of questions so far
	asked   []*question // not answered, in the order in which they were asked
	unsent  []byte      // lines of them
	retired bool        // there are no more to come
	killed  bool
	why     string      // it was killed
	deaf    bool        // it has closed its standard input
	limit   *time.Timer // of the first in asked, or nil
}

// lastWords is how much of the end of a worker's standard error is looked at for its last line, in bytes.
const lastWords = 4 << 10

// hire starts a worker. c.mu is held.
func (c *crew) hire() (*lineWorker, error) {
	path, err := programs.find(c.spec.Argv[0])
	if err != nil {
		return nil, err
	}
	theirIn, stdin, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirIn.Close()
	stdout, theirOut, err := os.Pipe()
	if err != nil {
		stdin.Close()
		return nil, err
	}
	defer theirOut.Close()
	p, err := child.Start(child.Config{
		Path: path, Args: c.spec.Argv, Env: environment(c.spec.Local), Dir: c.spec.Dir, Stdin: theirIn, Stdout: theirOut, Stderr: os.Stderr,
		Tail: lastWords, Foreign: true,
	})
	if err != nil {
		stdin.Close()
		stdout.Close()
		return nil, blameDir(c.spec.Dir, err)
	}
	w := &lineWorker{crew: c, child: p, stdin: stdin, gone: make(chan struct{}), news: make(chan struct{}, 1)}
	c.workers = append(c.workers, w)
	c.ending.Go(func() { w.read(stdout) }) // ends with the worker
	go w.write()                           // likewise, or when all is written
	return w, nil
}

// add asks a question.
func (w *lineWorker) add(q *question) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ids++
	q.id = w.ids
	if w.asked = append(w.asked, q); len(w.asked) == 1 {
		w.watch()
	}
	w.unsent = w.crew.spec.Proto.AppendRecord(w.unsent, q.id, q.line)
	w.poke()
}

// poke has write look.
func (w *lineWorker) poke() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// watch limits the time for the first question. w.mu is held.
func (w *lineWorker) watch() {
	if w.limit != nil {
		w.limit.Stop()
		w.limit = nil
	}
	if w.crew.spec.Timeout == 0 || len(w.asked) == 0 {
		return
	}
	first := w.asked[0]
	w.limit = time.AfterFunc(w.crew.spec.Timeout, func() {
		w.mu.Lock()
		late := len(w.asked) > 0 && w.asked[0] == first
		w.mu.Unlock()
		if late {
			w.kill(fmt.Sprintf("it took longer than %v", w.crew.spec.Timeout))
		}
	})
}

// retire lets the worker end, when it has answered everything.
func (w *lineWorker) retire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.retired = true
	w.poke()
}

// kill ends the worker, by force if need be.
func (w *lineWorker) kill(why string) {
	w.mu.Lock()
	first := !w.killed
	if first {
		w.killed, w.why = true, why
	}
	w.mu.Unlock()
	if first {
		w.insist(0)
	}
}

// insist has the worker end: after a while it gets SIGTERM, and SIGKILL after the grace.
func (w *lineWorker) insist(while time.Duration) {
	go func() { // ends with the worker, or soon after it was killed
		for _, step := range []struct {
			after time.Duration
			sig   syscall.Signal
		}{{while, syscall.SIGTERM}, {w.crew.spec.Grace, syscall.SIGKILL}} {
			timer := time.NewTimer(step.after)
			select {
			case <-timer.C:
				w.child.Signal(step.sig)
			case <-w.gone:
				timer.Stop()
				return
			}
		}
	}()
}

// write writes questions, and closes standard input when there are no more.
func (w *lineWorker) write() {
	defer w.stdin.Close()
	var out []byte
	for {
		select {
		case <-w.news:
		case <-w.gone:
			return
		}
		w.mu.Lock()
		out, w.unsent = w.unsent, out[:0]
		last := w.retired
		w.mu.Unlock()
		if _, err := w.stdin.Write(out); err != nil {
			w.mu.Lock()
			w.deaf = true
			w.mu.Unlock()
			w.insist(deafGrace) // most likely it is about to end
			return
		}
		if last {
			w.mu.Lock()
			idle := len(w.asked) == 0
			w.mu.Unlock()
			if idle {
				w.insist(w.crew.spec.Grace)
			}
			return
		}
	}
}

// deafGrace is how long a worker may live on that has closed its standard input.
const deafGrace = time.Second

// read reads answers until there are no more, and buries the worker.
func (w *lineWorker) read(stdout io.ReadCloser) {
	defer stdout.Close()
	lines := bufio.NewReaderSize(stdout, 64<<10)
	for {
		line, err := readLine(lines)
		if err != nil {
			break
		}
		if !w.answered(line) {
			break
		}
	}
	ended := w.child.Reap()
	w.crew.mu.Lock()
	w.crew.drop(w)
	w.crew.mu.Unlock()
	w.mu.Lock()
	asked, why := w.asked, w.why
	if w.deaf && why == "" && (ended.Signal() == syscall.SIGTERM || ended.Signal() == syscall.SIGKILL) {
		why = "it had closed its standard input"
	}
	w.asked = nil
	w.watch()
	w.mu.Unlock()
	close(w.gone)
	for i, q := range asked {
		q.done <- reply{died: death(ended, why), innocent: i > 0}
	}
}

// readLine reads a line of any length, without its end.
func readLine(r *bufio.Reader) (string, error) {
	var line strings.Builder
	for {
		part, err := r.ReadSlice('\n')
		line.Write(part)
		switch {
		case err == nil:
			return strings.TrimSuffix(line.String(), "\n"), nil
		case err != bufio.ErrBufferFull:
			return "", err // an answer without an end is none
		}
	}
}

// answered takes a line, and reports whether it is an answer.
func (w *lineWorker) answered(line string) bool {
	w.mu.Lock()
	a, err := w.crew.spec.Proto.Parse(line)
	i := 0
	if err == nil && a.ID > 0 {
		i = slices.IndexFunc(w.asked, func(q *question) bool { return q.id == a.ID })
	}
	if err == nil && (i < 0 || i >= len(w.asked)) {
		err = fmt.Errorf("it wrote what nobody has asked for: %.60q", line)
	}
	if err != nil {
		if w.why == "" {
			w.why = err.Error()
		}
		unasked := len(w.asked) == 0
		w.mu.Unlock()
		if unasked { // nobody would hear of it otherwise
			w.crew.fail(fmt.Errorf("%w: %w", errWorker, err))
		}
		return false
	}
	q := w.asked[i]
	w.asked = slices.Delete(w.asked, i, i+1)
	if i == 0 {
		w.watch()
	}
	idle := w.retired && len(w.asked) == 0
	w.mu.Unlock()
	w.crew.mu.Lock()
	w.open--
	w.crew.mu.Unlock()
	q.done <- reply{answer: answer{Line: a.Text, Failed: a.Failed}}
	if idle {
		w.insist(w.crew.spec.Grace)
	}
	return true
}

// fail notes that workers write what they should not.
func (c *crew) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unasked = cmp.Or(c.unasked, err)
	c.broken = cmp.Or(c.broken, c.unasked)
}

// death says how a worker has ended.
func death(e child.Ended, why string) error {
	how := fmt.Sprintf("exit code %d", e.ExitCode())
	switch {
	case why != "":
		return fmt.Errorf("the worker was killed: %s", why)
	case e.Alive:
		return errors.New("the worker closed its standard output")
	case e.Err != nil:
		how = e.Err.Error()
	case e.Signal() != 0:
		how = fmt.Sprintf("signal %d (%v)", int(e.Signal()), e.Signal())
	}
	text := strings.TrimSpace(e.Tail)
	if i := strings.LastIndexByte(text, '\n'); i >= 0 {
		text = text[i+1:]
	}
	if text != "" {
		how += ": " + text
	}
	return fmt.Errorf("the worker died: %s", how)
}

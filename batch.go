package multiproc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed84f35039/multiproc/internal/handover"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// A Batch is a run of calls of one function that an [Executor] is handed. It is
// what an executor needs to know of them: programs that only make calls never meet
// it.
//
// The executor answers every call exactly once, in any order, with Run, Return,
// ReturnFailure or Fail. If it answers one again, as happens when calls are sent
// at least once, the first answer stands. Until a call is answered its argument
// can be had as often as needed; afterwards the executor must not ask for it.
//
// Calls that are no longer wanted need not be run, only answered: all of them when
// Context ends, single ones when Wanted says so.
//
// The methods may be called from several goroutines, for one call from one at a
// time; only Fail may cut in on a call at any time.
type Batch struct {
	ctx   context.Context
	name  string
	n     int
	first uint64 // number of call 0
	size  int    // calls to hand to a worker at a time; 0: the executor decides
	calls batchCalls

	// at is the worker that Submit handed calls to on the caller's goroutine, if all
	// answers will have come within about that time; otherwise nil.
	at     *worker
	within time.Duration

	agent string // see At
}

// batchCalls is what a batch knows about its calls beyond their number. Its one
// implementation knows their types.
type batchCalls interface {
	appendArgs(dst []byte, i, n, limit int, p *handover.Parcel) (out []byte, took int, tail wire.Tail, err error)
	run(ctx context.Context, i int)
	settle(i int, pid int, results [][]byte)
	settleWith(i int, pid int, result []byte, came *handover.Arrival)
	carries() bool
	fail(i int, err error)
	wanted(i int) bool
	info(i int, pid int) CallInfo
	onFailure(judge)
	key() string // how the keys of the calls begin; "": as in this process
}

// judge is what an executor makes of the error of call i: it may change the error, or take
// the call on again. Then the call is not answered.
type judge func(i int, err error) (verdict error, again bool)

// Func returns the name of the function.
func (b *Batch) Func() string { return b.name }

// Len returns the number of calls, which are numbered from 0.
func (b *Batch) Len() int { return b.n }

// Size returns how many calls the caller wants to be handed to a worker at a time,
// or 0 where the executor is to decide.
func (b *Batch) Size() int { return b.size }

// Context ends when the calls that have not been answered are no longer wanted.
// Functions get a context made from it.
func (b *Batch) Context() context.Context { return b.ctx }

// Wanted reports whether the answer of call i is still of interest.
func (b *Batch) Wanted(i int) bool { return b.calls.wanted(i) }

// Key returns the parts of call i's key, which is "<prefix>/<number>": see the function [Key].
// Calls of consecutive indices have consecutive numbers. The prefix has at most 255 bytes.
func (b *Batch) Key(i int) (prefix string, number uint64) {
	if prefix = b.calls.key(); prefix == "" {
		prefix = ownKey()
	}
	return prefix, b.first + uint64(i)
}

// Info returns the name and index by which the caller knows call i.
func (b *Batch) Info(i int, pid int) CallInfo {
	info := b.calls.info(i, pid)
	info.Agent = b.agent
	return info
}

// At returns the batch for answers that come from an agent of a cluster: their errors say so.
func (b *Batch) At(agent string) *Batch {
	c := *b
	c.agent = agent
	return &c
}

// AppendArgs appends the arguments of the n calls from i on to dst: for each its length
// in 4 bytes, little-endian, and its encoding. It returns how many it took, which are
// fewer when dst has grown beyond limit bytes, when a call is not wanted any more (the
// error is then ErrNotWanted), or when an argument cannot be encoded. The error concerns
// the first call that was not taken, and is the answer to give to it with Fail.
//
// A large argument is not copied. It is taken alone: then there is a tail, which goes on
// where the encoding in dst, without a length, ends. Its last byte is 1, or 0 if not all
// before could be read, because the caller does not want the call any more.
func (b *Batch) AppendArgs(dst []byte, i, n, limit int) (out []byte, took int, tail wire.Tail, err error) {
	return b.calls.appendArgs(dst, i, n, limit, nil)
}

// Run runs call i in this process, on this goroutine, and answers it. A panic in
// the function is an answer; when the function ends its goroutine with
// runtime.Goexit, the call is answered and Run does not return.
func (b *Batch) Run(ctx context.Context, i int) {
	b.calls.run(&callInBatch{&batchContext{ctx, b.calls.key(), b.first}, i}, i)
}

// Return answers the calls from i on, one for each result, with the encoded results
// that process pid made of them. A result of more than 64 KiB must not be written to any
// more, to the others nothing refers afterwards.
func (b *Batch) Return(i int, pid int, results ...[]byte) { b.calls.settle(i, pid, results) }

// ReturnFailure answers call i with the encoded failure (see internal/wire) that
// process pid reported.
func (b *Batch) ReturnFailure(i int, pid int, failure []byte) {
	b.calls.fail(i, b.failure(i, pid, failure))
}

// ReturnTimeout answers call i with a *TimeoutError: limit is what was exceeded, cpu whether that
// was a limit of CPU time. failure is what the function reported after its context had ended;
// nil where its process was killed.
func (b *Batch) ReturnTimeout(i, pid int, limit time.Duration, cpu bool, failure []byte) {
	var err error
	if failure != nil {
		err = b.failure(i, pid, failure)
	}
	b.calls.fail(i, (&exceeded{limit, cpu}).error(b.Info(i, pid), err))
}

// failure returns the error that an encoded failure stands for.
func (b *Batch) failure(i int, pid int, failure []byte) error {
	if _, raw := b.calls.(*rawCalls); raw {
		return &RawFailure{pid, bytes.Clone(failure)}
	}
	f, err := wire.DecodeFailure(failure)
	if err != nil {
		return &located{b.Info(i, pid), fmt.Errorf("%w: %w", ErrEncoding, err)}
	}
	return errorFrom(b.Info(i, pid), f, nil)
}

// Fail answers call i with an error of the executor's. A *CrashError is told which
// call it belongs to; other errors are wrapped in one that says so.
func (b *Batch) Fail(i int, pid int, err error) {
	if crash, ok := err.(*CrashError); ok {
		own := *crash // each call has an error value of its own
		own.CallInfo = b.Info(i, pid)
		b.calls.fail(i, &own)
		return
	}
	b.calls.fail(i, &located{b.Info(i, pid), err})
}

// ErrNotWanted is what [Batch.AppendArgs] returns for a call that need not run.
var ErrNotWanted = errors.New("the call is not wanted any more")

// collector takes the answers of calls. The first one for an index counts.
type collector[Out any] interface {
	deliver(i int, outs []Out) // of the calls from i on; they belong to the caller
	deliverOne(i int, out Out) // the same for one, which has to be kept nowhere
	fail(i int, err error)
	wanted(i int) bool // costs little
}

// typedCalls are calls of one Func with their inputs.
type typedCalls[In, Out any] struct {
	f     *Func[In, Out]
	ctx   context.Context // the batch's
	in    []In
	gate  *gate
	first int // index of in[0] in the caller's input, or -1 for a call that has none
	to    collector[Out]

	// answered is there where in belongs to the batch: inputs that are done with
	// are forgotten, so that they do not live as long as the slowest of the batch.
	answered []atomic.Bool

	judge judge // nil: every error is an answer
}

func (c *typedCalls[In, Out]) index(i int) int { return max(c.first, 0) + i }

func (c *typedCalls[In, Out]) info(i int, pid int) CallInfo {
	if c.first < 0 {
		return CallInfo{Func: c.f.name, Index: -1, PID: pid}
	}
	return CallInfo{Func: c.f.name, Index: c.index(i), PID: pid}
}

func (c *typedCalls[In, Out]) wanted(i int) bool { return c.to.wanted(c.index(i)) }

func (c *typedCalls[In, Out]) appendArgs(dst []byte, i, n, limit int, p *handover.Parcel) (out []byte, took int, tail wire.Tail, err error) {
	if !c.gate.enter() {
		return dst, 0, nil, ErrNotWanted
	}
	defer c.gate.leave()
	// Many at a time while that is possible. If the last is wanted, all are.
	for run := argRun; run == argRun && took < n && len(dst) <= limit && c.wanted(i+min(took+run, n)-1); {
		in := c.in[i+took : i+min(took+run, n)]
		dst, run = wire.AppendRun(dst, &in)
		took += run
	}
	for ; took < n && (took == 0 || len(dst) <= limit); took++ {
		if !c.wanted(i + took) {
			return dst, took, nil, ErrNotWanted
		}
		start := len(dst)
		out, raw, err := encodeSplit(wire.BeginArg(dst), &c.in[i+took], c.f.in, "argument", p)
		switch {
		case took > 0 && errors.Is(err, handover.ErrFull):
			return dst, took, nil, nil // another frame has room
		case err != nil:
		case raw != nil && took > 0:
			return dst, took, nil, nil
		case raw != nil:
			return wire.NoLength(out, start), 1, &argTail{raw: raw, gate: c.gate}, nil
		default:
			err = wire.EndArg(out, start)
		}
		if err != nil {
			return dst, took, nil, err
		}
		dst = out
	}
	return dst, took, nil, nil
}

func (c *typedCalls[In, Out]) run(ctx context.Context, i int) {
	var out Out
	var cause error
	failure := &wire.Failure{Cause: wire.CausePanic, Type: "nil", Message: goexit}
	defer func() { // deferred, as the function may end its goroutine
		if failure != nil {
			c.fail(i, errorFrom(c.info(i, 0), *failure, cause))
		} else {
			if c.judge != nil {
				c.forget(i)
			}
			if c.unanswered(i) {
				c.to.deliverOne(c.index(i), out)
			}
		}
	}()
	if !c.gate.enter() {
		cause = errLeft
		failure.Message = errLeft.Error()
		return
	}
	in := c.in[i]
	var lent []*handover.Handle
	if c.f.out.memory.Any() {
		lent = c.f.lent(in)
	}
	if c.judge == nil { // otherwise it may be needed again
		c.forget(i)
	}
	c.gate.leave()
	out, failure, cause = c.f.protect(ctx, in)
	if failure == nil && c.f.out.memory.Any() {
		c.f.pass(out, lent)
	}
}

func (c *typedCalls[In, Out]) settle(i int, pid int, results [][]byte) {
	outs := make([]Out, len(results))
	for k := 0; k < len(results); {
		first := k
		rest := outs[k:]
		k += wire.DecodeRun(results[k:], &rest)
		for f := first; f < k; f++ {
			c.forget(i + f)
		}
		var err error
		for ; k < len(results) && err == nil; k++ {
			if err = c.f.out.decode(results[k], &outs[k], nil); err == nil {
				c.forget(i + k)
			}
		}
		good := k
		if err != nil {
			good--
		}
		if good > first {
			c.deliver(i+first, outs[first:good])
		}
		if err != nil {
			c.fail(i+good, &located{c.info(i+good, pid), fmt.Errorf("%w: decode result: %w", ErrEncoding, err)})
		}
	}
}

// settleWith is settle for a result with which shared memory came.
func (c *typedCalls[In, Out]) settleWith(i int, pid int, result []byte, came *handover.Arrival) {
	outs := make([]Out, 1)
	err := c.f.out.decode(result, &outs[0], came)
	came.Done(1) // before the caller hears of it
	if err != nil {
		c.fail(i, &located{c.info(i, pid), fmt.Errorf("%w: decode result: %w", ErrEncoding, err)})
		return
	}
	c.forget(i)
	c.deliver(i, outs)
}

func (c *typedCalls[In, Out]) onFailure(j judge) { c.judge = j }

func (c *typedCalls[In, Out]) key() string { return "" }

func (c *typedCalls[In, Out]) carries() bool { return c.f.carries() }

func (c *typedCalls[In, Out]) fail(i int, err error) {
	if c.ctx.Err() != nil {
		// The call may have failed for that, and the caller wants to know why.
		err = &located{c.info(i, 0), canceled(c.ctx)}
	} else if c.judge != nil {
		verdict, again := c.judge(i, err)
		if again {
			return
		}
		err = verdict
	}
	if c.unanswered(i) {
		c.to.fail(c.index(i), err)
	}
}

// deliver passes results on, but for those of calls that are answered already.
func (c *typedCalls[In, Out]) deliver(i int, outs []Out) {
	for len(outs) > 0 {
		n := 0
		for n < len(outs) && c.unanswered(i+n) {
			n++
		}
		if n > 0 {
			c.to.deliver(c.index(i), outs[:n])
		}
		n = min(n+1, len(outs)) // the next one was answered
		i, outs = i+n, outs[n:]
	}
}

// unanswered reports whether no answer to call i has come before.
func (c *typedCalls[In, Out]) unanswered(i int) bool {
	return c.answered == nil || c.answered[i].CompareAndSwap(false, true)
}

// argRun is how many arguments are encoded between looks at whether they are wanted.
const argRun = 64

// argTail is the end of a large argument, and a byte that says whether it is complete.
type argTail struct {
	raw  []byte
	gate *gate
	left bool // the caller has left, and raw is not read any more
}

func (t *argTail) Size() int64 { return int64(len(t.raw)) + 1 }

// ReadAt implements io.ReaderAt, from the front to the end.
func (t *argTail) ReadAt(p []byte, off int64) (n int, err error) {
	if off < int64(len(t.raw)) {
		n = min(len(p), len(t.raw)-int(off))
		if t.left = t.left || !t.gate.enter(); t.left {
			clear(p[:n])
		} else {
			copy(p, t.raw[off:])
			t.gate.leave()
		}
		return n, nil
	}
	if p[0] = 1; t.left {
		p[0] = 0
	}
	return 1, io.EOF
}

// errLeft is what calls are told whose caller has left; nobody reads it.
var errLeft = errors.New("the caller has left")

// gate keeps executors from reading inputs after the caller has left with them.
type gate struct {
	mu     sync.RWMutex // held for reading while an input is read
	closed bool
}

// enter reports whether inputs may be read; if so, leave must follow.
func (g *gate) enter() bool {
	g.mu.RLock()
	if g.closed {
		g.mu.RUnlock()
		return false
	}
	return true
}

func (g *gate) leave() { g.mu.RUnlock() }

// close waits until nobody reads, and lets nobody in any more.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

func (c *typedCalls[In, Out]) forget(i int) {
	if c.answered != nil {
		var zero In
		c.in[i] = zero
	}
}

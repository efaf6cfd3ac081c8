package multiproc

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/seed84f35039/multiproc/internal/handover"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// RawCalls are calls for [NewRawBatch].
type RawCalls struct {
	// Func is the name of the function.
	Func string

	// Args are the encoded arguments, one for each call, as [Batch.AppendArgs] makes them, without
	// their lengths.
	Args [][]byte

	// Size is as for [WithBatch]; 0 means that the executor decides.
	Size int

	// Key and First are what [Batch.Key] says of the first call where the calls come from: call i gets the key
	// "<Key>/<First+i>". A Key of more than 255 bytes is the error of each call. An empty one
	// means new keys, as other calls of this process have them.
	Key   string
	First uint64 // see Key

	// Return gets the encoded results of calls one after the other, from call i on, that process pid made of
	// them. They are valid until it returns. Fail gets the error of a call that has no result. That is a [*RawFailure] where the
	// function, or its worker for it, has reported one, and may be wrapped in a *TimeoutError; otherwise what
	// becomes of calls by themselves, such as a *CrashError. Each call is answered once, by the one or the other; both may be called
	// from several goroutines at once and must not block.
	Return func(i, pid int, results [][]byte)
	Fail   func(i int, err error)
}

// NewRawBatch returns calls for those who pass on what others have encoded, as an agent of a
// cluster does, and know no types. The batch is for [Executor].Submit of executors whose workers
// are processes.
func NewRawBatch(ctx context.Context, calls RawCalls) *Batch {
	c := &rawCalls{ctx: ctx, RawCalls: calls, answered: make([]atomic.Bool, len(calls.Args))}
	b := &Batch{ctx: ctx, name: calls.Func, n: len(calls.Args), first: calls.First, size: calls.Size, calls: c}
	if calls.Key == "" {
		b.first = numbers(b.n)
	}
	return b
}

// Encode returns what a setup calls, for those who pass it on to another process: the name of the function, and
// its argument, encoded. An argument with shared memory is an error, as that cannot leave the machine.
func (s *Setup) Encode() (function string, arg []byte, err error) {
	if s.encode == nil {
		return "", nil, errors.New("make it with the method With of a registered function")
	}
	var parcel handover.Parcel
	defer parcel.Release()
	arg, err = s.encode(nil, &parcel)
	if err == nil && !parcel.Empty() {
		err = errMemoryLeaves
	}
	return s.name, arg, err
}

// NewRawSetup returns the setup that [Setup.Encode] has been asked of.
func NewRawSetup(function string, arg []byte) *Setup {
	return &Setup{name: function, encode: func(dst []byte, _ *handover.Parcel) ([]byte, error) { return append(dst, arg...), nil }}
}

// RawFailure is what a worker has reported of a call of [NewRawBatch], as it came: for
// [Batch.ReturnFailure].
type RawFailure struct {
	PID     int // process that ran the call
	Failure []byte
}

// Error returns the message of the failure.
func (e *RawFailure) Error() string {
	f, err := wire.DecodeFailure(e.Failure)
	if err != nil {
		return err.Error()
	}
	return f.Message
}

// errMemoryLeaves is the error of a result with shared memory that would have to leave the machine.
var errMemoryLeaves = errors.New("shared memory cannot leave the machine")

// errLongKey is the error of calls whose key no worker takes.
var errLongKey = fmt.Errorf("the key has more than %d bytes", wire.MaxKey)

// rawCalls are calls without types.
type rawCalls struct {
	RawCalls
	ctx      context.Context
	answered []atomic.Bool
	judge    judge // nil: every error is an answer
}

// rawTail is from how many bytes on an argument is sent by itself.
const rawTail = 64 << 10

func (c *rawCalls) appendArgs(dst []byte, i, n, limit int, _ *handover.Parcel) (out []byte, took int, tail wire.Tail, err error) {
	if len(c.Key) > wire.MaxKey {
		return dst, 0, nil, errLongKey
	}
	for ; took < n && (took == 0 || len(dst) <= limit); took++ {
		arg := c.Args[i+took]
		if !c.wanted(i + took) {
			return dst, took, nil, ErrNotWanted
		}
		start := len(dst)
		if len(arg) >= rawTail {
			if took > 0 {
				return dst, took, nil, nil
			}
			return wire.NoLength(wire.BeginArg(dst), start), 1, &argTail{raw: arg, gate: &gate{}}, nil
		}
		out := append(wire.BeginArg(dst), arg...)
		if err := wire.EndArg(out, start); err != nil {
			return dst, took, nil, err
		}
		dst = out
	}
	return dst, took, nil, nil
}

// run is for executors without processes, which have no use for what is encoded.
func (c *rawCalls) run(_ context.Context, i int) { c.fail(i, ErrUnknownFunc) }

func (c *rawCalls) settle(i, pid int, results [][]byte) {
	for k := 0; k < len(results); k++ {
		from := k
		for k < len(results) && c.answered[i+k].CompareAndSwap(false, true) {
			k++
		}
		if k > from {
			c.Return(i+from, pid, results[from:k])
		}
	}
}

// settleWith refuses shared memory, which cannot leave this machine.
func (c *rawCalls) settleWith(i, pid int, _ []byte, came *handover.Arrival) {
	came.Done(1)
	c.fail(i, &located{c.info(i, pid), errMemoryLeaves})
}

func (c *rawCalls) fail(i int, err error) {
	if c.judge != nil && c.ctx.Err() == nil {
		verdict, again := c.judge(i, err)
		if again {
			return
		}
		err = verdict
	}
	if c.answered[i].CompareAndSwap(false, true) {
		c.Fail(i, err)
	}
}

func (c *rawCalls) wanted(i int) bool { return c.ctx.Err() == nil && !c.answered[i].Load() }

func (c *rawCalls) info(i, pid int) CallInfo { return CallInfo{Func: c.Func, Index: i, PID: pid} }

func (c *rawCalls) onFailure(j judge) { c.judge = j }

func (c *rawCalls) key() string { return c.Key }

func (c *rawCalls) carries() bool { return false }

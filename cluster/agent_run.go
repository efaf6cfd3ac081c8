package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// failAll answers all calls of a chunk with an error of the agent's.
func (a *agent) failAll(ctx context.Context, c *chunk, m delivery, err error) {
	if ctx.Err() != nil {
		a.giveUp(ctx, c, m)
		return
	}
	var buf []byte
	for i := range c.N {
		buf = appendAnswer(buf, answer{i, 0, isError, [][]byte{[]byte(err.Error())}})
	}
	a.say(ctx, c, m, &outcome{Answers: buf}, true)
}

// giveUp is the end of a chunk whose context has ended: nobody wants it, or another agent is to
// run it.
func (a *agent) giveUp(ctx context.Context, c *chunk, m delivery) {
	if !errors.Is(context.Cause(ctx), errWithdrawn) {
		a.giveBack(c, m, nil, 0)
		return
	}
	ctx, cancel := context.WithTimeout(a.ctx, leaseTTL) // where there is nobody any more who makes the stream, others drop the chunk
	defer cancel()
	if !a.tell(ctx, c, m, &outcome{Withdrawn: true}, true) {
		m.back(pause)
	}
}

// returnTime is how long an agent that ends tries to tell submitters what it gives back.
const returnTime = time.Second

// giveBack has another agent run what is left of a chunk after some answers, which took so long. The submitter sends it
// again: what the engine would hand out once more counts as having been lost with an agent.
func (a *agent) giveBack(c *chunk, m delivery, answers []byte, ran time.Duration) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), returnTime)
	defer cancel()
	o := &outcome{Answers: answers, Ran: ran, Returned: true}
	if a.send(ctx, c, o) != nil {
		a.litter(c, o)
		m.back(0)
		return
	}
	m.ack()
}

// litter removes the object of an outcome that is not sent.
func (a *agent) litter(c *chunk, o *outcome) {
	if o.Blob != "" {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), returnTime)
		defer cancel()
		a.link.dropBlob(ctx, c.Job, o.Blob)
	}
}

// flushEvery is how long an answer waits for those to the other calls of its chunk, unless the submitter has so many slots
// that it wants fewer messages.
const flushEvery = 100 * time.Millisecond

// run runs the calls of a chunk and tells what has become of them.
func (a *agent) run(ctx context.Context, c *chunk, m delivery, pool workers, args [][]byte) {
	began := time.Now()
	var mu sync.Mutex
	buf := make([]byte, 0, min(len(c.Args)+8*c.N, maxOutcome)) // as if results were as large as arguments
	left, lost := c.N, 0
	over, full := make(chan struct{}), make(chan struct{}, 1)
	var settled atomic.Bool // when over is closed
	size := c.Size
	if size == 0 {
		size = c.N
	}
	note := func(n int, how func()) {
		mu.Lock()
		defer mu.Unlock()
		how()
		if left -= n; left == 0 {
			settled.Store(true)
			close(over)
		} else if len(buf) > maxOutcome {
			select {
			case full <- struct{}{}:
			default:
			}
		}
	}
	b := multiproc.NewRawBatch(ctx, multiproc.RawCalls{
		Func: c.Func, Args: args, Size: size, Key: c.Key, First: c.First,
		Return: func(i, pid int, results [][]byte) {
			note(len(results), func() { buf = appendAnswer(buf, answer{i, pid, isResult, results}) })
		},
		Fail: func(i int, err error) {
			note(1, func() {
				if errors.Is(err, multiproc.ErrClosed) || ctx.Err() != nil {
					lost++
				} else {
					buf = appendAnswer(buf, failure(i, err))
				}
			})
		},
	})
	if err := pool.Submit(b); err != nil {
		if errors.Is(err, multiproc.ErrClosed) {
			a.giveBack(c, m, nil, 0)
			return
		}
		a.failAll(ctx, c, m, err)
		return
	}
	b.Attend(&settled)
	var tick <-chan time.Time
	if c.N > 1 {
		ticker := time.NewTicker(max(flushEvery, c.Flush))
		defer ticker.Stop()
		tick = ticker.C
	}
	for last := false; !last; {
		select {
		case <-over: // bounded: calls whose context has ended are killed
			last = true
		case <-full:
		case <-tick:
		}
		if !last && ctx.Err() != nil {
			<-over // likewise
			last = true
		}
		mu.Lock()
		answers := buf
		buf = nil
		mu.Unlock()
		if last {
			a.note(time.Since(began))
		}
		switch {
		case last && errors.Is(context.Cause(ctx), errWithdrawn):
			a.giveUp(ctx, c, m)
			return
		case last && (lost > 0 || ctx.Err() != nil):
			a.giveBack(c, m, answers, a.work(c, time.Since(began)))
			return
		case last || len(answers) > 0:
			a.say(ctx, c, m, &outcome{Answers: answers, Ran: a.work(c, time.Since(began))}, last)
		}
	}
}

// note notes how long a chunk has taken.
func (a *agent) note(ran time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ran > a.pace { // those that end first are the short ones
		a.pace = ran
	} else {
		a.pace = max(1, a.pace+(ran-a.pace)/8)
	}
}

// work returns how long one worker would have taken for what has taken so long: each chunk has the slots for itself that
// others leave it.
func (a *agent) work(c *chunk, took time.Duration) time.Duration {
	if c.Size == 0 || c.Size >= c.N {
		return took
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return took * time.Duration(max(1, min((c.N+c.Size-1)/c.Size, a.slots/max(1, a.slots-a.vacant))))
}

// failure returns what is told of a call that has no result.
func failure(i int, err error) answer {
	a := answer{i: i}
	raw, isRaw := errors.AsType[*multiproc.RawFailure](err)
	var x any
	if e, ok := errors.AsType[*multiproc.TimeoutError](err); ok {
		a.kind, a.pid = isTimeout, e.PID
		t := &timeout{Limit: e.Limit, CPU: e.CPU, Hard: e.Hard}
		if isRaw {
			t.Failure = raw.Failure
		}
		x = t
	} else if e, ok := errors.AsType[*multiproc.CrashError](err); ok {
		a.kind, a.pid = isCrash, e.PID
		x = &crash{int(e.Signal), e.ExitCode, e.OutOfMemory, e.Reason, e.Stderr, e.Crashes}
	} else if isRaw {
		a.kind, a.pid, a.bodies = isFailure, raw.PID, [][]byte{raw.Failure}
		return a
	}
	if x != nil {
		if body, err := wire.Encode(nil, x); err == nil {
			a.bodies = [][]byte{body}
			return a
		}
	}
	a.kind, a.bodies = isError, [][]byte{[]byte(err.Error())}
	return a
}

// say sends what has become of calls. When the server has got the last of it, the chunk is
// over.
func (a *agent) say(ctx context.Context, c *chunk, m delivery, o *outcome, last bool) {
	if !a.tell(ctx, c, m, o, last) {
		a.giveUp(ctx, c, m)
	}
}

// tell is say, but it reports whether that was possible before ctx, or the link, ended.
func (a *agent) tell(ctx context.Context, c *chunk, m delivery, o *outcome, last bool) bool {
	for ctx.Err() == nil && a.link.life().Err() == nil {
		if a.send(ctx, c, o) == nil {
			if last {
				m.ack()
			}
			return true
		}
		sleep(ctx, pause) // no room, or no server: the chunk is held until there is
	}
	a.litter(c, o)
	return false
}

// errRefused is why calls end whose chunk has been refused.
var errRefused = errors.New("the agent has refused it")

// send sends an outcome of a chunk, with its answers in an object if they are large. After an error it may be called again.
func (a *agent) send(ctx context.Context, c *chunk, o *outcome) error {
	o.Chunk, o.Agent, o.From = c.ID, a.cfg.Name, a.id
	if len(o.Answers) > maxOutcome+maxOutcome/2 {
		o.Blob, o.BlobLen = c.Job+"."+rand.Text(), int64(len(o.Answers))
		err := a.link.putBlob(ctx, c.Job, o.Blob, o.Answers)
		if denied, ok := errors.AsType[*PermissionError](err); ok { // others may have rights to it
			o.Refused, o.Blob, o.BlobLen = denied.Error(), "", 0
		} else if err != nil {
			return err
		}
		o.Answers = nil
	}
	data, err := encodeOutcome(o)
	if err != nil {
		return err
	}
	err = a.link.answer(ctx, c.Job, data)
	if err == nil && o.Refused != "" { // also what of it runs already
		a.mu.Lock()
		defer a.mu.Unlock()
		a.drop(c.Job, errRefused, func(id uint64, _ *held) bool { return id == c.ID })
	}
	return err
}

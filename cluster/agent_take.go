package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/seed84f35039/multiproc"
)

// maxPull is how many chunks are asked for at a time: they have 48 MiB at most, and a server closes connections that do not
// take 64 MiB.
const maxPull = 128

// pull takes chunks, no more than the agent can run soon.
func (a *agent) pull() {
	defer close(a.pulled)
	for a.pulling.Err() == nil {
		a.mu.Lock()
		want := min(a.slots+a.prefetch()-a.having, maxPull)
		a.mu.Unlock()
		if want <= 0 {
			select {
			case <-a.free:
			case <-a.pulling.Done():
			}
			continue
		}
		err := a.link.pull(a.pulling, want, func(d delivery) {
			turn := a.queueUp()
			a.going.Go(func() { a.take(d, turn) }) // ends with the chunk, or the agent
		})
		if err != nil {
			sleep(a.pulling, pause)
		}
	}
}

// prefetchTime is how long chunks wait at an agent for a slot, about, so that a slot has not to wait for the next.
const prefetchTime = 100 * time.Millisecond

// prefetch returns how many chunks are asked for beyond those that have slots: none where they take long, as other agents
// may have slots for them sooner. a.mu is held.
func (a *agent) prefetch() int {
	if a.pace == 0 {
		return 0
	}
	return int(min(int64(a.slots), int64(a.slots)*int64(prefetchTime)/int64(a.pace)))
}

// maxDeliveries is how often a chunk is handed out as any other. One that was lost with so many agents may be what ends them:
// an agent tells the submitter before it runs it, and runs no other such chunk beside it, so that it is known which
// of them ended the agent.
const maxDeliveries = 2

// queueUp returns what is closed when the next chunk has a slot.
func (a *agent) queueUp() (turn chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.having++
	turn = make(chan struct{})
	a.line = append(a.line, turn)
	a.letIn()
	return turn
}

// leave gives a slot back, or the place in the line.
func (a *agent) leave(turn chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.having--
	select {
	case a.free <- struct{}{}:
	default:
	}
	if at := slices.Index(a.line, turn); at >= 0 {
		a.line = slices.Delete(a.line, at, at+1)
		return
	}
	a.vacant++
	a.letIn()
}

// letIn gives slots to those who are first. a.mu is held.
func (a *agent) letIn() {
	for ; a.vacant > 0 && len(a.line) > 0; a.vacant-- {
		close(a.line[0])
		a.line = a.line[1:]
	}
}

// maxEarly is how many bytes of arguments are fetched from objects for chunks that have no slot yet.
const maxEarly = 256 << 20

// fetchEarly reports whether arguments of so many bytes may be fetched before there is a slot for them. fetched is to be called
// when there is one, or they are not needed any more.
func (a *agent) fetchEarly(size int64) (fetched func(), may bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if size > a.early {
		return func() {}, false
	}
	a.early -= size
	return sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.early += size
	}), true
}

// await waits until a chunk has a slot, and reports whether that was before ctx ended, or the agent took no more.
func (a *agent) await(ctx context.Context, turn <-chan struct{}) bool {
	select {
	case <-turn:
		return true
	default:
	}
	select {
	case <-turn:
		return true
	case <-a.pulling.Done():
	case <-ctx.Done():
	}
	return false
}

// refuse has another agent run a chunk, if there is one that does.
func (a *agent) refuse(ctx context.Context, c *chunk, m delivery, err error) {
	if a.refusesFirst(c.Job, err.Error()) {
		a.cfg.Logger.Warn("refused calls", "job", c.Job, "function", c.Func, "error", err)
	}
	a.say(ctx, c, m, &outcome{Refused: err.Error()}, true)
	sleep(a.pulling, pause) // in its place, so that others get what this one would have refused
}

// take runs a chunk.
func (a *agent) take(m delivery, turn chan struct{}) {
	defer a.leave(turn)
	c, err := decodeChunk(m.data())
	if err != nil {
		m.drop("not a chunk: " + err.Error())
		return
	}
	if job, id, ok := m.task(); !ok || job != c.Job || id != c.ID { // who may not submit as this user
		m.drop("it says that it is of another job than it was sent for")
		return
	}
	ctx, cancel := context.WithCancelCause(a.ctx)
	defer cancel(nil)
	at := place{c.Job, c.ID}
	a.mu.Lock()
	if _, twice := a.held[at]; twice {
		a.mu.Unlock()
		m.back(ackWait / 4) // it was given to this agent once more, which is at it
		return
	}
	a.held[at] = &held{msg: m, cancel: cancel, said: time.Now()}
	var terms *lease
	if known := a.jobs[c.Job]; known != nil {
		terms = known.lease
		if within(known.unwanted, c.ID) {
			cancel(errWithdrawn)
		} else if known.stopped {
			cancel(errStopped)
		}
	}
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.held, at)
		a.done++
		a.mu.Unlock()
	}()
	if ctx.Err() != nil {
		a.giveUp(ctx, &c, m)
		return
	}
	if terms == nil { // or the news of it has not come yet
		data, err := a.link.lease(ctx, c.Job)
		if errors.Is(err, errNoLease) {
			m.drop(err.Error())
			return
		}
		if errors.Is(err, errNoLeaseYet) {
			m.back(beatEvery)
			return
		}
		if err != nil {
			m.back(pause)
			return
		}
		l, err := decodeLease(data)
		if err != nil {
			a.refuse(ctx, &c, m, err)
			return
		}
		terms = &l
	}
	pool, done, err := a.poolOf(ctx, &c, terms)
	switch {
	case err != nil && ctx.Err() != nil:
		a.giveUp(ctx, &c, m)
		return
	case errors.Is(err, multiproc.ErrClosed): // the agent ends
		a.giveBack(&c, m, nil, 0)
		return
	case err != nil:
		a.refuse(ctx, &c, m, err)
		return
	}
	defer done()
	args, fetched := c.Args, func() {}
	if c.Blob != "" {
		var early bool
		if fetched, early = a.fetchEarly(c.BlobLen); !early && !a.await(ctx, turn) {
			a.giveUp(ctx, &c, m)
			return
		}
		defer fetched()
		err = persist(ctx, c.BlobLen, func() (err error) {
			args, err = a.link.getBlob(ctx, c.Job, c.Blob, c.BlobLen)
			return err
		})
		if errors.Is(err, errNoBlob) {
			a.say(ctx, &c, m, &outcome{Lost: true}, true)
			return
		} else if denied, ok := errors.AsType[*PermissionError](err); ok {
			a.refuse(ctx, &c, m, denied)
			return
		} else if err != nil {
			a.failAll(ctx, &c, m, fmt.Errorf("fetch the arguments: %w", err))
			return
		}
	}
	each, err := splitArgs(args, c.N)
	if err != nil {
		a.failAll(ctx, &c, m, err)
		return
	}
	if !a.await(ctx, turn) {
		a.giveUp(ctx, &c, m)
		return
	}
	fetched()
	if m.deliveries() > maxDeliveries {
		select {
		case a.suspect <- struct{}{}:
			defer func() { <-a.suspect }()
		case <-a.pulling.Done():
			a.giveUp(ctx, &c, m)
			return
		case <-ctx.Done():
			a.giveUp(ctx, &c, m)
			return
		}
		a.tell(ctx, &c, m, &outcome{Begun: true}, false) // fails when ctx has ended, as begin does
	}
	if !a.begin(ctx, at) {
		a.giveUp(ctx, &c, m)
		return
	}
	a.run(ctx, &c, m, pool, each)
}

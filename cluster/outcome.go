package cluster

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// maxBegun is how often a chunk that was lost with agents is begun by others before it is taken to be what ends them.
const maxBegun = 2

// onOutcome takes a message of results.
func (c *Cluster) onOutcome(data []byte) {
	o, err := decodeOutcome(c.job, data)
	if err != nil {
		return // it is nothing that an agent has sent; look notices if something is missing
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := c.chunks[o.Chunk]
	switch {
	case ch == nil || c.ctx.Err() != nil:
		c.discard(o.Blob) // it is answered, or not wanted any more
	case ch.busy():
		ch.later = append(ch.later, o) // in its turn
	default:
		c.heed(ch, &o)
	}
}

// heed does what an outcome says of a chunk. c.mu is held, but not all the time.
func (c *Cluster) heed(ch *sent, o *outcome) {
	ch.at, ch.missing = time.Now(), false
	switch {
	case o.Withdrawn:
		c.ended(o.Chunk)
		return
	case o.Returned && len(o.Answers) == 0 && o.Blob == "":
		c.returned(o.Chunk, ch)
		return
	case o.Lost:
		c.retry(o.Chunk, fmt.Errorf("agent %s: fetch the arguments: %w", o.Agent, errNoBlob))
		return
	case o.Refused != "":
		c.refused(o.Chunk, ch, o)
		return
	case o.Running:
		ch.running = o.From
		return
	case o.Begun:
		if ch.begun == nil {
			ch.begun = map[string]bool{}
		}
		if ch.begun[o.From] = true; len(ch.begun) > maxBegun && ch.unwanted == nil {
			ch.unwant(ErrPoison)
			c.withdraw([]uint64{o.Chunk})
		}
		return
	}
	if o.Blob == "" {
		c.answered(o.Chunk, ch, o, o.Answers)
		return
	}
	if ch.fetched[o.Blob] {
		return // it was told twice
	}
	if ch.fetched == nil {
		ch.fetched = map[string]bool{}
	}
	ch.fetched[o.Blob], ch.fetching = true, true
	c.fetchers.Go(func() { c.fetch(ch, o) }) // ends with the transfer, which is bounded; results of other chunks do not wait for it
}

// maxFetches is how many objects with answers are fetched at a time.
const maxFetches = 4

// fetch takes the answers of an outcome that are in an object, and then heeds what has come of that chunk meanwhile.
func (c *Cluster) fetch(ch *sent, o *outcome) {
	select {
	case c.fetches <- struct{}{}:
		defer func() { <-c.fetches }()
	case <-c.ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.chunks[o.Chunk] == ch && c.ctx.Err() == nil {
		var answers []byte
		var err error
		c.unlocked(func() {
			err = persist(c.ctx, o.BlobLen, func() (err error) {
				answers, err = c.link.getBlob(c.ctx, c.job, o.Blob, o.BlobLen)
				return err
			})
		})
		for i := 0; err != nil && i < len(ch.later); i++ { // what has come meanwhile is not to be run again
			if next := ch.later[i]; c.chunks[o.Chunk] == ch && next.Blob == "" && len(next.Answers) > 0 {
				next.Returned = false
				c.answered(o.Chunk, ch, &next, next.Answers)
			}
		}
		if c.chunks[o.Chunk] != ch {
			// it was given up, or is answered
		} else if err != nil {
			c.retry(o.Chunk, fmt.Errorf("fetch %d bytes of results: %w", o.BlobLen, err))
		} else {
			c.answered(o.Chunk, ch, o, answers)
		}
	}
	c.discard(o.Blob)
	ch.at, ch.fetching = time.Now(), false
	for len(ch.later) > 0 && !ch.fetching {
		next := ch.later[0]
		if ch.later = ch.later[1:]; c.chunks[o.Chunk] == ch {
			c.heed(ch, &next)
		} else {
			c.discard(next.Blob)
		}
	}
}

// answered takes the answers of an outcome. c.mu is held, but not all the time.
func (c *Cluster) answered(id uint64, ch *sent, o *outcome, answers []byte) {
	list, err := splitAnswers(answers, ch.left)
	if err != nil {
		c.failed(id, &AgentError{o.Agent, err.Error()})
		return
	}
	c.answer(id, ch, o, list)
	if o.Returned && c.chunks[id] == ch {
		c.returned(id, ch)
	}
}

// returned sends again what an agent has given back of a chunk, unless that is about to be done. c.mu is held.
func (c *Cluster) returned(id uint64, ch *sent) {
	if !ch.resting {
		c.resend(id, 0)
	}
}

// busy reports whether outcomes of a chunk have to wait for their turn.
func (ch *sent) busy() bool { return ch.fetching || len(ch.later) > 0 }

// refusal is that an agent does not run calls of a function.
type refusal struct{ agent, function string }

// refusalTime is for how long an agent that has refused calls counts as one that would again.
const refusalTime = time.Minute

// refused has other agents get a chunk that one does not run, unless all that are there have refused it, or that function: one that
// lacks a key, or whose disk is full, would fail what the others run, and has time for more of it. c.mu is held.
func (c *Cluster) refused(id uint64, ch *sent, o *outcome) {
	function := ch.e.b.Func()
	r := refusal{o.From, function}
	_, others := c.present[o.From] // whose news has come: that of others may be on its way too
	if others = !others; !others {
		if time.Since(c.refusals[r]) > refusalTime {
			ch.refused = 0
			if c.cfg.Logger != nil {
				c.cfg.Logger.Warn("an agent refuses calls, which others are to run", "agent", o.Agent, "function", function, "reason", o.Refused)
			}
		}
		c.refusals[r] = time.Now()
	}
	refusers := map[string]bool{o.From: true}
	maps.Copy(refusers, ch.refusers) // which other parts of what was one chunk may have too
	ch.refusers = refusers
	for agent, p := range c.present {
		others = others || p.slots() > 0 && !ch.refusers[agent] && time.Since(c.refusals[refusal{agent, function}]) > refusalTime
	}
	if !others {
		c.failed(id, &RefusedError{o.Agent, o.Refused})
		return
	}
	ch.refused++
	c.again(id)
}

// answer passes answers on. c.mu is held, but not while that is done.
func (c *Cluster) answer(id uint64, ch *sent, o *outcome, list []answer) {
	inOrder(list)
	var fresh []answer
	n := 0
	for _, a := range list {
		for k := 0; k < len(a.bodies); k++ {
			from := k
			for ; k < len(a.bodies) && a.i+k < ch.n && !ch.answered[a.i+k]; k++ {
				ch.answered[a.i+k] = true
			}
			if k > from {
				fresh = append(fresh, answer{a.i + from, a.pid, a.kind, a.bodies[from:k]})
				n += k - from
			}
		}
	}
	ch.left -= n
	over := ch.left == 0
	if over {
		delete(c.chunks, id)
	}
	c.cost(ch.e.b.Func()).note(ch.n-ch.left, o.Ran)
	delete(c.refusals, refusal{o.From, ch.e.b.Func()})
	b := ch.e.b
	if c.server == nil {
		b = b.At(o.Agent)
	}
	c.unlocked(func() {
		for _, a := range fresh {
			if a.kind == isResult {
				b.Return(ch.i+a.i, a.pid, a.bodies...)
			} else {
				c.give(b, ch.i+a.i, o.Agent, a)
			}
		}
		if over && ch.blob != "" {
			c.link.dropBlob(c.ctx, c.job, ch.blob)
		}
	})
	c.settled(ch.e, n)
}

// give answers a call with what is no result.
func (c *Cluster) give(b *multiproc.Batch, i int, agent string, a answer) {
	var err error
	body := a.bodies[0]
	switch a.kind {
	case isFailure:
		if f, err := wire.DecodeFailure(body); err == nil && f.Cause == wire.CauseUnknownFunc {
			b.Fail(i, a.pid, fmt.Errorf("agent %s: in the workers of program %.12s, which is this one, the %w", agent, c.program, multiproc.ErrUnknownFunc))
			return
		}
		b.ReturnFailure(i, a.pid, body)
		return
	case isCrash:
		var x crash
		if err = wire.Decode(body, &x); err == nil {
			b.Fail(i, a.pid, x.error())
			return
		}
	case isTimeout:
		var x timeout
		if err = wire.Decode(body, &x); err == nil {
			if x.Hard {
				x.Failure = nil
			} else if x.Failure == nil {
				x.Failure = []byte{}
			}
			b.ReturnTimeout(i, a.pid, x.Limit, x.CPU, x.Failure)
			return
		}
	default:
		err = errors.New(string(body))
	}
	b.Fail(i, a.pid, &AgentError{agent, err.Error()})
}

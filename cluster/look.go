package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/seed84f35039/multiproc"
)

// lookEvery is how often it is looked whether chunks are lost, and lookAfter how long after
// they have been heard of last. Variables, as those in names.go.
var (
	lookEvery = time.Second
	lookAfter = 3 * time.Second
)

// maxAttempts is how often a call is sent that gets lost with its agents.
const maxAttempts = 4

// look sees to it that nothing is waited for that is not going to come.
func (c *Cluster) look() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-c.link.life().Done():
			if c.ctx.Err() == nil {
				c.abandon(context.Cause(c.link.life()))
			}
			return
		case <-c.ctx.Done():
			return
		}
		c.lookForAgents()
		c.lookForChunks()
	}
}

// live says that this job is alive, whatever else there is to be done.
func (c *Cluster) live() {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-c.alive.Done():
			return
		}
		if c.renew() {
			c.mu.Lock()
			if time.Since(c.renewed) > leaseTTL { // agents took this job to be over
				c.lapsed = time.Now()
			}
			c.renewed = time.Now()
			c.mu.Unlock()
		}
	}
}

// lookForAgents gives calls up for which nobody has been there for too long.
func (c *Cluster) lookForAgents() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.slots > 0 || c.open == 0 || c.leaving() {
		c.alone = time.Now()
		return
	}
	since := time.Now().Add(-c.cfg.AgentTimeout)
	if c.alone.After(since) {
		return
	}
	err := c.noAgents()
	waited := func(e *entry) error {
		if e.since.After(since) {
			return nil
		}
		return err
	}
	c.drop(waited)
	c.failAll(waited)
}

// renew says that this job is alive.
func (c *Cluster) renew() bool {
	ctx, cancel := context.WithTimeout(c.alive, beatEvery)
	defer cancel()
	err := c.link.renew(ctx, c.job, c.lease)
	if errors.Is(err, errNotPrepared) {
		c.restore()
	}
	return err == nil
}

// lapse notes that the engine or the agents may have dropped chunks.
func (c *Cluster) lapse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lapsed = time.Now()
}

// restore makes what the engine has lost: streams, buckets, and the program. Which chunks it has lost is found by
// lookForChunks.
func (c *Cluster) restore() {
	ctx, cancel := context.WithTimeout(c.alive, restoreTimeout)
	defer cancel()
	if c.link.prepare(ctx) != nil || c.link.renew(ctx, c.job, c.lease) != nil {
		return // the next look tries again
	}
	c.lapse()
}

// restoreTimeout is how long it may take to make all that again, the program included.
const restoreTimeout = time.Minute

// lookForChunks sends chunks again that the engine does not have, though they are not answered.
func (c *Cluster) lookForChunks() {
	var suspects, unwanted, late []uint64
	c.mu.Lock()
	for id, ch := range c.chunks {
		if ch.unwanted == nil && c.nobodyRuns(ch) {
			ch.unwant(multiproc.ErrClosed)
		}
		if ch.unwanted != nil {
			unwanted = append(unwanted, id)
			if time.Since(ch.told) > c.cfg.Pool.KillGrace+lookAfter {
				late = append(late, id)
			}
		}
		if ch.stored && !ch.resting && !ch.busy() && time.Since(ch.at) > lookAfter {
			suspects = append(suspects, id)
		}
	}
	c.withdraw(unwanted)
	if !c.stopped.IsZero() {
		c.tellStopped()
	}
	for _, id := range late { // no agent has taken it, as all have much to do, or the one that has is cut off
		c.ended(id)
	}
	c.mu.Unlock()
	if len(suspects) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(c.ctx, 3*lookAfter)
	there, err := c.link.pending(ctx, c.job)
	cancel()
	if errors.Is(err, errNotPrepared) {
		c.restore()
	}
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.withdraw(c.orphansAmong(there))
	for _, id := range suspects {
		ch := c.chunks[id]
		switch {
		case ch == nil || ch.resting || ch.busy():
		case there[id]:
			ch.at = time.Now()
		case !ch.missing:
			ch.missing = true // the answers were there before it went, and may be on their way
		case !ch.since.After(c.lapsed):
			c.resend(id, 0)
		case ch.attempt+1 >= maxAttempts && ch.n == 1:
			c.failed(id, ErrPoison)
		default:
			c.resend(id, 1)
		}
	}
}

// nobodyRuns reports whether no agent has said of a chunk that it runs, though it was asked by Stop for long enough, in which the
// servers could be reached, or for too long altogether. c.mu is held.
func (c *Cluster) nobodyRuns(ch *sent) bool {
	if c.stopped.IsZero() || ch.busy() {
		return false
	}
	if _, there := c.present[ch.running]; there {
		ch.ran = time.Now()
		return false
	}
	since, patience := c.stopped, c.cfg.Pool.KillGrace+lookAfter
	if ch.ran.After(since) {
		since = ch.ran
	}
	return c.renewed.Sub(since) > patience || time.Since(since) > max(c.cfg.AgentTimeout, patience)
}

// orphansAmong returns the chunks of those that the engine has which are not waited for, as they were taken to be lost and
// their calls were sent anew. c.mu is held.
func (c *Cluster) orphansAmong(there map[uint64]bool) (orphans []uint64) {
	before := c.strays
	c.strays = map[uint64]bool{} // of these some have been answered, and are about to go
	for id := range there {
		if c.chunks[id] == nil {
			c.strays[id] = true
			if before[id] {
				orphans = append(orphans, id)
			}
		}
	}
	return orphans
}

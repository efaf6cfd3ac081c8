package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed84f35039/multiproc/internal/wire"
)

// lookEvery is how often it is looked whether chunks are lost, and lookAfter how long after
// they have been heard of last.
const (
	lookEvery = time.Second
	lookAfter = 3 * time.Second
	lookMost  = 64 // at a time
)

// maxAttempts is how often a call is sent that gets lost with its agents.
const maxAttempts = 4

// renew says that this job is alive.
func (c *Cluster) renew(ctx context.Context) error {
	data, err := wire.Encode(nil, &c.lease)
	if err == nil {
		_, err = c.leases.Put(ctx, c.job, data)
	}
	return err
}

// look sees to it that nothing is waited for that is not going to come.
func (c *Cluster) look() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	renewed := time.Now()
	for {
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			return
		}
		if time.Since(renewed) >= beatEvery {
			ctx, cancel := context.WithTimeout(c.ctx, beatEvery)
			if c.renew(ctx) == nil {
				renewed = time.Now()
			}
			cancel()
		}
		c.lookForAgents()
		c.lookForChunks()
	}
}

// lookForAgents gives the calls up if nobody has been there for too long.
func (c *Cluster) lookForAgents() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.slots > 0 || c.open == 0 {
		c.alone = time.Now()
	} else if time.Since(c.alone) > c.cfg.AgentTimeout {
		c.abandonAll(ErrNoAgents)
	}
}

// lookForChunks sends chunks again whose messages are gone, though they are not answered.
func (c *Cluster) lookForChunks() {
	type suspect struct{ id, seq uint64 }
	var suspects []suspect
	var unwanted []uint64
	c.mu.Lock()
	for id, ch := range c.chunks {
		if ch.unwanted != nil {
			unwanted = append(unwanted, id)
		}
		if ch.seq != 0 && time.Since(ch.at) > lookAfter && len(suspects) < lookMost {
			suspects = append(suspects, suspect{id, ch.seq})
			ch.at = time.Now()
		}
	}
	c.withdraw(unwanted)
	c.mu.Unlock()
	for _, s := range suspects {
		ctx, cancel := context.WithTimeout(c.ctx, lookAfter)
		_, err := c.tasks.GetMsg(ctx, s.seq)
		cancel()
		if !errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		c.mu.Lock()
		switch ch := c.chunks[s.id]; {
		case ch == nil:
		case !ch.missing:
			ch.missing = true // the answers were there before it went, and may be on their way
		case ch.attempt+1 >= maxAttempts && ch.n == 1:
			c.failed(s.id, ErrPoison)
		default:
			c.resend(s.id, 1)
		}
		c.mu.Unlock()
	}
}

// watchAgents notes which agents there are.
func (c *Cluster) watchAgents(watcher jetstream.KeyWatcher) {
	defer watcher.Stop()
	for {
		select {
		case entry, ok := <-watcher.Updates():
			if !ok {
				return
			}
			if entry != nil {
				c.agentSays(entry)
			}
		case <-c.ctx.Done():
			return
		}
	}
}

func (c *Cluster) agentSays(entry jetstream.KeyValueEntry) {
	var p presence
	there := entry.Operation() == jetstream.KeyValuePut && wire.Decode(entry.Value(), &p) == nil && p.Platform == here && p.Slots > 0 && p.Slots <= maxSlots
	c.mu.Lock()
	defer c.mu.Unlock()
	if there {
		c.present[entry.Key()] = p
	} else {
		delete(c.present, entry.Key())
	}
	c.slots = 0
	for _, p := range c.present {
		c.slots += p.Slots
	}
	c.poke()
}

// maxSlots is more than an agent has.
const maxSlots = 1 << 16

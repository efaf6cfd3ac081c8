package cluster

import (
	"context"
	"errors"
	"time"
)

// errNoBlob is the error where a blob is not there, or is another one: to try again does not help.
var errNoBlob = errors.New("the object is not there")

// persist calls f until it succeeds, for as long as a transfer of so many bytes may take: servers come back. What is not there, or
// not allowed, is not tried again.
func persist(ctx context.Context, size int64, f func() error) error {
	for until := time.Now().Add(transferTime(size)); ; {
		err := f()
		_, denied := errors.AsType[*PermissionError](err)
		if err == nil || denied || errors.Is(err, errNoBlob) || ctx.Err() != nil || time.Now().After(until) {
			return err
		}
		sleep(ctx, pause)
	}
}

// discard has a blob be removed that nobody is to get any more, soon. c.mu is held.
func (c *Cluster) discard(name string) {
	if name != "" {
		c.litter = append(c.litter, name)
	}
}

// clean removes blobs that were discarded, from time to time.
func (c *Cluster) clean() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.sweep(c.ctx)
		case <-c.ctx.Done():
			return
		}
	}
}

// sweep removes blobs that were discarded.
func (c *Cluster) sweep(ctx context.Context) {
	for ctx.Err() == nil {
		c.mu.Lock()
		n := len(c.litter)
		if n == 0 {
			c.mu.Unlock()
			return
		}
		name := c.litter[n-1]
		c.litter = c.litter[:n-1]
		c.mu.Unlock()
		c.link.dropBlob(ctx, c.job, name)
	}
}

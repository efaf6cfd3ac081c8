package cluster

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// send sends calls to agents, as long as there are not too many under way.
func (c *Cluster) send() {
	for {
		c.mu.Lock()
		sent := false
		if !c.stopped.IsZero() && len(c.queue) > 0 {
			closed := func(*entry) error { return multiproc.ErrClosed }
			c.failSpans(c.dequeue(closed), closed)
		}
		if len(c.queue) > 0 && c.room() {
			sent = true
			c.sendNext()
		}
		c.mu.Unlock()
		if sent {
			continue
		}
		select {
		case <-c.more:
		case <-c.ctx.Done():
			return
		}
	}
}

// room tells whether more chunks may be sent. c.mu is held.
func (c *Cluster) room() bool { return len(c.chunks) < c.ahead() && c.unstored < maxUnstored }

// sendNext takes calls from the queue and sends them. c.mu is held, but not all the time.
func (c *Cluster) sendNext() {
	s := c.queue[0]
	k := c.cost(s.e.b.Func())
	share := (c.queued + c.slots) / max(1, 2*c.slots) // so that every slot has some
	if k.ran > 0 {
		share = max(share, int(worthSharing/k.ran))
	}
	n := min(k.chunk(c.chunkTime()), max(1, share))
	if size := s.e.b.Size(); size > 0 {
		n = max(1, n/size) * size // the worker gets them so many at a time
	}
	n = min(n, s.n, maxCalls)
	if s.attempt > 1 {
		n = 1 // it is not known which of them is to blame
	}
	c.take(n)
	c.nextID++
	id := c.nextID
	ch := &sent{span: span{s.e, s.i, n, s.attempt, s.refused, s.refusers}, answered: make([]bool, n), left: n, at: time.Now(), since: time.Now()}
	c.chunks[id] = ch
	c.mu.Unlock()
	args, took, err := encode(s.e.b, s.i, n)
	c.mu.Lock()
	if c.chunks[id] != ch { // it was given up
		return
	}
	if ch.unwanted != nil {
		c.ended(id)
		return
	}
	if took < n {
		rest := ch.span
		rest.i, rest.n = s.i+took, n-took
		if err != nil {
			rest.i, rest.n = rest.i+1, rest.n-1
		}
		if rest.n > 0 {
			c.queue, c.queued = slices.Insert(c.queue, 0, rest), c.queued+rest.n
		}
		ch.n, ch.left, ch.answered = took, took, ch.answered[:took]
	}
	if took == 0 {
		delete(c.chunks, id)
	}
	if err != nil {
		c.unlocked(func() { s.e.b.Fail(s.i+took, 0, err) })
		c.settled(s.e, 1)
	}
	if took == 0 || c.chunks[id] != ch {
		return
	}
	key, first := s.e.b.Key(s.i)
	m := &chunk{
		Job: c.job, ID: id, Program: c.program, Func: s.e.b.Func(), Key: key, First: first, N: took, Size: s.e.b.Size(), Args: args,
		Flush: c.chunkTime(),
	}
	if len(args) > maxChunk+maxChunk/2 {
		ch.blob = c.job + "." + strconv.FormatUint(id, 10)
		m.Args, m.Blob, m.BlobLen = nil, ch.blob, int64(len(args))
		c.going.Go(func() { // ends with the upload, which the context bounds
			err := persist(c.ctx, m.BlobLen, func() error { return c.link.putBlob(c.ctx, c.job, m.Blob, args) })
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.chunks[id] == nil {
				c.discard(m.Blob)
			}
			if err != nil {
				c.failed(id, fmt.Errorf("send %d bytes of arguments: %w", len(args), err))
				return
			}
			c.publish(id, m)
		})
		return
	}
	c.publish(id, m)
}

// unlocked calls f without c.mu, which is held.
func (c *Cluster) unlocked(f func()) {
	c.mu.Unlock()
	defer c.mu.Lock()
	f()
}

// take takes n calls out of the front of the queue. c.mu is held.
func (c *Cluster) take(n int) {
	s := &c.queue[0]
	c.queued -= n
	if s.i, s.n = s.i+n, s.n-n; s.n == 0 {
		c.queue[0] = span{}
		c.queue = c.queue[1:]
	}
}

// encode returns the arguments of calls from i on, and of how many. The error concerns the call after
// those.
func encode(b *multiproc.Batch, i, n int) (args []byte, took int, err error) {
	args, took, tail, err := b.AppendArgs(nil, i, n, maxChunk)
	if tail == nil {
		return args, took, err
	}
	size := tail.Size()
	buf := make([]byte, 4+int64(len(args))+size)
	copy(buf[4:], args)
	if _, err := io.ReadFull(io.NewSectionReader(tail, 0, size), buf[4+len(args):]); err != nil {
		return nil, 0, err
	}
	if complete := buf[len(buf)-1] == 1; !complete {
		return nil, 0, multiproc.ErrNotWanted
	}
	buf = buf[:len(buf)-1]
	if err := wire.EndArg(buf, 0); err != nil {
		return nil, 0, err
	}
	return buf, 1, nil
}

// publish sends a chunk, if it is still wanted. c.mu is held.
func (c *Cluster) publish(id uint64, m *chunk) {
	if ch := c.chunks[id]; ch == nil {
		return
	} else if ch.unwanted != nil {
		c.ended(id)
		return
	} else if !c.stopped.IsZero() {
		c.resend(id, 0) // which is no more than to give it up
		return
	}
	data, err := encodeChunk(m)
	if err != nil {
		c.failed(id, err)
		return
	}
	c.unstored++
	if err := c.link.submit(c.job, id, data, func(err error) { c.stored(id, err) }); err != nil { // there is no connection
		c.unstored--
		c.again(id)
	}
}

// stored notes that the server has a chunk, or sends it again.
func (c *Cluster) stored(id uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unstored--
	if err != nil { // no room, or no server
		c.again(id)
	} else if ch := c.chunks[id]; ch != nil {
		ch.stored = true
	}
	c.poke()
}

// failed answers what is left of a chunk with an error. c.mu is held.
func (c *Cluster) failed(id uint64, err error) {
	ch := c.chunks[id]
	if ch == nil {
		return
	}
	delete(c.chunks, id)
	c.discard(ch.blob)
	c.unlocked(func() {
		for i, done := range ch.answered {
			if !done {
				ch.e.b.Fail(ch.i+i, 0, err)
			}
		}
	})
	c.settled(ch.e, ch.left)
}

// pause is how long it takes until what could not be sent is sent again; each time that agents refuse it, twice as long, up to maxPauses.
const (
	pause     = 200 * time.Millisecond
	maxPauses = 1 << 3
)

// again sends what is left of a chunk once more, after a while. c.mu is held.
func (c *Cluster) again(id uint64) {
	ch := c.chunks[id]
	if ch == nil {
		return
	}
	if ch.unwanted != nil {
		c.ended(id)
		return
	}
	ch.resting = true
	time.AfterFunc(pause*time.Duration(min(1<<max(ch.refused-1, 0), maxPauses)), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.resend(id, 0)
	})
}

// resend puts what is left of a chunk back into the queue. c.mu is held.
func (c *Cluster) resend(id uint64, attempts int) {
	c.requeue(c.takeBack(id, attempts))
}

// retry sends what is left of a chunk again, or answers it with the error if that was done often enough. c.mu is held.
func (c *Cluster) retry(id uint64, err error) {
	if ch := c.chunks[id]; ch != nil && ch.attempt+1 >= maxAttempts {
		c.failed(id, err)
		return
	}
	c.resend(id, 1)
}

// requeue puts calls at the front of the queue. c.mu is held.
func (c *Cluster) requeue(back []span) {
	if len(back) == 0 {
		return
	}
	for _, s := range back {
		c.queued += s.n
	}
	c.queue = slices.Insert(c.queue, 0, back...)
	c.poke()
}

// takeBack returns what is left of a chunk, which is none any more. c.mu is held.
func (c *Cluster) takeBack(id uint64, attempts int) (back []span) {
	ch := c.chunks[id]
	if ch == nil {
		return nil
	}
	if ch.unwanted != nil {
		c.ended(id)
		return nil
	}
	delete(c.chunks, id)
	c.discard(ch.blob) // another is made for what is left
	for i := 0; i < ch.n; i++ {
		if ch.answered[i] {
			continue
		}
		n := 1
		for i+n < ch.n && !ch.answered[i+n] {
			n++
		}
		back = append(back, span{ch.e, ch.i + i, n, ch.attempt + attempts, ch.refused, ch.refusers})
		i += n - 1
	}
	return back
}

// settled counts calls as answered. c.mu is held.
func (c *Cluster) settled(e *entry, n int) {
	if e.left -= n; e.left == 0 {
		e.stop()
	}
	c.open -= n
	c.last = time.Now()
	c.check()
	c.poke()
}

// cancelled answers the calls of a batch whose context has ended, and of others of which that is so by now, and tells agents.
func (c *Cluster) cancelled(e *entry) {
	c.over.Lock()
	c.over.entries = append(c.over.entries, e)
	first := len(c.over.entries) == 1
	c.over.Unlock()
	if !first {
		return // who was first is about to look
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over.Lock()
	causes := make(map[*entry]error, len(c.over.entries))
	for _, e := range c.over.entries {
		causes[e] = context.Cause(e.b.Context())
	}
	c.over.entries = nil
	c.over.Unlock()
	c.drop(func(e *entry) error { return causes[e] })
}

// abandon answers all calls at once, and returns how many there were.
func (c *Cluster) abandon(err error) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = c.open
	all := func(*entry) error { return err }
	c.drop(all)
	c.failAll(all)
	return n
}

// failAll answers what is left of the chunks of entries for which there is an error. c.mu is held, but not all the time.
func (c *Cluster) failAll(why func(*entry) error) {
	for again := true; again; {
		again = false
		for id, ch := range c.chunks {
			if err := why(ch.e); err != nil {
				c.failed(id, err)
				again = true // there may be others now
			}
		}
	}
}

// dequeue takes the calls that wait of entries for which there is an error out of the queue. c.mu is held.
func (c *Cluster) dequeue(why func(*entry) error) (dropped []span) {
	c.queue = slices.DeleteFunc(c.queue, func(s span) bool {
		if why(s.e) == nil {
			return false
		}
		dropped = append(dropped, s)
		c.queued -= s.n
		return true
	})
	return dropped
}

// failSpans answers calls that are nowhere any more. c.mu is held, but not all the time.
func (c *Cluster) failSpans(dropped []span, why func(*entry) error) {
	c.unlocked(func() {
		for _, s := range dropped {
			for i := range s.n {
				s.e.b.Fail(s.i+i, 0, why(s.e))
			}
		}
	})
	for _, s := range dropped {
		c.settled(s.e, s.n)
	}
}

// drop answers the calls that wait of entries for which there is an error, and has agents end those that
// they have, which are answered when that has been done. c.mu is held, but not all the time.
func (c *Cluster) drop(why func(*entry) error) {
	dropped := c.dequeue(why)
	var cancel, resting []uint64
	for id, ch := range c.chunks {
		if err := why(ch.e); err != nil {
			ch.unwant(err)
			if ch.resting {
				resting = append(resting, id)
			} else {
				cancel = append(cancel, id)
			}
		}
	}
	c.withdraw(slices.Concat(cancel, resting)) // of those the server may have some all the same
	for _, id := range resting {
		c.ended(id)
	}
	c.failSpans(dropped, why)
}

// unwant says that agents are to end a chunk, and what its calls get then. Its caller tells them.
func (ch *sent) unwant(err error) {
	if ch.unwanted == nil {
		ch.told = time.Now()
	}
	ch.unwanted = err
}

// ended is when no agent has a chunk any more, nor is to get it. c.mu is held.
func (c *Cluster) ended(id uint64) {
	ch := c.chunks[id]
	switch {
	case ch == nil:
	case ch.unwanted == nil: // an agent took the job to be over
		c.resend(id, 0)
	case ch.unwanted == ErrPoison && ch.n > 1: // one of them is
		ch.unwanted = nil
		c.resend(id, 2) // one by one
	default:
		c.failed(id, ch.unwanted)
	}
}

// maxStretches is how many stretches a control message has, which has to be smaller than NATS allows (1 MiB).
const maxStretches = 1 << 15

// withdraw tells agents which chunks are not wanted any more. c.mu is held.
func (c *Cluster) withdraw(ids []uint64) {
	if len(ids) == 0 || c.link == nil {
		return
	}
	var wanted []uint64
	for id, ch := range c.chunks {
		if ch.unwanted == nil && len(ids) > 1 {
			wanted = append(wanted, id)
		}
	}
	for some := range slices.Chunk(stretches(ids, wanted), maxStretches) {
		var m control
		for _, s := range some {
			m.Cancel = append(m.Cancel, s.first, s.last)
		}
		if data, err := wire.Encode(nil, &m); err == nil {
			c.link.tell(c.job, data) // look says it again
		}
	}
}

// tellStopped has agents give back what they have not begun. c.mu is held.
func (c *Cluster) tellStopped() {
	if data, err := wire.Encode(nil, &control{Stop: true}); err == nil {
		c.link.tell(c.job, data) // look says it again
	}
}

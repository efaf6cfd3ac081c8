package cluster

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// conn is a connection to an engine.
type conn struct {
	e       *engine
	latency time.Duration // one way
	ctx     context.Context
	end     context.CancelCauseFunc
	going   sync.WaitGroup
	silent  atomic.Bool // nothing arrives at this side any more

	// Guarded by the mutex of the engine.
	cut       bool
	lost      bool    // both sides know that it is cut
	cuts      int     // how often it was
	held      []event // what was sent while it was cut
	size      int     // of what this side has sent of that, in bytes
	forgotten bool    // it has ended, and the engine knows
	watchers  []*watcher
	control   func(job string, data []byte)
	receipts  fifo[*receipt]
}

var (
	_ submitterLink = (*conn)(nil)
	_ agentLink     = (*conn)(nil)
)

// receipt is the acknowledgement of a chunk that is to come.
type receipt struct {
	sent   time.Time
	stored func(error)
	came   bool
}

// maxHeld is how many bytes a client keeps for when it is connected again.
const maxHeld = 8 << 20

func (e *engine) connect(latency time.Duration) *conn {
	c := &conn{e: e, latency: latency}
	c.ctx, c.end = context.WithCancelCause(context.Background())
	e.mu.Lock()
	defer e.mu.Unlock()
	e.conns[c] = true
	return c
}

func (c *conn) life() context.Context { return c.ctx }

func (c *conn) close() {
	c.vanish(0)
	c.going.Wait()
}

// vanish ends the connection without a word. The engine learns of it after a while.
func (c *conn) vanish(after time.Duration) {
	c.silent.Store(true)
	c.end(errLinkClosed)
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	delete(c.e.conns, c)
	c.held, c.control = nil, nil
	c.unwatch(func(*watcher) bool { return true })
	if after == 0 {
		c.forgotten = true
		return
	}
	c.e.at(after, true, func() { c.forgotten = true })
}

// unwatch ends watchers. The mutex of the engine is held.
func (c *conn) unwatch(which func(*watcher) bool) {
	for _, w := range c.watchers {
		if which(w) {
			w.live = false
			w.turn++
			w.b.watchers = slices.DeleteFunc(w.b.watchers, func(x *watcher) bool { return x == w })
		}
	}
	c.watchers = slices.DeleteFunc(c.watchers, which)
}

// partition cuts the connection for a while.
func (c *conn) partition(length time.Duration) {
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	c.sever(length)
}

// sever is partition with the mutex of the engine held.
func (c *conn) sever(length time.Duration) {
	c.cut = true
	c.cuts++
	now := c.cuts
	c.e.at(noticed, true, func() {
		if c.cuts == now && c.cut {
			c.disconnect()
		}
	})
	c.e.at(length, true, func() {
		if c.cuts == now && c.cut {
			c.heal()
		}
	})
}

// disconnect is when both sides know that the connection is cut: what was on its way is lost. The mutex of the
// engine is held.
func (c *conn) disconnect() { c.lost, c.held, c.size = true, nil, 0 }

// heal connects again. The mutex of the engine is held.
func (c *conn) heal() {
	held, anew := c.held, c.lost
	c.cut, c.lost, c.held, c.size = false, false, nil, 0
	for _, x := range held {
		c.e.at(c.latency, x.locked, x.f)
	}
	if !anew {
		return
	}
	for _, w := range c.watchers {
		w.begin()
	}
	c.expireReceipts(time.Now().Add(publishTimeout)) // the client does not wait for those of another connection
}

// send has f happen at the engine, when the message has arrived. The mutex of the engine is held.
func (c *conn) send(size int, f func()) error {
	c.e.count.messages++
	switch {
	case c.silent.Load():
		return errLinkClosed
	case c.cut && c.size+size > maxHeld:
		return errors.New("outbound buffer limit exceeded")
	case c.cut:
		c.held = append(c.held, event{locked: true, f: f})
		c.size += size
	default:
		c.e.at(c.latency, true, f)
	}
	return nil
}

// post is send.
func (c *conn) post(f func()) error {
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	return c.send(0, f)
}

// reply has f happen at this side. The mutex of the engine is held, but not when f happens.
func (c *conn) reply(f func()) {
	c.e.count.messages++
	arrives := func() {
		if !c.silent.Load() {
			f()
		}
	}
	switch {
	case c.cut && !c.lost:
		c.held = append(c.held, event{f: arrives})
	case !c.cut:
		c.e.at(c.latency, false, arrives)
	}
}

// reached is what an engine has to say.
type reached struct {
	value any
	err   error
}

// askTimeout is how long a client waits for a reply that may have got lost.
const askTimeout = 5 * time.Second

// ask sends a request and waits for the reply. f gets what makes that.
func (c *conn) ask(ctx context.Context, f func(reply func(any, error))) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	came := make(chan reached, 1)
	err := c.post(func() {
		done := false
		f(func(value any, err error) {
			if !done {
				done = true
				c.reply(func() { came <- reached{value, err} })
			}
		})
	})
	if err != nil {
		return nil, err
	}
	select {
	case r := <-came:
		return r.value, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.ctx.Done():
		return nil, context.Cause(c.ctx)
	}
}

// do is ask without a value.
func (c *conn) do(ctx context.Context, f func() error) error {
	_, err := c.ask(ctx, func(reply func(any, error)) { reply(nil, f()) })
	return err
}

func (c *conn) prepare(ctx context.Context) error {
	return c.do(ctx, func() error {
		c.e.streams, c.e.buckets = true, true
		return nil
	})
}

func (c *conn) submit(job string, id uint64, data []byte, stored func(error)) error {
	e := c.e
	e.mu.Lock()
	defer e.mu.Unlock()
	r := &receipt{sent: time.Now(), stored: stored}
	err := c.send(len(data), func() {
		err := e.put(place{job, id}, data)
		c.reply(func() { c.acknowledge(r, err) })
	})
	if err == nil {
		c.receipts.push(r)
	}
	return err
}

// acknowledge passes an acknowledgement on, once.
func (c *conn) acknowledge(r *receipt, err error) {
	c.e.mu.Lock()
	once := !r.came
	r.came = true
	c.e.mu.Unlock()
	if once {
		r.stored(err)
	}
}

var errLate = errors.New("no acknowledgement has come")

// expireReceipts ends the wait for acknowledgements that have not come in time. The mutex of the engine is
// held.
func (c *conn) expireReceipts(now time.Time) {
	for c.receipts.len() > 0 {
		r := c.receipts.items[c.receipts.first]
		if !r.came && now.Sub(r.sent) < publishTimeout {
			return
		}
		if c.receipts.pop(); !r.came {
			c.e.at(0, false, func() { c.acknowledge(r, errLate) })
		}
	}
}

func (c *conn) pending(ctx context.Context, job string) (map[uint64]bool, error) {
	v, err := c.ask(ctx, func(reply func(any, error)) {
		if !c.e.streams {
			reply(nil, errNotPrepared)
			return
		}
		there := make(map[uint64]bool, len(c.e.byJob[job]))
		for id := range c.e.byJob[job] {
			there[id] = true
		}
		reply(there, nil)
	})
	there, _ := v.(map[uint64]bool)
	return there, err
}

// page is some outcomes.
type page struct {
	epoch, next int // where the next one starts
	entries     [][]byte
}

func (c *conn) outcomes(ctx context.Context, job string, take func([]byte), end func()) error {
	e := c.e
	err := c.do(ctx, func() error {
		if !e.streams {
			return errNotPrepared
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.going.Go(func() { // ends with ctx, or the connection
		defer end()
		at, purged := page{}, 0
		for ctx.Err() == nil && c.ctx.Err() == nil {
			p, err := c.read(ctx, job, at)
			if err != nil {
				at.next = max(0, at.next-3) // it is not sure any more where it was
				continue
			}
			at = p
			for _, data := range p.entries {
				take(data)
			}
			if at.next-purged >= purgeEvery {
				purged = at.next
				c.post(func() {
					if r := e.recordOf(job); at.epoch == e.epoch && purged > r.first {
						r.entries = slices.Delete(r.entries, 0, min(purged-r.first, len(r.entries)))
						r.first = purged
					}
				})
			}
		}
	})
	return nil
}

// read returns the next outcomes, when there are some.
func (c *conn) read(ctx context.Context, job string, at page) (page, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchWait)
	defer cancel()
	e := c.e
	v, err := c.ask(ctx, func(reply func(any, error)) {
		var look func()
		look = func() {
			if !e.streams {
				return
			}
			if at.epoch != e.epoch {
				at = page{epoch: e.epoch}
			}
			r := e.recordOf(job)
			from := max(at.next, r.first) - r.first
			if from >= len(r.entries) {
				r.waiting = append(r.waiting, look)
				return
			}
			entries := slices.Clone(r.entries[from:min(len(r.entries), from+fetchMost)])
			e.count.messages += len(entries) - 1
			reply(page{e.epoch, r.first + from + len(entries), entries}, nil)
		}
		look()
	})
	if err != nil {
		return at, err
	}
	return v.(page), nil
}

func (c *conn) answer(ctx context.Context, job string, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	return c.do(ctx, func() error {
		if !c.e.streams {
			return errNotPrepared
		}
		c.e.count.outcomes++
		r := c.e.recordOf(job)
		r.entries = append(r.entries, data)
		waiting := r.waiting
		r.waiting = nil
		for _, look := range waiting {
			look()
		}
		return nil
	})
}

func (c *conn) renew(ctx context.Context, job string, data []byte) error {
	return c.set(ctx, c.e.leases, job, data)
}

func (c *conn) set(ctx context.Context, b *bucket, key string, data []byte) error {
	return c.do(ctx, func() error {
		if !c.e.buckets {
			return errNotPrepared
		}
		b.set(key, data)
		return nil
	})
}

func (c *conn) finish(ctx context.Context, job string) error {
	err := c.set(ctx, c.e.leases, job, nil)
	return errors.Join(err, c.post(func() { delete(c.e.results, job) }))
}

func (c *conn) tell(job string, data []byte) {
	c.post(func() {
		if len(data) > 1<<20 {
			return // the client refuses it, and nobody looks at its error
		}
		for x := range c.e.conns {
			if control := x.control; control != nil && !x.cut && c.e.rng.Float64() >= c.e.deafness {
				c.e.count.controls++
				x.reply(func() { control(job, data) })
			}
		}
	})
}

func (c *conn) watchControl(say func(string, []byte)) error {
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	c.control = say
	return nil
}

func (c *conn) watchAgents(ctx context.Context, say func(string, []byte)) {
	c.watch(ctx, c.e.presences, say)
}

func (c *conn) watchLeases(ctx context.Context, say func(string, []byte)) {
	c.watch(ctx, c.e.leases, say)
}

func (c *conn) watch(ctx context.Context, b *bucket, say func(string, []byte)) {
	w := &watcher{c: c, b: b, ctx: ctx, known: map[string]bool{}, say: say}
	c.e.mu.Lock()
	b.watchers, c.watchers = append(b.watchers, w), append(c.watchers, w)
	w.begin()
	c.e.mu.Unlock()
	<-ctx.Done() // bounded: the agent, or the submitter, ends it
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	c.unwatch(func(x *watcher) bool { return x == w })
}

func (c *conn) bind(ctx context.Context) error {
	return c.do(ctx, func() error {
		if !c.e.streams || !c.e.buckets {
			return errNotPrepared
		}
		return nil
	})
}

func (c *conn) pull(ctx context.Context, n int, take func(delivery)) error {
	r := &request{c: c, n: n, came: make(chan *handed, n), ended: make(chan struct{})}
	ctx, cancel := context.WithTimeout(ctx, fetchWait)
	defer cancel()
	err := c.post(func() {
		if r.until = time.Now().Add(fetchWait * 9 / 10); !r.over && c.e.streams {
			c.e.waiting.push(r)
			c.e.dispatch()
		}
	})
	for got := 0; err == nil && got < n; got++ {
		select {
		case d := <-r.came:
			take(d)
			continue
		case <-r.ended:
		case <-ctx.Done():
		case <-c.ctx.Done():
			err = context.Cause(c.ctx)
		}
		break
	}
	c.e.mu.Lock() // what is on its way comes again after ackWait
	r.over, r.n = true, 0
	c.e.mu.Unlock()
	for {
		select {
		case d := <-r.came:
			d.back(0)
		default:
			return err
		}
	}
}

func (c *conn) beat(ctx context.Context, id string, data []byte) error {
	c.e.mu.Lock()
	c.e.count.beats++
	c.e.mu.Unlock()
	return c.set(ctx, c.e.presences, id, data)
}

func (c *conn) leave(ctx context.Context, id string) error { return c.set(ctx, c.e.presences, id, nil) }

func (c *conn) lease(ctx context.Context, job string) ([]byte, error) {
	v, err := c.ask(ctx, func(reply func(any, error)) {
		if entry := c.e.leases.entries[job]; !c.e.buckets {
			reply(nil, errNotPrepared)
		} else if entry == nil {
			reply(nil, errNoLease)
		} else {
			reply(entry.data, nil)
		}
	})
	data, _ := v.([]byte)
	return data, err
}

func (c *conn) putBlob(ctx context.Context, _, name string, data []byte) error {
	data = bytes.Clone(data)
	return c.do(ctx, func() error {
		if !c.e.streams {
			return errNotPrepared
		}
		c.e.blobs[name] = data
		return nil
	})
}

func (c *conn) getBlob(ctx context.Context, _, name string, size int64) ([]byte, error) {
	v, err := c.ask(ctx, func(reply func(any, error)) {
		data, there := c.e.blobs[name]
		if !there || int64(len(data)) != size {
			reply(nil, errNoBlob)
			return
		}
		reply(data, nil)
	})
	data, _ := v.([]byte)
	return data, err
}

func (c *conn) dropBlob(_ context.Context, _, name string) {
	c.post(func() { delete(c.e.blobs, name) })
}

// handed is a chunk that an agent was handed.
type handed struct {
	c     *conn
	t     *task
	times int
}

func (d *handed) data() []byte                 { return d.t.data }
func (d *handed) task() (string, uint64, bool) { return d.t.job, d.t.id, true }
func (d *handed) deliveries() int              { return d.times }
func (d *handed) ack()                         { d.c.post(func() { d.c.e.remove(d.t) }) }
func (d *handed) drop(string)                  { d.ack() }

func (d *handed) working() {
	d.c.post(func() {
		d.c.e.count.working++
		if d.c.e.out[d.t] {
			d.t.deadline = time.Now().Add(ackWait)
		}
	})
}

func (d *handed) back(after time.Duration) {
	d.c.post(func() {
		e := d.c.e
		if after > 0 {
			e.at(after, true, func() {
				e.back(d.t)
				e.dispatch()
			})
			return
		}
		e.back(d.t)
		e.dispatch()
	})
}

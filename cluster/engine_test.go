package cluster

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// engine is what JetStream is to a cluster, in memory and on the clock of synctest: a queue of tasks from which
// agents pull, whose chunks come back when nobody has acknowledged them for ackWait; a log of outcomes for each job;
// two buckets of keys that expire; control messages, which may get lost; blobs. It is given more room than NATS has but makes the
// same mistakes: an acknowledgement of whoever had a chunk before removes it, deliveries are forgotten in a restart, and
// what is sent over a connection that is cut arrives late or never.
type engine struct {
	ctx   context.Context // of the goroutine
	end   context.CancelFunc
	ended chan struct{}
	began time.Time
	wake  chan struct{} // has an element when an event has come that is the first

	mu     sync.Mutex
	rng    *rand.Rand
	agenda agenda
	number uint64 // of the last event
	conns  map[*conn]bool
	count  counts

	room      int     // bytes of tasks that there is room for
	deafness  float64 // which share of control messages is lost
	streams   bool
	epoch     int // how often everything was lost
	tasks     map[place]*task
	bytes     int                         // of them
	byJob     map[string]map[uint64]*task // the same
	ready     fifo[*task]
	again     fifo[*task] // ready, and were handed out before: these are first
	out       map[*task]bool
	waiting   fifo[*request]
	results   map[string]*record
	buckets   bool
	presences *bucket
	leases    *bucket
	blobs     map[string][]byte
}

// counts are what an engine has done.
type counts struct {
	messages    int // of all kinds, each way
	chunks      int // stored
	redelivered int
	outcomes    int
	beats       int
	controls    int // delivered
	leases      int // delivered
	working     int
	mostChunks  int
	mostPulls   int
}

// task is a chunk in the queue.
type task struct {
	place
	data     []byte
	given    int       // how often
	deadline time.Time // when it comes back, while an agent has it
	gone     bool
}

// request is an agent's for chunks.
type request struct {
	c     *conn
	n     int
	until time.Time
	over  bool // the agent does not wait any more
	came  chan *handed
	ended chan struct{} // closed when it has expired
}

// fifo is a queue.
type fifo[T any] struct {
	items []T
	first int
}

func (q *fifo[T]) len() int { return len(q.items) - q.first }
func (q *fifo[T]) push(x T) { q.items = append(q.items, x) }
func (q *fifo[T]) pop() T {
	x := q.items[q.first]
	var zero T
	q.items[q.first] = zero
	if q.first++; q.first > 64 && 2*q.first > len(q.items) {
		q.items, q.first = append(q.items[:0], q.items[q.first:]...), 0
	}
	return x
}

// record holds the outcomes of a job.
type record struct {
	first   int // the number of the first that is there
	entries [][]byte
	waiting []func()
}

const (
	sweepEvery = 500 * time.Millisecond
	noticed    = 10 * time.Second // how long a cut connection is not known to be one
)

// newEngine returns an engine that runs until stop is called.
func newEngine(seed uint64) *engine {
	e := &engine{
		ended: make(chan struct{}), began: time.Now(), wake: make(chan struct{}, 1), rng: rand.New(rand.NewPCG(seed, 1)),
		conns: map[*conn]bool{}, room: tasksMax, tasks: map[place]*task{}, byJob: map[string]map[uint64]*task{}, out: map[*task]bool{},
		results: map[string]*record{}, blobs: map[string][]byte{},
	}
	e.presences, e.leases = &bucket{e: e, ttl: agentTTL}, &bucket{e: e, ttl: leaseTTL}
	e.ctx, e.end = context.WithCancel(context.Background())
	e.mu.Lock()
	e.at(sweepEvery, true, e.sweep)
	e.mu.Unlock()
	go e.run() // ends with stop, which waits for it
	return e
}

func (e *engine) stop() {
	e.end()
	<-e.ended
}

// at has f happen after a while, with e.mu held if that is wanted. e.mu is held.
func (e *engine) at(after time.Duration, locked bool, f func()) {
	e.number++
	e.agenda.push(event{time.Since(e.began) + after, e.number, locked, f})
	if e.agenda[0].number == e.number {
		select {
		case e.wake <- struct{}{}:
		default:
		}
	}
}

// run has things happen when it is time.
func (e *engine) run() {
	defer close(e.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var due []event
	for {
		e.mu.Lock()
		now := time.Since(e.began)
		for len(e.agenda) > 0 && e.agenda[0].at <= now {
			due = append(due, e.agenda.pop())
		}
		if len(due) == 0 && len(e.agenda) > 0 {
			timer.Reset(e.agenda[0].at - now)
		}
		held := true
		for i := range due {
			if held != due[i].locked {
				if held = !held; held {
					e.mu.Lock()
				} else {
					e.mu.Unlock()
				}
			}
			due[i].f()
			due[i].f = nil
		}
		if held {
			e.mu.Unlock()
		}
		if len(due) > 0 {
			due = due[:0]
			if e.ctx.Err() == nil {
				continue
			}
		}
		select {
		case <-timer.C:
		case <-e.wake:
		case <-e.ctx.Done():
			return
		}
	}
}

// sweep looks what has come to its end. e.mu is held.
func (e *engine) sweep() {
	now := time.Now()
	for t := range e.out {
		if now.After(t.deadline) {
			e.back(t)
		}
	}
	e.presences.expire()
	e.leases.expire()
	for c := range e.conns {
		c.expireReceipts(now)
	}
	for n := e.waiting.len(); n > 0; n-- {
		if r := e.waiting.pop(); !e.expired(r) {
			e.waiting.push(r)
		}
	}
	e.count.mostPulls = max(e.count.mostPulls, e.waiting.len())
	e.count.mostChunks = max(e.count.mostChunks, len(e.tasks))
	e.dispatch()
	e.at(sweepEvery, true, e.sweep)
}

// expired reports whether nobody waits for what is asked for. e.mu is held.
func (e *engine) expired(r *request) bool {
	if r.n == 0 || r.c.cut && r.c.lost || r.c.forgotten {
		return true
	}
	if time.Now().Before(r.until) {
		return false
	}
	r.c.reply(func() { close(r.ended) })
	return true
}

// put stores a chunk. e.mu is held.
func (e *engine) put(at place, data []byte) error {
	switch {
	case !e.streams:
		return errNotPrepared
	case e.bytes+len(data) > e.room:
		return errors.New("maximum bytes exceeded")
	case e.tasks[at] != nil: // the same subject once more, which NATS takes for another message
		return nil
	}
	t := &task{place: at, data: data}
	e.tasks[at] = t
	e.bytes += len(data)
	of := e.byJob[at.job]
	if of == nil {
		of = map[uint64]*task{}
		e.byJob[at.job] = of
	}
	of[at.id] = t
	e.count.chunks++
	e.ready.push(t)
	e.dispatch()
	return nil
}

// dispatch hands chunks to those who wait for some. e.mu is held.
func (e *engine) dispatch() {
	for e.waiting.len() > 0 {
		from := &e.again
		if from.len() == 0 {
			from = &e.ready
		}
		if from.len() == 0 {
			return
		}
		r := e.waiting.pop()
		if e.expired(r) {
			continue
		}
		t := from.pop()
		if t.gone || e.out[t] {
			e.waiting.push(r)
			continue
		}
		if t.given++; t.given > 1 {
			e.count.redelivered++
		}
		t.deadline = time.Now().Add(ackWait)
		e.out[t] = true
		d := &handed{r.c, t, t.given}
		if r.n--; r.n > 0 {
			e.waiting.push(r)
		}
		r.c.reply(func() { r.came <- d })
	}
}

// back makes a chunk that an agent had be handed out again. e.mu is held.
func (e *engine) back(t *task) {
	if !t.gone && e.out[t] {
		delete(e.out, t)
		e.again.push(t)
	}
}

// remove is the end of a chunk. e.mu is held.
func (e *engine) remove(t *task) {
	if t.gone {
		return
	}
	t.gone = true
	delete(e.out, t)
	delete(e.tasks, t.place)
	e.bytes -= len(t.data)
	if delete(e.byJob[t.job], t.id); len(e.byJob[t.job]) == 0 {
		delete(e.byJob, t.job)
	}
}

// recordOf returns the outcomes of a job. e.mu is held.
func (e *engine) recordOf(job string) *record {
	r := e.results[job]
	if r == nil {
		r = &record{}
		e.results[job] = r
	}
	return r
}

// restart has all connections fail for a while. It forgets how often chunks were handed out, and to whom, and
// the buckets, which are in memory; if everything is to be lost, the chunks and outcomes as well.
func (e *engine) restart(outage time.Duration, lose bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.conns {
		c.sever(outage)
		c.disconnect()
	}
	e.waiting = fifo[*request]{}
	e.buckets = false
	e.presences.clear()
	e.leases.clear()
	if !lose {
		for t := range e.out {
			e.back(t)
		}
		for _, t := range e.tasks {
			t.given = 0
		}
		return
	}
	e.streams = false
	e.epoch++
	for _, t := range e.tasks {
		e.remove(t)
	}
	clear(e.results)
	clear(e.blobs)
}

// event is something that is to happen.
type event struct {
	at     time.Duration // since the beginning
	number uint64
	locked bool // with the mutex of the engine held
	f      func()
}

// agenda is a heap of events, the next one first.
type agenda []event

func (a agenda) less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].number < a[j].number
}

func (a *agenda) push(x event) {
	*a = append(*a, x)
	h := *a
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h.less(i, up) {
			return
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
}

func (a *agenda) pop() event {
	h := *a
	x := h[0]
	last := len(h) - 1
	h[0], h[last] = h[last], event{}
	h = h[:last]
	*a = h
	for i := 0; ; {
		least := i
		for down := 2*i + 1; down <= 2*i+2 && down < len(h); down++ {
			if h.less(down, least) {
				least = down
			}
		}
		if least == i {
			return x
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}

// bucket holds keys that expire.
type bucket struct {
	e        *engine
	ttl      time.Duration
	entries  map[string]*entryOfBucket
	watchers []*watcher
}

type entryOfBucket struct {
	data []byte
	at   time.Time
}

// set notes what a key says; nil: it is gone. e.mu is held.
func (b *bucket) set(key string, data []byte) {
	if data == nil {
		delete(b.entries, key)
	} else {
		if b.entries == nil {
			b.entries = map[string]*entryOfBucket{}
		}
		b.entries[key] = &entryOfBucket{data, time.Now()}
	}
	for _, w := range b.watchers {
		if w.live {
			w.tell(key, data)
		}
	}
}

func (b *bucket) expire() {
	for key, entry := range b.entries {
		if time.Since(entry.at) > b.ttl {
			b.set(key, nil)
		}
	}
}

func (b *bucket) clear() { clear(b.entries) }

// watcher follows a bucket.
type watcher struct {
	c     *conn
	b     *bucket
	ctx   context.Context
	known map[string]bool // what was said to be there; used by the engine's goroutine alone
	say   func(key string, data []byte)
	live  bool // gets what changes
	turn  int  // how often it has begun
}

// begin tells all that is there, and then what changes. e.mu is held.
func (w *watcher) begin() {
	w.live = false
	w.turn++
	turn := w.turn
	var ask func()
	ask = func() {
		if w.turn != turn || w.ctx.Err() != nil {
			return
		}
		if !w.b.e.buckets {
			w.b.e.at(pause, true, ask)
			return
		}
		w.live = true
		all := map[string][]byte{}
		for key, entry := range w.b.entries {
			all[key] = entry.data
		}
		w.c.reply(func() {
			for key := range w.known {
				if all[key] == nil {
					w.heard(key, nil)
				}
			}
			for key, data := range all {
				w.heard(key, data)
			}
		})
	}
	w.c.send(0, ask)
}

// tell has a change be heard. e.mu is held.
func (w *watcher) tell(key string, data []byte) {
	if w.b == w.b.e.leases {
		w.b.e.count.leases++
	}
	w.c.reply(func() { w.heard(key, data) })
}

func (w *watcher) heard(key string, data []byte) {
	if w.ctx.Err() != nil {
		return
	}
	if data == nil {
		delete(w.known, key)
	} else {
		w.known[key] = true
	}
	w.say(key, data)
}

package multiproc

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed84f35039/multiproc/internal/handover"
	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// idRange is calls of consecutive ids.
type idRange struct {
	id uint64
	n  int
}

// outgoing is what is said to a worker. Whoever holds mu may say it: the worker's send,
// or whoever has something to say and does not want to wait for that.
type outgoing struct {
	mu     sync.Mutex
	unsent []unsent // what could not be sent without waiting
	buf    []byte   // scratch of say
	calls  []flying // likewise
	key    string   // that calls were sent with last

	encoded  uint64      // calls of lower ids have been encoded or refused
	encoding atomic.Bool // an argument is being encoded, which may take a while
	// Calls of lower ids have been read to their end: only these can have been answered. It
	// is stored before the worker gets to see the last byte.
	said atomic.Uint64
}

// unsent is frames that are still to be sent.
type unsent struct {
	frames []byte
	tail   wire.Tail
	how    transport.How
	upTo   uint64 // what out.said will be then
}

// lastByte is a tail that tells when its last byte is read.
type lastByte struct {
	wire.Tail
	read func()
}

// ReadAt implements [io.ReaderAt].
func (t lastByte) ReadAt(p []byte, off int64) (n int, err error) {
	n, err = t.Tail.ReadAt(p, off)
	if off+int64(n) == t.Size() {
		t.read()
	}
	return n, err
}

// cancel ends the calls of e that the worker has.
func (w *worker) cancel(e *entry) { w.cancelIf(func(f *flying) bool { return f.e == e }) }

// cancelIf ends such calls: the last ones first, so that the end of the one that runs
// does not let another begin. p.mu is held.
func (w *worker) cancelIf(such func(*flying) bool) {
	for i := len(w.flight) - 1; i >= 0; i-- {
		f := &w.flight[i]
		if !such(f) || !f.cancelled.IsZero() {
			continue
		}
		f.cancelled = time.Now()
		w.cancels = append(w.cancels, idRange{f.id, f.n})
		w.watch(w.p.cfg.KillGrace + reaction)
	}
	w.poke()
}

// send says what is to be said to the worker and that nobody else has said.
func (w *worker) send() {
	for {
		w.out.mu.Lock()
		more, ended := w.say(transport.Now)
		w.out.mu.Unlock()
		if ended {
			return
		}
		if !more {
			<-w.wake // poked by whoever changes something, and at the end
		}
	}
}

// dispatch gives the worker calls if it needs some. What it could not say without
// waiting, send will. It returns the quorum for the answers.
func (w *worker) dispatch() (quorum int) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	if !w.hungry() || !w.stopping && w.p.drain.open <= w.open { // there is nothing to say
		return w.quorum()
	}
	if !w.out.mu.TryLock() {
		w.poke()
		return w.quorum()
	}
	w.p.mu.Unlock()
	for more := true; more && len(w.out.unsent) == 0; {
		more, _ = w.say(transport.Try) // again, as calls may have been refused
	}
	w.out.mu.Unlock()
	w.p.mu.Lock()
	return w.quorum()
}

// say says what is to be said to the worker, and reports whether that was anything, and
// whether the worker has ended. w.out.mu is held.
func (w *worker) say(how transport.How) (more, ended bool) {
	p := w.p
	p.mu.Lock()
	buf := w.control(w.out.buf[:0])
	calls := w.pick(w.out.calls[:0])
	ended = w.state == stateEnded
	more = len(buf)+len(calls)+len(w.out.unsent) > 0
	if !more {
		p.rebalance()
	}
	p.mu.Unlock()
	if ended || !more {
		return more, ended
	}
	switch { // whoever holds mu has said the calls that it is about
	case len(buf) == 0:
	case how == transport.Try: // there may be no room
		w.out.unsent = append(w.out.unsent, unsent{bytes.Clone(buf), nil, transport.Urgent, w.out.encoded})
		w.poke()
	default:
		w.transmit(buf, nil, transport.Urgent)
	}
	buf = buf[:0]
	for _, c := range calls {
		buf = w.encode(buf, c, how)
	}
	if len(buf) > 0 || len(w.out.unsent) > 0 {
		w.transmit(buf, nil, how)
	}
	clear(calls)
	w.out.calls = calls
	if w.out.buf = buf[:0]; cap(buf) > 2*maxBatchBytes { // do not keep the memory of a large argument
		w.out.buf = nil
	}
	return more, false
}

// transmit sends frames after those that have not been sent yet. If sending fails the
// worker is gone, which receive notices.
func (w *worker) transmit(frames []byte, tail wire.Tail, how transport.How) {
	later := how == transport.Try && (tail != nil || len(w.out.unsent) > 0)
	if !later {
		for _, u := range w.out.unsent {
			w.give(u)
		}
		w.out.unsent = nil
		if len(frames) > 0 {
			later = errors.Is(w.give(unsent{frames, tail, how, w.out.encoded}), transport.ErrFull)
		}
	}
	if later {
		w.out.unsent = append(w.out.unsent, unsent{bytes.Clone(frames), tail, transport.Now, w.out.encoded})
		w.poke()
	}
}

// give sends frames, whose calls the worker may say something about from then on.
func (w *worker) give(u unsent) error {
	if u.tail != nil { // of the last call; those before it are complete
		w.out.said.Store(u.upTo - 1)
		u.tail = lastByte{u.tail, func() { w.out.said.Store(u.upTo) }}
	} else {
		w.out.said.Store(u.upTo)
	}
	return w.link.Send(u.frames, u.tail, u.how)
}

// control appends what is to be said besides calls. p.mu is held.
func (w *worker) control(buf []byte) []byte {
	for _, c := range w.cancels {
		buf = appendCancel(buf, c.id, c.n, w.p.cfg.KillGrace)
	}
	if len(w.cancels) > 0 {
		for i := range w.flight {
			if f := &w.flight[i]; !f.cancelled.IsZero() && f.told.IsZero() {
				f.told = time.Now()
			}
		}
	}
	w.cancels = w.cancels[:0]
	if w.recall > 0 {
		buf = wire.Append(buf, wire.Recall, 0, wire.AppendNumber(nil, w.recall))
		w.recall, w.recalled = 0, w.next
	}
	if w.ping {
		w.ping, w.pinged = false, time.Now()
		buf = wire.Append(buf, wire.Ping, 0, nil)
	}
	if w.stopping && w.open == 0 && w.stopSent.IsZero() {
		stop := wire.AppendNumber(nil, 0)
		if w.p.teardown != nil {
			buf = append(buf, w.p.teardown...)
			stop = append(stop, 1) // after that
		}
		buf = wire.Append(buf, wire.Stop, 0, stop)
		w.stopSent = time.Now()
		w.watch(w.p.cfg.KillGrace + reaction)
		w.p.staff() // another may take its place
	}
	return buf
}

// pick takes calls from the queue. p.mu is held.
func (w *worker) pick(picked []flying) []flying {
	q := &w.p.queue
	if !w.hungry() || w.stands() {
		return picked
	}
	for share := -1; !w.stopping && w.state == stateReady && len(w.flight) < maxSpans; {
		e := q.peek()
		if e == nil {
			break
		}
		if share < 0 {
			share = w.p.share(e)
		}
		n := min(w.room(e), share)
		if most := w.p.cfg.MaxTasks; most > 0 {
			n = min(n, most-w.served)
		}
		if n <= 0 {
			break
		}
		s := q.pop(n)
		share -= s.n
		f := flying{span: s, id: w.next, est: time.Duration(e.cost.ran.Load())}
		w.flight = append(w.flight, f)
		w.next += uint64(s.n)
		w.open += s.n
		w.load += f.est * time.Duration(s.n)
		e.out += s.n
		picked = append(picked, f)
		if w.served += s.n; w.served == w.p.cfg.MaxTasks {
			w.stopping = true
		} else if most := w.p.cfg.MaxTasks; most > 0 && w.served >= most-max(1, most/8) {
			w.p.succeed(w)
		}
		w.needsLook = true
		w.p.beatLater()
		w.p.lookAfter()
	}
	if w.low = w.open / 2; len(picked) > 0 {
		w.p.turns++
		w.turn = w.p.turns
	}
	return picked
}

// hungry reports whether the worker has so few calls that it should get more. p.mu is held.
func (w *worker) hungry() bool { return w.open <= max(w.low, w.p.cfg.Concurrency-1) }

// stands reports whether the worker only stands ready for the end of another. p.mu is held.
func (w *worker) stands() bool {
	a := w.after
	return a != nil && a.state != stateEnded && !(a.stopping && a.open == 0)
}

// maxSpans is how many runs of calls a worker has at most: of single calls, it has no more
// than that. What is to be done for each that is cancelled or comes back grows with them.
const maxSpans = 1 << 10

// share returns how many of the calls that wait one worker is to take: what is left for all
// of them is divided, so that none is without work while another has plenty. (This is what
// the literature calls guided self-scheduling: Polychronopoulos and Kuck, 1987.) Calls that
// are not worth another worker's way stay together. p.mu is held.
func (p *Pool) share(e *entry) int {
	if e.b.Size() > 0 {
		return p.queue.n
	}
	ready := 0
	for w := range p.workers {
		if w.state == stateReady && !w.stopping && !w.stands() {
			ready++
		}
	}
	n := (p.queue.n + ready - 1) / max(1, ready)
	if est := time.Duration(e.cost.ran.Load()); est > 0 {
		n = max(n, int(worthSharing/est))
	}
	return n
}

// worthSharing is how much work is not divided among workers: to wake one takes as long.
const worthSharing = 50 * time.Microsecond

// room returns how many more calls of e the worker may have besides those it has.
func (w *worker) room(e *entry) int {
	if e.b.calls.carries() {
		return w.roomForMemory(e)
	}
	once := w.p.cfg.Concurrency
	if n := e.b.Size(); n > 0 {
		return max(n, once) - w.open
	}
	n := e.cost.batch()*once - w.open
	if est := time.Duration(e.cost.ran.Load()); est > 0 {
		n = min(n, int((slice*time.Duration(once)-w.load)/est))
	}
	return max(n, once-w.open)
}

// encode appends the frames of calls. Those that are not wanted, or whose arguments
// cannot be encoded, are answered here.
func (w *worker) encode(buf []byte, f flying, how transport.How) []byte {
	for s, id := f.span, f.id; s.n > 0; {
		if s.e.ctx.Err() != nil {
			w.refuse(s, id, ErrNotWanted)
			break
		}
		start := len(buf)
		var parcel *handover.Parcel
		if s.e.b.calls.carries() {
			parcel = &handover.Parcel{}
			buf = wire.Begin(buf, wire.Handover, 0)
		}
		head := len(buf)
		key, number := s.e.b.Key(s.i)
		before := w.out.key
		if w.out.key = key; key == before {
			key = ""
		}
		buf = wire.AppendHead(wire.Begin(buf, wire.Calls, id), s.e.b.Func(), key, number)
		w.out.encoding.Store(true)
		out, n, tail, err := s.e.b.calls.appendArgs(buf, s.i, s.n, start+maxBatchBytes, parcel)
		w.out.encoding.Store(false)
		size := len(out) - start
		switch buf = out; {
		case tail != nil:
			size += int(tail.Size())
			wire.SetKind(buf, head, wire.Call)
			if buf, err = wire.EndTail(buf, head, tail); err != nil {
				buf, n = buf[:start], 0
			}
		case n == 0:
			buf = buf[:start]
		default:
			e := wire.End(buf, head) // fails only for one call: more than one are less
			if e == nil {
				e = announce(w.link, parcel, buf[start:])
			}
			if hungUp(e) { // the worker is gone, which receive will notice, and the calls are for another
				buf = buf[:start]
			} else if e != nil {
				buf, n, err = buf[:start], 0, e
			}
		}
		parcel.Release()
		if n == 0 || len(buf) == start { // nothing is sent
			w.out.key = before
		}
		s.e.cost.addArguments(n, size)
		_, s = s.split(n)
		id += uint64(n)
		w.out.encoded = id
		if err != nil {
			w.refuse(span{s.e, s.i, 1}, id, err)
			_, s = s.split(1)
			id++
		}
		if tail != nil && n > 0 || len(buf) > maxBatchBytes && how != transport.Try {
			w.transmit(buf, tail, how)
			buf = buf[:0]
		}
	}
	return buf
}

// refuse answers calls that were picked and are not going to be sent.
func (w *worker) refuse(s span, id uint64, err error) {
	if errors.Is(err, ErrNotWanted) {
		s.drop()
	} else {
		s.fail(0, err)
	}
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	for n := s.n; n > 0; {
		landed := w.land(id, n)
		if landed.n == 0 {
			break // it is elsewhere, as the worker has ended
		}
		id, n = id+uint64(landed.n), n-landed.n
		landed.e.end(landed.n)
		w.ended += landed.n
		w.p.drain.done(landed.n)
	}
}

package multiproc

import (
	"fmt"
	"reflect"
	"sync/atomic"

	"github.com/seed84f35039/multiproc/internal/handover"
	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// Shared memory that is in an argument or a result goes beside the frames: see
// internal/handover. A Handover frame says that descriptors have been sent for the next
// frame of calls, or the next answer.

// carriers says that a registered function has an argument or a result that may hold
// shared memory. Without one, workers need no way for descriptors.
var carriers atomic.Bool

// memoryCalls is how many calls with shared memory a worker has at most, and they come
// together: a worker has few descriptors open that it does not need yet, and what was
// sent never has to wait.
const memoryCalls = 32

// side is what is known of the type of an argument or a result.
type side struct {
	wire.Checker
	memory handover.Finder
}

func newSide(t reflect.Type) (side, error) {
	c, err := wire.Check(t)
	s := side{c, handover.Find(t)}
	if err == nil && s.memory.Any() {
		carriers.Store(true)
	}
	return s, err
}

// pack adds the memory of *v to p, which nil is where memory cannot go.
func (s side) pack(v any, p *handover.Parcel) error {
	if p == nil || !s.memory.Any() {
		return nil
	}
	return p.Add(s.memory, v)
}

// decode decodes data into *v, with the memory that came with it.
func (s side) decode(data []byte, v any, came *handover.Arrival) error {
	err := wire.Decode(data, v)
	if err == nil && s.memory.Any() {
		_, err = came.Bind(s.memory, v)
	}
	return err
}

// announce sends a parcel and writes that into the Handover frame at the start of frames.
func announce(conn transport.Conn, p *handover.Parcel, frames []byte) error {
	if p.Empty() {
		return nil
	}
	if err := p.Send(transport.FilesOf(conn)); err != nil {
		return err
	}
	wire.Append(frames[:0], wire.Handover, 1, nil)
	return nil
}

// sendMemory sends the memory of a result ahead of it.
func (s *server) sendMemory(p *handover.Parcel) error {
	if p.Empty() {
		return nil
	}
	frame := wire.Append(nil, wire.Handover, 0, nil)
	if err := announce(s.conn, p, frame); err != nil {
		return err
	}
	return s.conn.Send(frame, nil, transport.Soon)
}

// ship is announce for frames without a Handover frame: it puts one before them.
func ship(conn transport.Conn, p *handover.Parcel, frames []byte) ([]byte, error) {
	if p.Empty() {
		return frames, nil
	}
	frames = append(wire.Append(nil, wire.Handover, 0, nil), frames...)
	return frames, announce(conn, p, frames)
}

// takeIn takes what a Handover frame announces.
func takeIn(conn transport.Conn, m wire.Frame) *handover.Arrival {
	if m.ID == 0 {
		return nil
	}
	return handover.Take(transport.FilesOf(conn))
}

// roomForMemory is room for calls with shared memory.
func (w *worker) roomForMemory(e *entry) int {
	if w.open >= w.p.cfg.Concurrency {
		return 0
	}
	n := e.b.Size()
	if n == 0 {
		n = e.cost.batch()
	}
	return min(max(n, 1), memoryCalls)
}

// lent returns the handles in an argument that is passed on within this process.
func (f *Func[In, Out]) lent(in In) []*handover.Handle {
	if f.in.Value(&in) != nil {
		return nil
	}
	return f.in.memory.Append(nil, &in)
}

// pass makes what the function has returned in this process the caller's, who may never
// see it, but for what was only lent.
func (f *Func[In, Out]) pass(out Out, lent []*handover.Handle) {
	if f.out.Value(&out) == nil {
		handover.Pass(f.out.memory.Append(nil, &out), lent)
	}
}

// onMemory takes a result with which shared memory came. w.in.mu is held.
func (w *worker) onMemory(id uint64, result []byte) error {
	came, ran := w.in.came, w.in.ran
	w.in.came, w.in.ran = nil, 0
	if err := w.pass(); err != nil {
		came.Done(1)
		return err
	}
	w.p.mu.Lock()
	s := w.landSaid(id, 1)
	w.ended++
	w.p.mu.Unlock()
	if s.n == 0 {
		came.Done(1)
		return fmt.Errorf("answer to call %d, which the worker does not have", id)
	}
	w.told(s.e, 1, ran, len(result))
	s.e.b.calls.settleWith(s.i, w.link.PID(), result, came)
	w.settled(landed{span: s})
	return nil
}

// luggage is the shared memory of a call in a worker.
type luggage struct {
	came *handover.Arrival  // with the argument
	goes handover.Parcel    // with the result
	held []*handover.Handle // in argument and result
}

// decode is that of the argument. What came is held from then on.
func (l *luggage) decode(s side, data []byte, v any) error {
	err := s.decode(data, v, l.came)
	if err == nil {
		l.held = s.memory.Append(l.held, v)
	}
	return err
}

// hold takes the handles of the result over.
func (l *luggage) hold(s side, v any) {
	if s.memory.Any() && s.Value(v) == nil {
		l.held = s.memory.Append(l.held, v)
	}
}

// drop closes what the call had, once its answer has left.
func (l *luggage) drop() {
	if l.came == nil && len(l.held) == 0 && l.goes.Empty() {
		return
	}
	l.came.Done(1)
	l.goes.Release()
	for _, h := range l.held {
		handover.Close(h)
	}
	*l = luggage{}
}

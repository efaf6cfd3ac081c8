// Package transport moves frames between a parent and one worker.
//
// [Conn] is the seam. Between processes it is a socket ([New], [Open]), with
// rings in shared memory for the frames where the system has that; within one process
// it is a pair ([Pipe]), which tests use to run schedules, faults and timeouts without
// processes.
package transport

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed84f35039/multiproc/internal/wire"
)

// Conn is one end of a connection.
//
// Send, Wait and Close may be called from several goroutines at once, Wait from one at
// a time. So may Poll and Next, if a lock of the caller's keeps them apart. Close makes
// a blocked Send or Wait return.
type Conn interface {
	// Send sends bytes that hold whole frames, the last one with the tail, if that is
	// not nil. When it returns nil the frames reach the peer even if this process dies
	// in the next moment. It blocks while the peer does not read, unless how is Try:
	// then there must be no tail, and it returns ErrFull and sends nothing.
	Send(frames []byte, tail wire.Tail, how How) error

	// Next makes *f the next frame of those that have been received as a whole, or
	// returns false. The body is valid until the next Poll; that of a frame of more
	// than 64 KiB is never touched again.
	Next(f *wire.Frame) (bool, error)

	// Poll receives what has come, and reports whether anything had. It looks out for
	// it for as long as spin says, which takes a CPU. If nothing has come, Wait
	// returns when there is something: at once, or, if a quorum is given, when it is
	// so many bytes or the peer is not going to send more soon. Poll returns io.EOF when
	// the peer has gone, after all that it sent.
	Poll(spin time.Duration, quorum int) (more bool, err error)

	// Wait waits until Poll may have something to receive, or until the limit has
	// passed; 0 is no limit. It may return early.
	Wait(limit time.Duration) error

	// Close closes this end.
	Close() error
}

// HangUp makes the connection end as if the peer had gone: what it has sent can still be
// received, and then comes io.EOF. Sending fails. It is for when the peer is known to have
// gone, and somebody else may hold its end.
func HangUp(c Conn) {
	if h, ok := c.(interface{ HangUp() }); ok {
		h.HangUp()
	} else {
		c.Close()
	}
}

// Traffic is what goes on on a connection.
type Traffic struct {
	Moved   uint64 // bytes sent and received so far
	Partial bool   // a frame has come in part
	Sending bool   // a Send is under way
}

// TrafficOf returns what goes on on c, or nothing where that is not known. Nobody must be in
// Poll or Next.
func TrafficOf(c Conn) Traffic {
	if c, ok := c.(interface{ Traffic() Traffic }); ok {
		return c.Traffic()
	}
	return Traffic{}
}

// Sending reports whether a Send is under way, as far as c can tell.
func Sending(c Conn) bool {
	s, ok := c.(interface{ Sending() bool })
	return ok && s.Sending()
}

func isLocked(mu *sync.Mutex) bool {
	if mu.TryLock() {
		mu.Unlock()
		return false
	}
	return true
}

// How says how frames are sent.
type How int

// The peer is told at once that something has come where it waits for that, also
// while it is busy, or when that is convenient because more is going to be sent.
const (
	Now    How = iota // if it waits
	Soon              // if it waits for no more than has come
	Urgent            // also if it does not wait
	Try               // as Now, but not if that means to wait
)

// ErrFull is returned by Send where it would have to wait and was told not to.
var ErrFull = errors.New("the peer does not read fast enough")

// Never is a quorum for Poll: Wait returns only when something urgent has come.
const Never = -1

// Recv waits for the next frame, whose body is valid until the next Recv. A frame without
// a body that was sent Soon may wait for what follows it.
func Recv(c Conn) (wire.Frame, error) {
	for {
		var f wire.Frame
		if ok, err := c.Next(&f); ok || err != nil {
			return f, err
		}
		if more, err := c.Poll(0, wire.HeaderSize+1); err != nil {
			return wire.Frame{}, err
		} else if more {
			continue
		}
		if err := c.Wait(0); err != nil {
			return wire.Frame{}, err
		}
	}
}

// stream is a Conn over any stream of bytes that delivers what was written when
// the writer dies.
type stream struct {
	rw io.ReadWriteCloser
	r  *wire.Reader

	sending sync.Mutex // held while writing, so that frames are not interleaved
	moved   atomic.Uint64

	mu   sync.Mutex
	in   []byte // was read and not polled
	err  error  // comes after in
	news []byte // for Wait to read into
}

// NewStream returns a Conn that sends its frames over rw.
func NewStream(rw io.ReadWriteCloser) Conn {
	s := &stream{rw: rw, news: make([]byte, 64<<10)}
	s.r = wire.NewReader((*inbox)(s))
	return s
}

func (s *stream) Send(frames []byte, tail wire.Tail, how How) error {
	if how == Try {
		return ErrFull // nobody knows
	}
	s.sending.Lock()
	defer s.sending.Unlock()
	if _, err := s.rw.Write(frames); err != nil || tail == nil {
		return err
	}
	_, err := io.CopyBuffer(countingWriter{s}, io.NewSectionReader(tail, 0, tail.Size()), make([]byte, block))
	return err
}

// countingWriter writes blocks, and counts them.
type countingWriter struct{ s *stream }

func (w countingWriter) Write(p []byte) (int, error) {
	n, err := w.s.rw.Write(p)
	w.s.moved.Add(uint64(n))
	return n, err
}

// Traffic is for TrafficOf.
func (s *stream) Traffic() Traffic {
	return Traffic{Moved: s.moved.Load(), Partial: s.r.Partial(), Sending: s.Sending()}
}

// Sending is for Sending.
func (s *stream) Sending() bool { return isLocked(&s.sending) }

// block is how much of a tail is sent at a time.
const block = 64 << 10

// HangUp shuts the socket down. Where that cannot be, what has come has a second to be read.
func (s *stream) HangUp() {
	if err := shutDown(s.rw); err != nil {
		time.AfterFunc(time.Second, func() { s.Close() })
	}
}

func (s *stream) Next(f *wire.Frame) (bool, error) { return s.r.Next(f) }

func (s *stream) Poll(time.Duration, int) (more bool, err error) {
	n, err := s.r.Fill()
	s.moved.Add(uint64(n))
	return n > 0, err
}

// Wait reads, unless what it has read before was not polled yet.
func (s *stream) Wait(time.Duration) error {
	s.mu.Lock()
	ready := len(s.in) > 0 || s.err != nil
	s.mu.Unlock()
	if ready {
		return nil
	}
	n, err := s.rw.Read(s.news)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in, s.err = append(s.in, s.news[:n]...), err
	return nil
}

func (s *stream) Close() error { return s.rw.Close() }

// inbox is the Reader's side of a stream.
type inbox stream

func (s *inbox) Read(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.in) == 0 {
		return 0, s.err
	}
	n = copy(p, s.in)
	s.in = s.in[:copy(s.in, s.in[n:])]
	return n, nil
}

// Pipe returns two connected ends within this process. A Send returns when the
// other end has taken all of it.
func Pipe() (parent, worker Conn) {
	var a, b end
	a.PipeReader, b.w = io.Pipe()
	b.PipeReader, a.w = io.Pipe()
	x, y := newQueues()
	return withFiles{NewStream(a), x}, withFiles{NewStream(b), y}
}

// end is one end of a Pipe.
type end struct {
	*io.PipeReader
	w *io.PipeWriter
}

func (e end) Write(p []byte) (int, error) { return e.w.Write(p) }

func (e end) Close() error { return errors.Join(e.w.Close(), e.PipeReader.Close()) }

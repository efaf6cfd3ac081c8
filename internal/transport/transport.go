// Package transport moves frames between a parent and one worker.
//
// [Conn] is the seam: a socket between processes ([Socketpair], [Open]) and a pair
// within one process ([Pipe]), which tests use to run schedules, faults and
// timeouts without processes.
//
// # Concurrency
//
// Send and Close may be called from several goroutines, Recv and Buffered from one
// at a time. Close makes a blocked Send or Recv return.
package transport

import (
	"io"
	"net"
	"sync"

	"github.com/seed84f35039/multiproc/internal/wire"
)

// Conn is one end of a connection.
type Conn interface {
	// Send sends bytes that hold whole frames. When it returns nil the frames
	// reach the peer even if this process dies in the next moment. It blocks while
	// the peer does not read.
	Send(frames []byte) error

	// Recv returns the next frame, whose body is valid until the next Recv. It
	// returns io.EOF when the peer has gone, after all that it sent.
	Recv() (wire.Frame, error)

	// Buffered returns the number of bytes that Recv can use without waiting.
	Buffered() int

	// Close closes this end.
	Close() error
}

// stream is a Conn over any stream of bytes that delivers what was written when
// the writer dies.
type stream struct {
	rw io.ReadWriteCloser
	r  *wire.Reader

	mu sync.Mutex // held while writing, so that frames are not interleaved
}

// NewStream returns a Conn that sends its frames over rw.
func NewStream(rw io.ReadWriteCloser) Conn {
	return &stream{rw: rw, r: wire.NewReader(rw)}
}

func (s *stream) Send(frames []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.rw.Write(frames)
	return err
}

func (s *stream) Recv() (wire.Frame, error) { return s.r.Next() }
func (s *stream) Buffered() int             { return s.r.Buffered() }
func (s *stream) Close() error              { return s.rw.Close() }

// Pipe returns two connected ends within this process. A Send returns when the
// other end has taken all of it.
func Pipe() (parent, worker Conn) {
	a, b := net.Pipe()
	return NewStream(a), NewStream(b)
}

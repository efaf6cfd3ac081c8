package transport

import (
	"errors"
	"os"
	"sync"
)

// Files is a way for open files that goes beside a Conn, in both directions. It has
// nothing to do with the order of frames, except that what was sent can be taken by
// whoever sees a frame that was sent after it. Its methods never wait, and may be called
// from several goroutines at once.
type Files interface {
	// Send sends up to 253 files together. The peer gets duplicates. It fails when
	// the peer has not taken what was sent before: some 200 times of Send.
	Send(files []*os.File) error

	// Take returns what one Send of the peer's has sent, in order. With an error it
	// may return some of the files; they are the caller's either way.
	Take() ([]*os.File, error)

	// Close closes this end, with all that was not taken.
	Close() error
}

// FilesOf returns the way for files that c has, or nil.
func FilesOf(c Conn) Files {
	if c, ok := c.(interface{ Files() Files }); ok {
		return c.Files()
	}
	return nil
}

// withFiles is a Conn with a way for files.
type withFiles struct {
	Conn
	files Files
}

func (c withFiles) Files() Files { return c.files }

func (c withFiles) Traffic() Traffic { return TrafficOf(c.Conn) }

func (c withFiles) Sending() bool { return Sending(c.Conn) }

func (c withFiles) HangUp() { HangUp(c.Conn) }

func (c withFiles) Close() error { return errors.Join(c.Conn.Close(), c.files.Close()) }

var errNoFiles = errors.New("there is no message with descriptors")

// queue is an end of a way for files within one process.
type queue struct {
	in, out *box
}

// box holds what was sent and not taken.
type box struct {
	mu     sync.Mutex
	closed bool
	sent   [][]*os.File
}

// newQueues returns two connected ends.
func newQueues() (a, b Files) {
	x, y := &box{}, &box{}
	return queue{x, y}, queue{y, x}
}

func (q queue) Send(files []*os.File) error {
	dups := make([]*os.File, 0, len(files))
	for _, f := range files {
		d, err := duplicate(f)
		if err != nil {
			closeAll(dups)
			return err
		}
		dups = append(dups, d)
	}
	q.out.mu.Lock()
	defer q.out.mu.Unlock()
	if q.out.closed {
		closeAll(dups)
		return os.ErrClosed
	}
	q.out.sent = append(q.out.sent, dups)
	return nil
}

func (q queue) Take() ([]*os.File, error) {
	q.in.mu.Lock()
	defer q.in.mu.Unlock()
	if len(q.in.sent) == 0 {
		return nil, errNoFiles
	}
	files := q.in.sent[0]
	q.in.sent = q.in.sent[1:]
	return files, nil
}

func (q queue) Close() error {
	q.in.mu.Lock()
	defer q.in.mu.Unlock()
	for _, files := range q.in.sent {
		closeAll(files)
	}
	q.in.sent, q.in.closed = nil, true
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

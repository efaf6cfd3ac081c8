package transport

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed84f35039/multiproc/internal/shm"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// ringSize is how many bytes a ring holds, one in each direction.
const ringSize = 256 << 10

// bell is what a side writes to the socket to wake the other.
const bell = 'b'

// rings is a Conn whose frames go through rings in shared memory. The socket beside
// them tells whoever waits that something has come, and whether the peer is alive.
type rings struct {
	sock io.ReadWriteCloser
	mem  *shm.Memory
	r    *wire.Reader
	buf  [64]byte // for Wait to read into

	sending sync.Mutex
	out     *shm.Writer

	worker    bool // it is the worker's end
	crowd     crowd
	receiving sync.Mutex
	in        *shm.Reader

	// What was done before a Send happens before what is done after the Poll that gets
	// the peer's answer. The memory model does not know that the peer came in between.
	turns atomic.Uint64

	moved  atomic.Uint64 // bytes of tails sent, and received
	closed atomic.Bool

	mu   sync.Mutex
	gone error // why nothing more comes, or nil
}

// newRings returns an end over a socket and memory, which it takes over. first says
// which ring it sends through.
func newRings(sock io.ReadWriteCloser, mem *shm.Memory, first bool) (*rings, error) {
	c := &rings{sock: sock, mem: mem, worker: !first}
	n := shm.RingBytes(ringSize)
	b := mem.Bytes()
	if len(b) < 2*n {
		return nil, fmt.Errorf("the shared memory has %d bytes, which are too few", len(b))
	}
	out, in := b[:n], b[n:2*n]
	if !first {
		out, in = in, out
	}
	var err error
	if c.out, err = shm.NewWriter(out); err != nil {
		return nil, err
	}
	if c.in, err = shm.NewReader(in); err != nil {
		return nil, err
	}
	c.r = wire.NewReader(c.in)
	return c, nil
}

// patience bounds how long a Send sleeps before it looks whether it is still worth it.
const patience = 100 * time.Millisecond

func (c *rings) Send(frames []byte, tail wire.Tail, how How) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	if c.closed.Load() {
		return os.ErrClosed
	}
	if how == Try {
		room, err := c.out.Room()
		if err != nil {
			return err
		}
		if room < len(frames) {
			return ErrFull
		}
	}
	if how != Soon { // what goes with more to come is nothing that anybody waits for
		c.turns.Add(1)
	}
	for {
		n, err := c.out.Write(frames)
		if err != nil {
			return err
		}
		frames = frames[n:]
		if len(frames) == 0 && tail == nil {
			return c.ring(how)
		}
		if len(frames) == 0 {
			return c.sendTail(tail, how)
		}
		if err := c.awaitRoom(); err != nil {
			return err
		}
	}
}

// sendTail sends what frames go on with, in blocks: the peer takes one out while the
// next is copied in.
func (c *rings) sendTail(tail wire.Tail, how How) error {
	for at, size := int64(0), tail.Size(); at < size; {
		space, err := c.out.Space()
		if err != nil {
			return err
		}
		if len(space) == 0 {
			if err := c.awaitRoom(); err != nil {
				return err
			}
			continue
		}
		n, err := tail.ReadAt(space[:min(int64(len(space)), size-at, block)], at)
		if n == 0 {
			return fmt.Errorf("send %d bytes, after %d: %w", size, at, err)
		}
		c.out.Commit(n)
		c.moved.Add(uint64(n))
		at += int64(n)
		if c.out.Wanted(true) {
			if err := c.bell(); err != nil {
				return err
			}
		}
	}
	return c.ring(how)
}

// ring wakes the peer if it has asked for that, or if it is urgent.
func (c *rings) ring(how How) error {
	if c.out.Wanted(how != Soon) || how == Urgent {
		return c.bell()
	}
	return nil
}

func (c *rings) bell() error {
	_, err := c.sock.Write([]byte{bell})
	return err
}

// awaitRoom waits until the peer has taken something out. A worker that has enough to do has
// not asked to be woken, but holds up what else its parent has to say.
func (c *rings) awaitRoom() error {
	if c.out.Wanted(true) || !c.worker {
		if err := c.bell(); err != nil {
			return err
		}
	}
	if err := c.out.AwaitRoom(patience); err != nil {
		return err
	}
	if c.closed.Load() {
		return os.ErrClosed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone != nil {
		return io.ErrClosedPipe
	}
	return nil
}

func (c *rings) Next(f *wire.Frame) (bool, error) { return c.r.Next(f) }

// halfway is how long Poll looks out for the rest of a large frame.
const halfway = 50 * time.Microsecond

func (c *rings) Poll(spin time.Duration, quorum int) (more bool, err error) {
	c.receiving.Lock()
	defer c.receiving.Unlock()
	if c.closed.Load() {
		return false, os.ErrClosed
	}
	c.mu.Lock()
	gone := c.gone // before looking, as what came before it must be seen
	c.mu.Unlock()
	if c.r.Partial() {
		spin = max(spin, halfway)
		if quorum == Never {
			quorum = 1 // the peer waits for room to send the rest
		}
	}
	if spin > 0 && !c.in.Ready() {
		c.in.Disarm()
		shared := c.in.Spin(spin)
		if c.worker {
			c.crowd.note(shared)
		}
	}
	for {
		if n, err := c.r.Fill(); n > 0 || err != nil {
			c.moved.Add(uint64(max(n, 0)))
			c.turns.Load()
			return n > 0, err
		}
		if gone != nil {
			if gone == io.EOF && c.r.Partial() {
				gone = io.ErrUnexpectedEOF
			}
			return false, gone
		}
		if quorum == Never || c.in.Arm(quorum) {
			return false, nil
		}
	}
}

func (c *rings) Wait(limit time.Duration) error {
	c.mu.Lock()
	gone := c.gone
	c.mu.Unlock()
	if gone != nil {
		return nil // as Poll says
	}
	if limit > 0 {
		if d, ok := c.sock.(interface{ SetReadDeadline(time.Time) error }); ok {
			d.SetReadDeadline(time.Now().Add(limit))
			defer d.SetReadDeadline(time.Time{})
		}
	}
	n, err := c.sock.Read(c.buf[:])
	for _, b := range c.buf[:n] {
		if b != bell {
			err = errors.New("the control socket carries something else than bells")
		}
	}
	if errors.Is(err, syscall.ECONNRESET) { // it had not heard every bell
		err = io.EOF
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.mu.Lock()
		c.gone = err
		c.mu.Unlock()
	}
	return nil
}

// Traffic is for TrafficOf.
func (c *rings) Traffic() Traffic {
	return Traffic{Moved: c.moved.Load(), Partial: c.r.Partial(), Sending: c.Sending()}
}

// Sending is for Sending.
func (c *rings) Sending() bool { return isLocked(&c.sending) }

// HangUp has Wait see the end; Poll takes what is in the ring before that.
func (c *rings) HangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() {
		return // the memory may be gone
	}
	if c.gone == nil {
		c.gone = io.EOF
	}
	c.out.Interrupt()
	shutDown(c.sock) // fails only if it was closed
}

// Close also gives the memory back, once nobody is in it.
func (c *rings) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.out.Interrupt()
	err := c.sock.Close()
	c.sending.Lock()
	defer c.sending.Unlock()
	c.receiving.Lock()
	defer c.receiving.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(err, c.mem.Close())
}

// newMemory returns memory for two rings, or nil where there is none to be had.
func newMemory() *shm.Memory {
	mem, err := shm.New("multiproc", 2*shm.RingBytes(ringSize))
	if err != nil {
		return nil // an old kernel, or a sandbox
	}
	return mem
}

// withRings returns the parent's end over sock and mem.
func withRings(sock io.ReadWriteCloser, mem *shm.Memory) (Conn, error) {
	return newRings(sock, mem, true)
}

// openRings returns the worker's end over sock and the memory that descriptor fd is.
func openRings(sock io.ReadWriteCloser, fd uintptr) (Conn, error) {
	mem, err := shm.Open(os.NewFile(fd, "multiproc memory"))
	if err != nil {
		return nil, err
	}
	mem.CloseFile() // one descriptor less that a function can meddle with
	return newRings(sock, mem, false)
}

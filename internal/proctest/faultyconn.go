package proctest

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"sync"
	"time"

	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// Wrap returns the parent's end of a connection on which things go wrong. kill kills the
// worker; it must not wait for that.
func (f *Faults) Wrap(conn transport.Conn, kill func()) transport.Conn {
	c := &faulty{
		conn: conn, kill: kill, plan: f.connect(),
		sending: make(chan struct{}, 1), closed: make(chan struct{}), came: make(chan struct{}, 1),
	}
	c.Conn = transport.NewStream(c)
	go c.pump() // ends when the connection does; nobody waits for it
	return c
}

// faulty is a connection with faults. What comes in is taken apart into bytes, so that
// anything can become of them, and these are a stream to the Conn that it has. A delay holds
// up nobody but who waits for what is late.
type faulty struct {
	transport.Conn // over what comes in
	conn           transport.Conn
	kill           func()
	plan           *plan

	sending chan struct{} // full while something is sent. (A Mutex would stop the clock of synctest)

	closing sync.Once
	closed  chan struct{}
	came    chan struct{} // has an element when Read has something to look at

	mu   sync.Mutex
	news []arrival
	err  error // comes after the news
}

// arrival is bytes that come at some time.
type arrival struct {
	b  []byte
	at time.Time
}

// Files returns the way for files, on which nothing goes wrong.
func (c *faulty) Files() transport.Files { return transport.FilesOf(c.conn) }

// Send never says Try to the connection: what comes before a fault has to wait for its turn.
func (c *faulty) Send(frames []byte, tail wire.Tail, how transport.How) error {
	if how == transport.Try {
		return transport.ErrFull
	}
	c.sending <- struct{}{} // bounded by the Send before, which Close ends
	defer func() { <-c.sending }()

	alive := 0 // where the frames end that the worker gets
	for alive < len(frames) && !c.plan.kill(out) {
		alive = next(frames, alive)
	}
	if alive < len(frames) {
		if alive > 0 {
			c.conn.Send(frames[:alive], nil, transport.Now) // fails only if the worker is gone already
		}
		c.kill()
		return c.conn.Send(frames[alive:], tail, transport.Now)
	}

	what := c.plan.decide(out, len(frames))
	if what.delay > 0 {
		c.pause(what.delay)
	}
	switch {
	case what.drop:
		return nil
	case what.keep >= 0:
		if what.keep > 0 {
			c.conn.Send(frames[:what.keep], nil, transport.Now)
		}
		c.conn.Close()
		return io.ErrClosedPipe
	case what.flip >= 0:
		frames = flip(bytes.Clone(frames), what.flip)
	}
	return c.conn.Send(frames, tail, how)
}

// next returns where the frame ends that begins at that place.
func next(frames []byte, at int) int {
	size := binary.LittleEndian.Uint64(frames[at:]) >> 16
	return min(len(frames), at+wire.HeaderSize+int(size)) // the rest of it may be a tail
}

func flip(b []byte, bit int) []byte {
	b[bit/8] ^= 1 << (bit % 8)
	return b
}

// pause waits, and returns false when the connection is closed meanwhile.
func (c *faulty) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.closed:
		return false
	}
}

// Read returns bytes of what the worker sends.
func (c *faulty) Read(p []byte) (n int, err error) {
	for {
		c.mu.Lock()
		wait := time.Duration(0)
		if len(c.news) > 0 {
			first := &c.news[0]
			if wait = time.Until(first.at); wait <= 0 {
				n = copy(p, first.b)
				if first.b = first.b[n:]; len(first.b) == 0 {
					c.news = c.news[1:]
				}
			}
		} else {
			err = c.err
		}
		c.mu.Unlock()
		switch {
		case n > 0 || err != nil:
			return n, err
		case wait > 0:
			if !c.pause(wait) {
				return 0, os.ErrClosed
			}
		default:
			<-c.came // bounded by pump, which ends with the connection
		}
	}
}

// pump takes what the worker sends, as fast as that comes.
func (c *faulty) pump() {
	var at time.Time
	astray := false // a frame was lost, and since then none has said which call runs
	for {
		f, err := c.receive()
		if err != nil {
			c.end(err)
			return
		}
		for frame := range frames(f) {
			if c.plan.kill(in) {
				c.kill() // it has sent this, and may have sent more
			}
			what := c.plan.decide(in, len(frame))
			astray = what.drop || astray && !saysCall(frame)
			if due := time.Now().Add(what.delay); due.After(at) {
				at = due
			}
			switch {
			case what.drop || astray && frame[0] == short:
				continue
			case what.keep >= 0:
				frame = frame[:what.keep]
			case what.flip >= 0:
				flip(frame, what.flip)
			}
			c.mu.Lock()
			if len(frame) > 0 {
				c.news = append(c.news, arrival{frame, at})
			}
			c.mu.Unlock()
			if what.keep >= 0 {
				c.conn.Close()
				c.end(io.EOF)
				return
			}
			c.look()
		}
	}
}

// end is what Read returns after the news.
func (c *faulty) end(err error) {
	c.mu.Lock()
	c.err = err
	c.mu.Unlock()
	c.look()
}

// look makes Read look what there is.
func (c *faulty) look() {
	select {
	case c.came <- struct{}{}:
	default:
	}
}

// receive is transport.Recv that waits for nothing but the next frame.
func (c *faulty) receive() (f wire.Frame, err error) {
	for {
		if ok, err := c.conn.Next(&f); ok || err != nil {
			return f, err
		}
		if more, err := c.conn.Poll(0, 1); err != nil {
			return f, err
		} else if more {
			continue
		}
		if err := c.conn.Wait(0); err != nil {
			return f, err
		}
	}
}

// short begins a Result in the short form: see package wire.
const short = 0xff

// saysCall reports whether a frame says which call it is about that runs.
func saysCall(frame []byte) bool {
	switch wire.Kind(frame[0] &^ 0x80) {
	case wire.Started, wire.Result, wire.Failed:
		return frame[0] != short
	}
	return false
}

// frames yields the frames that f stands for, as they are sent.
func frames(f wire.Frame) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for _, s := range f.Short {
			if !yield(append([]byte{short, byte(len(s))}, s...)) {
				return
			}
		}
		if len(f.Short) > 0 {
			return
		}
		frame := wire.Append(nil, f.Kind, f.ID, f.Body)
		if f.Next {
			wire.SetNext(frame, 0)
		}
		yield(frame)
	}
}

// Write is there for the stream, which sends nothing.
func (c *faulty) Write([]byte) (int, error) { return 0, os.ErrInvalid }

func (c *faulty) Close() error {
	c.closing.Do(func() { close(c.closed) })
	return c.conn.Close()
}

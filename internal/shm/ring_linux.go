package shm

import (
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A ring of bytes has one writer and one reader, in different processes. Both count
// the bytes that have passed, from 0 on and without an end; the difference is what
// is in the ring. Each side keeps its own count to itself, publishes it, and checks
// the other's against it before use.
//
// Waiting is asked for and granted through two words. The reader that wants to be
// told puts into wake the count that it waits for, the writer that passes it takes
// the word back to 0 and tells it, in whatever way the two have agreed on. The writer
// that wants room sleeps on the word room, a futex.
type header struct {
	written atomic.Uint64 // bytes, by the writer
	_       [56]byte      // words that different sides write are on cache lines of their own
	read    atomic.Uint64 // bytes, by the reader
	_       [56]byte
	wake    atomic.Uint64 // set by the reader to a count, or 0; taken back by the writer
	_       [56]byte
	room    atomic.Uint32 // 1: the writer sleeps; taken back by the reader
	_       [60]byte
}

// headerSize is where the bytes of a ring begin.
const headerSize = int(unsafe.Sizeof(header{}))

// RingBytes returns how much memory a ring takes that holds so many bytes, which must
// be a power of two.
func RingBytes(size int) int { return headerSize + size }

// ErrCorrupt is returned when the other side has put nonsense into a ring.
var ErrCorrupt = errors.New("shared ring is corrupt")

// ring is what both sides of a ring have.
type ring struct {
	h    *header
	data []byte
	mask uint64
}

// newRing returns the ring in mem, which RingBytes(size) gave the length.
func newRing(mem []byte) (ring, error) {
	size := len(mem) - headerSize
	if size <= 0 || bits.OnesCount(uint(size)) != 1 || uintptr(unsafe.Pointer(&mem[0]))%64 != 0 {
		return ring{}, fmt.Errorf("a ring cannot have %d bytes of memory there", len(mem))
	}
	return ring{(*header)(unsafe.Pointer(&mem[0])), mem[headerSize:], uint64(size - 1)}, nil
}

// Writer is the side of a ring that puts bytes in. It is not safe for concurrent use.
type Writer struct {
	ring
	at   uint64 // bytes written
	read uint64 // of them, read by the other side as far as is known
}

// NewWriter returns the writing side of the ring in mem, whose length is what
// [RingBytes] says and which starts at a multiple of 64 bytes. The ring must be new.
func NewWriter(mem []byte) (*Writer, error) {
	r, err := newRing(mem)
	return &Writer{ring: r}, err
}

// Room returns how many bytes can be written at the moment.
func (w *Writer) Room() (int, error) {
	read := w.h.read.Load()
	if read < w.read || read > w.at {
		return 0, ErrCorrupt
	}
	w.read = read
	return len(w.data) - int(w.at-read), nil
}

// Write puts as much of p into the ring as there is room for, and returns how much
// that was. The reader can have it from then on, even if this process dies.
func (w *Writer) Write(p []byte) (n int, err error) {
	room := len(w.data) - int(w.at-w.read)
	if room < len(p) {
		if room, err = w.Room(); err != nil {
			return 0, err
		}
	}
	n = min(room, len(p))
	from := w.at & w.mask
	k := copy(w.data[from:], p[:n])
	copy(w.data, p[k:n])
	w.Commit(n)
	return n, nil
}

// Space returns free memory of the ring to write into, as far as it lies in one piece;
// none if the ring is full. [Writer.Commit] publishes what was written there.
func (w *Writer) Space() ([]byte, error) {
	room, err := w.Room()
	from := int(w.at & w.mask)
	return w.data[from:min(from+room, len(w.data))], err
}

// Commit publishes the first n bytes of what Space returned.
func (w *Writer) Commit(n int) {
	w.at += uint64(n)
	w.h.written.Store(w.at)
}

// Wanted reports whether the reader has to be told of what was written. If so, it is
// for the caller to tell it. Ordinarily that is the case when as much has come as the
// reader waits for, with flush when there is anything.
func (w *Writer) Wanted(flush bool) bool {
	want := w.h.wake.Load()
	if want == 0 || want > w.at && (!flush || w.h.read.Load() == w.at) {
		return false
	}
	return w.h.wake.CompareAndSwap(want, 0)
}

// AwaitRoom waits until there is room, or for that long, or until somebody calls
// [Writer.Interrupt]. It holds a thread.
func (w *Writer) AwaitRoom(limit time.Duration) error {
	w.h.room.Store(1)
	if room, err := w.Room(); err != nil || room > 0 {
		return err
	}
	futexWait(&w.h.room, 1, limit)
	return nil
}

// Interrupt makes AwaitRoom return. It may be called at any time.
func (w *Writer) Interrupt() { w.h.grantRoom() }

func (h *header) grantRoom() {
	if h.room.Load() == 1 && h.room.CompareAndSwap(1, 0) {
		futexWake(&h.room)
	}
}

// Reader is the side of a ring that takes bytes out. It is not safe for concurrent
// use.
type Reader struct {
	ring
	at uint64 // bytes read
}

// NewReader returns the reading side of the ring in mem; see [NewWriter].
func NewReader(mem []byte) (*Reader, error) {
	r, err := newRing(mem)
	return &Reader{ring: r}, err
}

// Ready reports whether there may be something to read.
func (r *Reader) Ready() bool { return r.h.written.Load() != r.at }

// readStep is how much Read takes out before it lets the writer have the room, so that
// both copy at the same time.
const readStep = 64 << 10

// Read takes bytes out, as many as are there and p has room for: possibly none.
func (r *Reader) Read(p []byte) (n int, err error) {
	for n < len(p) {
		have := r.h.written.Load() - r.at
		if have == 0 {
			break
		}
		if have > uint64(len(r.data)) {
			return n, ErrCorrupt
		}
		step := min(int(have), len(p)-n, readStep)
		from := r.at & r.mask
		k := copy(p[n:n+step], r.data[from:])
		copy(p[n+k:n+step], r.data)
		n += step
		r.at += uint64(step)
		r.h.read.Store(r.at)
		// The writer is let in when there is room for some time.
		if have-uint64(step) <= uint64(len(r.data))/2 {
			r.h.grantRoom()
		}
	}
	return n, nil
}

// Arm asks the writer to tell when so many bytes are there, at least 1, and reports
// false if there is something to read already. Then nothing was asked for.
func (r *Reader) Arm(quorum int) bool {
	r.h.wake.Store(r.at + uint64(max(quorum, 1)))
	if r.h.written.Load() == r.at {
		return true
	}
	r.Disarm()
	return false
}

// Disarm takes back what Arm asked for. The writer may be about to tell, though.
func (r *Reader) Disarm() {
	if r.h.wake.Load() != 0 {
		r.h.wake.Store(0)
	}
}

// Spin waits for something to read, for at most that long, without giving the thread
// away; other threads that want its CPU get it. It reports whether some did.
func (r *Reader) Spin(limit time.Duration) (shared bool) {
	began := time.Now()
	for !r.Ready() {
		for range 16 {
			pause()
			if r.Ready() {
				return shared
			}
		}
		before := time.Since(began)
		unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		after := time.Since(began)
		shared = shared || after-before > othersTurn
		if after > limit {
			return shared
		}
	}
	return shared
}

// othersTurn is what it takes at least to give the CPU away and get it back, if somebody
// else wants it; otherwise it takes about a third of that.
const othersTurn = time.Microsecond

// pause spends some tens of nanoseconds.
func pause() {
	for i := range 8 {
		spun.Store(uint32(i))
	}
}

var spun atomic.Uint32

// CPU returns the number of the CPU that this thread runs on.
func CPU() int {
	var cpu uint32
	unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0)
	return int(cpu)
}

func futexWait(word *atomic.Uint32, value uint32, limit time.Duration) {
	ts := unix.NsecToTimespec(int64(limit))
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), 0 /* FUTEX_WAIT */, uintptr(value), uintptr(unsafe.Pointer(&ts)), 0, 0)
}

func futexWake(word *atomic.Uint32) {
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), 1 /* FUTEX_WAKE */, 1<<31-1, 0, 0, 0)
}

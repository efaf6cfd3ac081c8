package wire

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
)

// HeaderSize is the size of a frame's header in bytes.
const HeaderSize = 16

// MaxBody is the largest body that a frame may have, in bytes: 4 GiB, or what a
// slice can hold where that is less. A peer that announces more has lost the
// thread or means harm.
const MaxBody = min(4<<30, math.MaxInt-HeaderSize)

// Large is how many bytes an encoded value has from which on it is not copied more
// often than it must be: see [EncodeSplit] and [Decode].
const Large = 64 << 10

// ErrTooLarge is returned for a frame over [MaxBody].
var ErrTooLarge = errors.New("frame is over the limit of 4 GiB")

// A Frame is one message. The body of a frame that was read belongs to the [Reader];
// see there how long it is valid.
type Frame struct {
	Kind Kind
	Next bool // of a Result or Failed: the call of the next id has started
	ID   uint64
	Body []byte

	// Short are results in the short form: of the call that runs, and those after it.
	// The rest of the frame is zero then.
	Short [][]byte
}

// The first word of a header: kind, whether the next call has started, length of the
// filler, length of filler and body.
const (
	kindMax   = 1<<7 - 1
	nextFlag  = 1 << 7
	fillerAt  = 8
	fillerMax = 1<<8 - 1
	lengthAt  = 16
)

// The header of a short Result has 2 bytes: this, and the length of the result.
const (
	shortKind = kindMax | nextFlag
	shortMax  = 1<<8 - 1
)

// ShortSize is the size of the header of a short Result in bytes.
const ShortSize = 2

// Begin appends the header of a frame to dst. The body is whatever is appended
// next; [End] completes the frame.
func Begin(dst []byte, kind Kind, id uint64) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(kind))
	return binary.LittleEndian.AppendUint64(dst, id)
}

// End writes the length of the body into the frame that began at offset start of
// buf and ends where buf ends.
func End(buf []byte, start int) error {
	n := len(buf) - start - HeaderSize
	if n > MaxBody {
		return ErrTooLarge
	}
	head := binary.LittleEndian.Uint64(buf[start:])
	binary.LittleEndian.PutUint64(buf[start:], head|uint64(n)<<lengthAt)
	return nil
}

// A Tail is the end of a frame's body that is sent from where it lies.
type Tail interface {
	io.ReaderAt
	Size() int64 // in bytes
}

// EndTail is End for a frame that goes on with a tail. It moves the body by a few bytes
// of filler, so that the tail begins at a multiple of 64 bytes in the receiver's memory.
func EndTail(buf []byte, start int, tail Tail) ([]byte, error) {
	n := len(buf) - start - HeaderSize
	filler := -n & 63
	if int64(n+filler) > MaxBody-tail.Size() {
		return buf, ErrTooLarge
	}
	buf = append(buf, make([]byte, filler)...)
	body := buf[start+HeaderSize:]
	copy(body[filler:], body[:n])
	clear(body[:filler])
	head := binary.LittleEndian.Uint64(buf[start:])
	head |= uint64(filler)<<fillerAt | uint64(n+filler+int(tail.Size()))<<lengthAt
	binary.LittleEndian.PutUint64(buf[start:], head)
	return buf, nil
}

// SetNext marks the Result or Failed frame at offset start of buf: the call of the next
// id has started.
func SetNext(buf []byte, start int) { buf[start] |= nextFlag }

// Shorten returns the Result frame that starts at offset start of buf and ends where buf
// ends, which is complete and whose nanoseconds are 0, in the short form that says the
// same, and that the next call has started. It reports false, and changes nothing, if the
// result is too long for that.
func Shorten(buf []byte, start int) (short []byte, ok bool) {
	body := start + HeaderSize + ranSize
	n := len(buf) - body
	if n > shortMax {
		return nil, false
	}
	short = buf[body-ShortSize:]
	short[0], short[1] = shortKind, byte(n)
	return short, true
}

// SetKind changes the kind of the frame that began at offset start of buf.
func SetKind(buf []byte, start int, kind Kind) { buf[start] = byte(kind) }

// Append appends a whole frame to dst. The body must not exceed [MaxBody].
func Append(dst []byte, kind Kind, id uint64, body []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(kind)|uint64(len(body))<<lengthAt)
	dst = binary.LittleEndian.AppendUint64(dst, id)
	return append(dst, body...)
}

package wire

import (
	"encoding/binary"
	"errors"
	"math"
)

// HeaderSize is the size of a frame's header in bytes.
const HeaderSize = 16

// MaxBody is the largest body that a frame may have, in bytes: 4 GiB, or what a
// slice can hold where that is less. A peer that announces more has lost the
// thread or means harm.
const MaxBody = min(4<<30, math.MaxInt-HeaderSize)

// ErrTooLarge is returned for a frame over [MaxBody].
var ErrTooLarge = errors.New("frame is over the limit of 4 GiB")

// A Frame is one message. The body of a frame that was read belongs to the [Reader];
// see there how long it is valid.
type Frame struct {
	Kind Kind
	ID   uint64
	Body []byte
}

// Begin appends the header of a frame to dst. The body is whatever is appended
// next; [End] completes the frame.
func Begin(dst []byte, kind Kind, id uint64) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(kind)<<56)
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
	binary.LittleEndian.PutUint64(buf[start:], head|uint64(n))
	return nil
}

// Append appends a whole frame to dst. The body must not exceed [MaxBody].
func Append(dst []byte, kind Kind, id uint64, body []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(kind)<<56|uint64(len(body)))
	dst = binary.LittleEndian.AppendUint64(dst, id)
	return append(dst, body...)
}

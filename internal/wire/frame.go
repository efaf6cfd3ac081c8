package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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

// A Frame is one message. The body of a frame that was read belongs to the
// [Reader] and is valid until its next Next.
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

// Reader splits a stream of bytes into frames. It is not safe for concurrent use.
type Reader struct {
	r       *bufio.Reader
	discard int    // bytes of the last frame still in r's buffer
	large   []byte // body of the last frame, where it did not fit into r's buffer
}

// NewReader returns a Reader on r.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 64<<10)}
}

// Next returns the next frame. At the end of the stream it returns io.EOF, and
// io.ErrUnexpectedEOF when the stream ends within a frame. Memory is reserved as
// bytes arrive, not as they are announced.
func (r *Reader) Next() (Frame, error) {
	r.r.Discard(r.discard) // cannot fail: these bytes were peeked
	r.discard, r.large = 0, nil
	head, err := r.r.Peek(HeaderSize)
	if err != nil {
		if len(head) > 0 && err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	word := binary.LittleEndian.Uint64(head)
	f := Frame{Kind: Kind(word >> 56), ID: binary.LittleEndian.Uint64(head[8:])}
	n := word & (1<<56 - 1)
	if kindName := f.Kind.String(); kindName == "unknown" {
		return Frame{}, fmt.Errorf("frame of unknown kind %d", f.Kind)
	} else if n > MaxBody {
		return Frame{}, fmt.Errorf("%s frame of %d bytes: %w", kindName, n, ErrTooLarge)
	}
	if int(n) <= r.r.Size()-HeaderSize {
		b, err := r.r.Peek(HeaderSize + int(n))
		if err != nil {
			return Frame{}, unexpected(err)
		}
		r.discard = len(b)
		f.Body = b[HeaderSize:]
		return f, nil
	}
	r.r.Discard(HeaderSize)
	if r.large, err = readGrowing(r.r, int(n)); err != nil {
		return Frame{}, unexpected(err)
	}
	f.Body = r.large
	return f, nil
}

// Buffered returns how many bytes have been read from the stream but not yet
// returned as frames: when it is not 0, Next may not need to wait.
func (r *Reader) Buffered() int { return r.r.Buffered() - r.discard }

// readGrowing reads n bytes, doubling its buffer only when the bytes to fill the
// last one have come.
func readGrowing(r io.Reader, n int) ([]byte, error) {
	buf := make([]byte, min(n, 1<<20))
	for read := 0; ; {
		m, err := io.ReadFull(r, buf[read:])
		if err != nil {
			return nil, err
		}
		if read += m; read == n {
			return buf, nil
		}
		grown := make([]byte, min(n, 2*len(buf)))
		copy(grown, buf)
		buf = grown
	}
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

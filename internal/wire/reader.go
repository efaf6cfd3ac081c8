package wire

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/seed84f35039/multiproc/internal/shm"
)

// readBuffer is the size of a Reader's buffer in bytes. A frame that does not fit gets
// memory of its own.
const readBuffer = Large

// Reader splits a stream of bytes into frames. It never waits by itself: Fill takes
// what the stream has, Next returns the frames that are complete. It is not safe for
// concurrent use.
type Reader struct {
	src      io.Reader
	buf      []byte
	from, to int      // the part of buf that was read and not returned
	shorts   [][]byte // scratch of Next

	large  Frame // the frame that does not fit into buf, or zero; its Body is what has come
	size   int   // of its filler and whole body
	filler int   // of that, filler
}

// NewReader returns a Reader on src, whose Read may return 0 bytes and no error when
// it has none at the moment.
func NewReader(src io.Reader) *Reader {
	return &Reader{src: src, buf: make([]byte, readBuffer)}
}

// Fill reads once from the stream, and returns how many bytes came. The bodies of the
// frames that Next returned before are not valid any more, but for those of more than
// 64 KiB: they are never used again. At the end of the stream the error is io.EOF, or
// io.ErrUnexpectedEOF where that is within a frame; frames that Next has not returned
// yet must be taken before.
func (r *Reader) Fill() (n int, err error) {
	if r.large.Kind != 0 {
		n, err = r.src.Read(r.room())
		r.large.Body = r.large.Body[:len(r.large.Body)+n]
	} else {
		if r.from > 0 {
			r.to, r.from = copy(r.buf, r.buf[r.from:r.to]), 0
		}
		n, err = r.src.Read(r.buf[r.to:])
		r.to += n
	}
	if n == 0 && err == io.EOF && r.Partial() {
		err = io.ErrUnexpectedEOF
	} else if n > 0 && err == io.EOF {
		err = nil // it comes again
	}
	return n, err
}

// Partial reports whether a part of a frame has come.
func (r *Reader) Partial() bool { return r.large.Kind != 0 || r.from < r.to }

// room returns memory for more of the large frame. It is reserved as bytes arrive, not
// as they are announced.
func (r *Reader) room() []byte {
	body := r.large.Body
	if len(body) == cap(body) {
		grown := shm.Unzeroed(min(r.size, 16*len(body)))[:len(body)]
		copy(grown, body)
		body, r.large.Body = grown, grown
	}
	return body[len(body):min(cap(body), r.size)]
}

// Next makes *f the next frame, unless more bytes have to come for that. The body is
// valid until Fill is called.
func (r *Reader) Next(f *Frame) (ok bool, err error) {
	have := r.buf[r.from:r.to]
	shorts := r.shorts[:0]
	for len(have) >= ShortSize && have[0] == shortKind {
		n := ShortSize + int(have[1])
		if len(have) < n {
			break
		}
		shorts = append(shorts, have[ShortSize:n:n])
		have = have[n:]
	}
	if len(shorts) > 0 {
		r.from, r.shorts = r.to-len(have), shorts
		*f = Frame{Short: shorts}
		return true, nil
	}
	if len(have) > 0 && have[0] == shortKind {
		return false, nil
	}
	return r.next(f, have)
}

// next is Next for a frame that is not short.
func (r *Reader) next(f *Frame, have []byte) (ok bool, err error) {
	if r.large.Kind != 0 {
		if len(r.large.Body) < r.size {
			return false, nil
		}
		*f, r.large = r.large, Frame{}
		f.Body = f.Body[r.filler:]
		return true, nil
	}
	if len(have) < HeaderSize {
		return false, nil
	}
	word := binary.LittleEndian.Uint64(have)
	*f = Frame{Kind: Kind(word & kindMax), Next: word&nextFlag != 0, ID: binary.LittleEndian.Uint64(have[8:])}
	n, filler := word>>lengthAt, word>>fillerAt&fillerMax
	switch {
	case !f.Kind.known():
		return false, fmt.Errorf("frame of unknown kind %d", f.Kind)
	case n > MaxBody:
		return false, fmt.Errorf("%s frame of %d bytes: %w", f.Kind, n, ErrTooLarge)
	case filler > n:
		return false, fmt.Errorf("%s frame of %d bytes has %d of filler", f.Kind, n, filler)
	}
	have = have[HeaderSize:]
	if uint64(len(have)) >= n {
		f.Body = have[filler:n:n]
		r.from += HeaderSize + int(n)
		return true, nil
	}
	if int(n) > len(r.buf)-HeaderSize {
		r.large, r.size, r.filler, r.from, r.to = *f, int(n), int(filler), 0, 0
		r.large.Body = append(shm.Unzeroed(min(r.size, 1<<20))[:0], have...)
	}
	return false, nil
}

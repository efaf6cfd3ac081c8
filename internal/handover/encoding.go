package handover

import (
	"encoding/binary"
	"errors"
	"math"
)

// named is what the encoding says of memory.
type named struct {
	inode uint64
	size  uint64 // in bytes
}

// The encoding is CBOR: an array of the inode and the size, or an empty one for a nil
// handle. (A null would turn a pointer to a nil handle into a nil pointer.)
const (
	cborArray0 = 0x80
	cborArray2 = 0x82
	cborUint64 = 0x1b
	cborNull   = 0xf6
)

// Marshal returns the encoding of a handle, which must be in a [Parcel]: by itself it
// is worth nothing.
func Marshal(h *Handle) ([]byte, error) {
	if h == nil {
		return []byte{cborArray0}, nil
	}
	h.ref.mu.Lock()
	defer h.ref.mu.Unlock()
	m := h.ref.m
	switch {
	case m == nil && h.ref.named != (named{}):
		return nil, errUnbound
	case m == nil:
		return nil, errClosed
	case m.parcels.Load() == 0:
		return nil, errAlone
	}
	out := append(make([]byte, 0, 19), cborArray2, cborUint64)
	out = binary.BigEndian.AppendUint64(out, m.id.Inode)
	out = append(out, cborUint64)
	return binary.BigEndian.AppendUint64(out, uint64(h.ref.size)), nil
}

var errFormat = errors.New("this is not the encoding of shared memory")

// Unmarshal returns the handle that data stands for. It has to be bound to memory.
func Unmarshal(data []byte) (*Handle, error) {
	if len(data) == 1 && (data[0] == cborArray0 || data[0] == cborNull) {
		return nil, nil
	}
	if len(data) == 0 || data[0] != cborArray2 {
		return nil, errFormat
	}
	var n named
	var ok1, ok2 bool
	n.inode, data, ok1 = splitUint(data[1:])
	n.size, data, ok2 = splitUint(data)
	if !ok1 || !ok2 || len(data) > 0 || n.size == 0 || n.size > math.MaxInt {
		return nil, errFormat
	}
	return &Handle{&ref{named: n}}, nil
}

// splitUint splits data into the unsigned integer that it begins with and the rest.
func splitUint(data []byte) (n uint64, rest []byte, ok bool) {
	if len(data) == 0 {
		return 0, nil, false
	}
	head, data := data[0], data[1:]
	if head < 24 {
		return uint64(head), data, true
	}
	size := 1 << (head - 24)
	if head > cborUint64 || len(data) < size {
		return 0, nil, false
	}
	for _, b := range data[:size] {
		n = n<<8 | uint64(b)
	}
	return n, data[size:], true
}

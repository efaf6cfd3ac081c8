package wire

import (
	"encoding/binary"
	"errors"
	"math"
	"time"
)

// MaxName is the longest name that a function may have, in bytes.
const MaxName = 255

var errTruncated = errors.New("frame body is cut short")

// AppendName appends the name of a function, as the body of a Call frame begins.
func AppendName(dst []byte, name string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(name)))
	return append(dst, name...)
}

// SplitCall splits the body of a Call frame into the name of the function and the
// encoded argument. Both are parts of body.
func SplitCall(body []byte) (name, arg []byte, err error) {
	n, k := binary.Uvarint(body)
	if k <= 0 || n > MaxName || uint64(len(body)-k) < n {
		return nil, nil, errTruncated
	}
	return body[k : k+int(n)], body[k+int(n):], nil
}

// AppendRan appends how long a call ran, as the body of a Result or Failed frame
// begins: nanoseconds in 8 bytes, little-endian.
func AppendRan(dst []byte, ran time.Duration) []byte {
	return binary.LittleEndian.AppendUint64(dst, uint64(max(ran, 0)))
}

// PutRan is AppendRan into the first 8 bytes of dst, for when the time is known only
// after the rest of the body.
func PutRan(dst []byte, ran time.Duration) {
	binary.LittleEndian.PutUint64(dst, uint64(max(ran, 0)))
}

// SplitRan splits the body of a Result or Failed frame into how long the call ran
// and the encoded rest.
func SplitRan(body []byte) (ran time.Duration, rest []byte, err error) {
	if len(body) < 8 {
		return 0, nil, errTruncated
	}
	n := int64(binary.LittleEndian.Uint64(body))
	if n < 0 {
		return 0, nil, errTruncated
	}
	return time.Duration(n), body[8:], nil
}

// AppendNumber appends the body of a Recall or Stop frame.
func AppendNumber(dst []byte, n int) []byte { return binary.AppendUvarint(dst, uint64(n)) }

// Number reads the body of a Recall or Stop frame.
func Number(body []byte) (int, error) {
	n, k := binary.Uvarint(body)
	if k <= 0 || n > math.MaxInt32 {
		return 0, errTruncated
	}
	return int(n), nil
}

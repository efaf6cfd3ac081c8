package wire

import (
	"encoding/binary"
	"errors"
	"math"
	"time"
)

// MaxName is the longest name that a function may have, in bytes.
const MaxName = 255

var (
	errTruncated = errors.New("frame body is cut short")
	errTrailing  = errors.New("frame body goes on after its end")
)

// AppendName appends the name of a function, as the body of a Calls frame begins.
func AppendName(dst []byte, name string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(name)))
	return append(dst, name...)
}

// BeginArg appends the place for the length of an argument, which is whatever is
// appended next; [EndArg] completes it.
func BeginArg(dst []byte) []byte { return append(dst, 0, 0, 0, 0) }

// EndArg writes the length of the argument that began at offset start of buf, where
// BeginArg was called, and ends where buf ends.
func EndArg(buf []byte, start int) error {
	n := len(buf) - start - 4
	if n > MaxBody || uint64(n) > math.MaxUint32 {
		return ErrTooLarge
	}
	binary.LittleEndian.PutUint32(buf[start:], uint32(n))
	return nil
}

// NoLength takes back what BeginArg appended at offset start of buf.
func NoLength(buf []byte, start int) []byte {
	return append(buf[:start], buf[start+4:]...)
}

// SplitCalls splits the body of a Calls frame into the name of the function and the
// encoded arguments; [SplitArg] takes those apart. Both are parts of body.
func SplitCalls(body []byte) (name, args []byte, err error) {
	n, k := binary.Uvarint(body)
	if k <= 0 || n > MaxName || uint64(len(body)-k) < n {
		return nil, nil, errTruncated
	}
	return body[k : k+int(n)], body[k+int(n):], nil
}

// SplitCall splits the body of a Call frame into the name of the function, the encoded
// argument and whether that is complete. Name and argument are parts of body.
func SplitCall(body []byte) (name, arg []byte, whole bool, err error) {
	name, arg, err = SplitCalls(body)
	if err != nil || len(arg) == 0 {
		return nil, nil, false, errTruncated
	}
	last := len(arg) - 1
	return name, arg[:last:last], arg[last] == 1, nil
}

// SplitArg splits arguments into the first one, encoded, and the others.
func SplitArg(args []byte) (arg, rest []byte, err error) {
	if len(args) < 4 {
		return nil, nil, errTruncated
	}
	n := int64(binary.LittleEndian.Uint32(args))
	if args = args[4:]; n > int64(len(args)) {
		return nil, nil, errTruncated
	}
	return args[:n:n], args[n:], nil
}

// CountArgs returns how many arguments there are.
func CountArgs(args []byte) (n int, err error) {
	for ; len(args) > 0; n++ {
		if _, args, err = SplitArg(args); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// ranSize is what AppendRan appends, in bytes.
const ranSize = 8

// AppendRan appends how long a call ran, as the body of a Result or Failed frame
// begins: nanoseconds in 8 bytes, little-endian.
func AppendRan(dst []byte, ran time.Duration) []byte {
	return binary.LittleEndian.AppendUint64(dst, uint64(max(ran, 0)))
}

// PutRan changes what AppendRan appended, first in the body of the frame that began at
// offset start of buf and has ended.
func PutRan(buf []byte, start int, ran time.Duration) {
	filler := int(buf[start+fillerAt/8])
	binary.LittleEndian.PutUint64(buf[start+HeaderSize+filler:], uint64(max(ran, 0)))
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

// AppendNumber appends a number, as in the bodies of Recall, Returned, Stop and Cancel
// frames.
func AppendNumber(dst []byte, n int) []byte { return binary.AppendUvarint(dst, uint64(n)) }

// Number reads the body of a Recall, Returned or Stop frame.
func Number(body []byte) (int, error) {
	n, rest, err := SplitNumber(body)
	if err == nil && len(rest) > 0 {
		err = errTrailing
	}
	return n, err
}

// SplitNumber splits a body into the number that it begins with and the rest.
func SplitNumber(body []byte) (n int, rest []byte, err error) {
	x, k := binary.Uvarint(body)
	if k <= 0 || x > math.MaxInt32 {
		return 0, nil, errTruncated
	}
	return int(x), body[k:], nil
}

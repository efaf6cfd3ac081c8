package wire

import (
	"encoding/binary"
	"errors"
	"math"
	"time"
)

// MaxName is the longest name that a function may have, and MaxKey the longest beginning of
// keys, in bytes.
const (
	MaxName = 255
	MaxKey  = 255
)

var (
	errTruncated = errors.New("frame body is cut short")
	errTrailing  = errors.New("frame body goes on after its end")
)

// Head is how the body of a Calls or Call frame begins.
type Head struct {
	Name  []byte // of the function
	Key   []byte // how the keys of the calls begin; empty: as in the last frame that said it
	First uint64 // number of the first call, with which its key ends; the others follow
}

// AppendHead appends what the body of a Calls or Call frame begins with: see [Head].
func AppendHead(dst []byte, name, key string, first uint64) []byte {
	dst = append(binary.AppendUvarint(dst, uint64(len(name))), name...)
	dst = append(binary.AppendUvarint(dst, uint64(len(key))), key...)
	return binary.AppendUvarint(dst, first)
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

// SplitCalls splits the body of a Calls frame into its head and the encoded arguments;
// [SplitArg] takes those apart. All are parts of body.
func SplitCalls(body []byte) (h Head, args []byte, err error) {
	if h.Name, args, err = splitText(body, MaxName); err != nil {
		return Head{}, nil, err
	}
	if h.Key, args, err = splitText(args, MaxKey); err != nil {
		return Head{}, nil, err
	}
	first, k := binary.Uvarint(args)
	if k <= 0 {
		return Head{}, nil, errTruncated
	}
	h.First = first
	return h, args[k:], nil
}

// splitText splits body into a text of at most most bytes that its length stands before, and
// the rest.
func splitText(body []byte, most uint64) (text, rest []byte, err error) {
	n, k := binary.Uvarint(body)
	if k <= 0 || n > most || uint64(len(body)-k) < n {
		return nil, nil, errTruncated
	}
	return body[k : k+int(n)], body[k+int(n):], nil
}

// SplitCall splits the body of a Call frame into its head, the encoded argument and whether
// that is complete. Head and argument are parts of body.
func SplitCall(body []byte) (h Head, arg []byte, whole bool, err error) {
	h, arg, err = SplitCalls(body)
	if err != nil || len(arg) == 0 {
		return Head{}, nil, false, errTruncated
	}
	last := len(arg) - 1
	return h, arg[:last:last], arg[last] == 1, nil
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

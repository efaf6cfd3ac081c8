package wire

import (
	"encoding/binary"
	"math"
	"strconv"

	"github.com/seed84f35039/multiproc/internal/shm"
)

// The most common types go around the codec. What they become is what the codec makes of
// them, but for slices of numbers: they are typed arrays (RFC 8746), a tag and the memory
// of the numbers, so that nobody looks at each.

// The major types of CBOR, and single items.
const (
	majorUint  = 0 << 5
	majorInt   = 1 << 5
	majorBytes = 2 << 5
	majorText  = 3 << 5

	cborTag1  = 0xd8 // a tag of one byte follows
	cborEmpty = 0xa0 // a map without elements
	cborFalse = 0xf4
	cborTrue  = 0xf5
	cborNull  = 0xf6
	cborF32   = 0xfa
	cborF64   = 0xfb
)

// Tags of typed arrays, little-endian.
const (
	tagUint16 = 69
	tagUint32 = 70
	tagUint64 = 71
	tagInt8   = 72
	tagInt16  = 77
	tagInt32  = 78
	tagInt64  = 79
	tagFloat  = 85
	tagDouble = 86
)

// AppendFast is [EncodeSplit] for values of the common types. It reports false, and
// appends nothing, where *v is of another one. v does not escape from it.
func AppendFast(dst []byte, v any) (out, raw []byte, ok bool) {
	switch v := v.(type) {
	case *int:
		return appendInt(dst, int64(*v)), nil, true
	case *int64:
		return appendInt(dst, *v), nil, true
	case *int32:
		return appendInt(dst, int64(*v)), nil, true
	case *uint64:
		return appendHead(dst, majorUint, *v), nil, true
	case *uint32:
		return appendHead(dst, majorUint, uint64(*v)), nil, true
	case *uint:
		return appendHead(dst, majorUint, uint64(*v)), nil, true
	case *float64:
		return binary.BigEndian.AppendUint64(append(dst, cborF64), math.Float64bits(*v)), nil, true
	case *bool:
		if *v {
			return append(dst, cborTrue), nil, true
		}
		return append(dst, cborFalse), nil, true
	case *struct{}:
		return append(dst, cborEmpty), nil, true
	case *string:
		return append(appendHead(dst, majorText, uint64(len(*v))), *v...), nil, true
	case *[]byte:
		if *v == nil {
			return append(dst, cborNull), nil, true
		}
		dst = appendHead(dst, majorBytes, uint64(len(*v)))
		if len(*v) >= Large {
			return dst, *v, true
		}
		return append(dst, *v...), nil, true
	case *[]int8:
		return appendNumbers(dst, *v, tagInt8)
	case *[]int16:
		return appendNumbers(dst, *v, tagInt16)
	case *[]uint16:
		return appendNumbers(dst, *v, tagUint16)
	case *[]int32:
		return appendNumbers(dst, *v, tagInt32)
	case *[]uint32:
		return appendNumbers(dst, *v, tagUint32)
	case *[]int64:
		return appendNumbers(dst, *v, tagInt64)
	case *[]uint64:
		return appendNumbers(dst, *v, tagUint64)
	case *[]int:
		return appendWords(dst, *v, tagInt64)
	case *[]uint:
		return appendWords(dst, *v, tagUint64)
	case *[]float32:
		return appendNumbers(dst, *v, tagFloat)
	case *[]float64:
		return appendNumbers(dst, *v, tagDouble)
	}
	return dst, nil, false
}

// AppendRun appends arguments as [BeginArg] and [EndArg] do: those in the slice that v
// points to, if they are of some of the common types. It returns how many it appended: all
// or none.
func AppendRun(dst []byte, v any) (out []byte, n int) {
	switch v := v.(type) {
	case *[]int:
		return appendRun(dst, *v, func(dst []byte, x *int) []byte { return appendInt(dst, int64(*x)) })
	case *[]int64:
		return appendRun(dst, *v, func(dst []byte, x *int64) []byte { return appendInt(dst, *x) })
	case *[]int32:
		return appendRun(dst, *v, func(dst []byte, x *int32) []byte { return appendInt(dst, int64(*x)) })
	case *[]uint64:
		return appendRun(dst, *v, func(dst []byte, x *uint64) []byte { return appendHead(dst, majorUint, *x) })
	case *[]float64:
		return appendRun(dst, *v, func(dst []byte, x *float64) []byte {
			return binary.BigEndian.AppendUint64(append(dst, cborF64), math.Float64bits(*x))
		})
	}
	return dst, 0
}

func appendRun[T any](dst []byte, v []T, encode func([]byte, *T) []byte) (out []byte, n int) {
	for i := range v {
		start := len(dst)
		dst = encode(append(dst, 0, 0, 0, 0), &v[i])
		binary.LittleEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	}
	return dst, len(v)
}

// appendHead appends the head of an item: its major type and a number.
func appendHead(dst []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(dst, major|byte(n))
	case n <= math.MaxUint8:
		return append(dst, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, major|27), n)
}

func appendInt(dst []byte, x int64) []byte {
	if x < 0 {
		return appendHead(dst, majorInt, uint64(^x))
	}
	return appendHead(dst, majorUint, uint64(x))
}

func appendNumbers[T shm.Number](dst []byte, s []T, tag byte) (out, raw []byte, ok bool) {
	if s == nil {
		return append(dst, cborNull), nil, true
	}
	if !shm.LittleEndian {
		return dst, nil, false
	}
	raw = shm.Bytes(s)
	dst = appendHead(append(dst, cborTag1, tag), majorBytes, uint64(len(raw)))
	if len(raw) >= Large {
		return dst, raw, true
	}
	return append(dst, raw...), nil, true
}

// appendWords is appendNumbers for what has 64 bits on most systems.
func appendWords[T int | uint](dst []byte, s []T, tag byte) (out, raw []byte, ok bool) {
	if strconv.IntSize != 64 {
		return dst, nil, false
	}
	return appendNumbers(dst, s, tag)
}

// DecodeFast is [Decode] where *v is of one of the common types and data has the form that
// AppendFast gives it. Otherwise it reports false, and Decode is to decide. v does not
// escape from it.
func DecodeFast(data []byte, v any) bool {
	if len(data) == 0 {
		return false
	}
	switch v := v.(type) {
	case *int:
		return decodeInt(data, v)
	case *int64:
		return decodeInt(data, v)
	case *int32:
		return decodeInt(data, v)
	case *uint64:
		return decodeUint(data, v)
	case *uint32:
		return decodeUint(data, v)
	case *uint:
		return decodeUint(data, v)
	case *float64:
		if len(data) != 9 || data[0] != cborF64 {
			return false
		}
		*v = math.Float64frombits(binary.BigEndian.Uint64(data[1:]))
		return true
	case *bool:
		if len(data) != 1 || data[0] != cborTrue && data[0] != cborFalse {
			return false
		}
		*v = data[0] == cborTrue
		return true
	case *struct{}:
		return len(data) == 1 && data[0] == cborEmpty
	case *string:
		s, ok := whole(data, majorText)
		if ok {
			*v = string(s)
		}
		return ok
	case *[]byte:
		b, ok := whole(data, majorBytes)
		switch {
		case !ok:
			return false
		case len(data) > Large:
			*v = b
		default:
			*v = append(make([]byte, 0, len(b)), b...)
		}
		return true
	case *[]int8:
		return decodeNumbers(data, v, tagInt8)
	case *[]int16:
		return decodeNumbers(data, v, tagInt16)
	case *[]uint16:
		return decodeNumbers(data, v, tagUint16)
	case *[]int32:
		return decodeNumbers(data, v, tagInt32)
	case *[]uint32:
		return decodeNumbers(data, v, tagUint32)
	case *[]int64:
		return decodeNumbers(data, v, tagInt64)
	case *[]uint64:
		return decodeNumbers(data, v, tagUint64)
	case *[]int:
		return strconv.IntSize == 64 && decodeNumbers(data, v, tagInt64)
	case *[]uint:
		return strconv.IntSize == 64 && decodeNumbers(data, v, tagUint64)
	case *[]float32:
		return decodeNumbers(data, v, tagFloat)
	case *[]float64:
		return decodeNumbers(data, v, tagDouble)
	}
	return false
}

// DecodeRun is [DecodeFast] for many values: each of data is decoded into the element of
// the slice that v points to at the same place, up to the first where DecodeFast reports
// false. It returns how many that are.
func DecodeRun(data [][]byte, v any) (n int) {
	switch v := v.(type) {
	case *[]int:
		return decodeRun(data, *v, decodeInt)
	case *[]int64:
		return decodeRun(data, *v, decodeInt)
	case *[]int32:
		return decodeRun(data, *v, decodeInt)
	case *[]uint64:
		return decodeRun(data, *v, decodeUint)
	case *[]uint32:
		return decodeRun(data, *v, decodeUint)
	case *[]uint:
		return decodeRun(data, *v, decodeUint)
	case *[]float64:
		return decodeRun(data, *v, func(data []byte, v *float64) bool { return DecodeFast(data, v) })
	case *[]string:
		return decodeRun(data, *v, func(data []byte, v *string) bool { return DecodeFast(data, v) })
	}
	return 0
}

func decodeRun[T any](data [][]byte, v []T, decode func([]byte, *T) bool) int {
	for i := range data {
		if len(data[i]) == 0 || !decode(data[i], &v[i]) {
			return i
		}
	}
	return len(data)
}

// splitHead splits an item, which is not empty, into its major type, its number and what
// follows.
func splitHead(data []byte) (major byte, n uint64, rest []byte, ok bool) {
	major, n, rest = data[0]&0xe0, uint64(data[0]&0x1f), data[1:]
	switch {
	case n < 24:
	case n == 24 && len(rest) >= 1:
		n, rest = uint64(rest[0]), rest[1:]
	case n == 25 && len(rest) >= 2:
		n, rest = uint64(binary.BigEndian.Uint16(rest)), rest[2:]
	case n == 26 && len(rest) >= 4:
		n, rest = uint64(binary.BigEndian.Uint32(rest)), rest[4:]
	case n == 27 && len(rest) >= 8:
		n, rest = binary.BigEndian.Uint64(rest), rest[8:]
	default:
		return 0, 0, nil, false
	}
	return major, n, rest, true
}

// whole returns the bytes of a string of that major type, if data is one.
func whole(data []byte, major byte) ([]byte, bool) {
	m, n, rest, ok := splitHead(data)
	return rest, ok && m == major && n == uint64(len(rest))
}

func decodeInt[T int | int32 | int64](data []byte, v *T) bool {
	if len(data) == 1 && data[0] < 24 {
		*v = T(data[0])
		return true
	}
	major, n, rest, ok := splitHead(data)
	if !ok || len(rest) > 0 || major > majorInt || n > math.MaxInt64 {
		return false
	}
	x := int64(n)
	if major == majorInt {
		x = ^x
	}
	if int64(T(x)) != x {
		return false
	}
	*v = T(x)
	return true
}

func decodeUint[T uint | uint32 | uint64](data []byte, v *T) bool {
	major, n, rest, ok := splitHead(data)
	if !ok || len(rest) > 0 || major != majorUint || uint64(T(n)) != n {
		return false
	}
	*v = T(n)
	return true
}

func decodeNumbers[T shm.Number](data []byte, v *[]T, tag byte) bool {
	if len(data) < 3 || data[0] != cborTag1 || data[1] != tag || !shm.LittleEndian {
		return false
	}
	b, ok := whole(data[2:], majorBytes)
	size := shm.Size[T]()
	if !ok || len(b)%size != 0 {
		return false
	}
	if s, aligned := shm.Numbers[T](b); aligned && len(data) > Large {
		*v = s
		return true
	}
	*v = make([]T, len(b)/size)
	copy(shm.Bytes(*v), b)
	return true
}

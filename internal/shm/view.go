package shm

import (
	"strings"
	"unsafe"
)

// Number is what a slice can hold whose memory means the same in every process of a
// machine, whatever its program.
type Number interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~float32 | ~float64
}

// Size returns how many bytes a number takes.
func Size[T Number]() int {
	var zero T
	return int(unsafe.Sizeof(zero))
}

// Bytes returns the memory of the numbers.
func Bytes[T Number](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*Size[T]())
}

// Numbers is the reverse of [Bytes]. It reports false where b does not begin at a
// multiple of a number's size, or is not a whole number of them.
func Numbers[T Number](b []byte) ([]T, bool) {
	size := Size[T]()
	if len(b) == 0 {
		return []T{}, true
	}
	p := unsafe.Pointer(unsafe.SliceData(b))
	if len(b)%size != 0 || uintptr(p)%uintptr(size) != 0 {
		return nil, false
	}
	return unsafe.Slice((*T)(p), len(b)/size), true
}

// LittleEndian tells how numbers lie in memory here.
var LittleEndian = func() bool {
	x := uint16(1)
	return *(*byte)(unsafe.Pointer(&x)) == 1
}()

// Unzeroed returns n bytes of memory with whatever is in them: clearing what is about to
// be overwritten costs as much as a copy.
func Unzeroed(n int) []byte {
	if n == 0 {
		return nil
	}
	var b strings.Builder // the one way to memory that is not cleared
	b.Grow(n)
	b.WriteByte(0)
	return unsafe.Slice(unsafe.StringData(b.String()), n)
}

// Address returns where b lies in memory.
func Address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

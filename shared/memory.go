package shared

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/seed84f35039/multiproc/internal/handover"
	"github.com/seed84f35039/multiproc/internal/shm"
)

// handle makes Memory known to package multiproc, and nothing of it public.
type handle = handover.Handle

// Memory is a handle on memory that processes can share. It is a small value: copies of
// it are one handle, which is closed once. The zero value is no memory.
type Memory struct{ *handle }

// NewMemory makes memory of that many bytes, all zero. The caller has to close it.
// Creating it takes some microseconds whatever the size: pages are found when they are
// first touched. Where the system has no such memory the error is errors.ErrUnsupported.
func NewMemory(size int) (Memory, error) {
	if !shm.Supported {
		return Memory{}, fmt.Errorf("shared memory on %s: %w", runtime.GOOS, errors.ErrUnsupported)
	}
	h, err := handover.New(size)
	if err != nil {
		return Memory{}, err
	}
	return Memory{h}, nil
}

// Bytes returns the memory: all of it, and not a copy. It must not be touched after
// Close, which takes it out of the address space: that would end the program. When the
// memory is closed already, Bytes returns nil.
func (m Memory) Bytes() []byte { return handover.Bytes(m.handle) }

// Len returns how many bytes the memory has, also after Close.
func (m Memory) Len() int { return handover.Size(m.handle) }

// Keep returns another handle on the same memory, to be closed by itself. A function
// uses it to have the memory of its argument for longer than the call, or to go on using
// that which it returns. It fails when m is closed.
func (m Memory) Keep() (Memory, error) {
	h, err := handover.Keep(m.handle)
	return Memory{h}, err
}

// Close gives the handle back. With the last one in this process, the memory leaves its
// address space; with the last one in any process, it is gone. To close a handle again
// does nothing.
func (m Memory) Close() error { return handover.Close(m.handle) }

// String says what it is and how large.
func (m Memory) String() string { return fmt.Sprintf("shared memory of %d bytes", m.Len()) }

// MarshalCBOR is for package multiproc. Elsewhere it fails, as memory cannot be carried
// by its encoding.
func (m Memory) MarshalCBOR() ([]byte, error) { return handover.Marshal(m.handle) }

// UnmarshalCBOR is for package multiproc.
func (m *Memory) UnmarshalCBOR(data []byte) error {
	h, err := handover.Unmarshal(data)
	m.handle = h
	return err
}

// Number is a type of which [View] can make slices.
type Number = shm.Number

// View returns the memory as numbers, as many as are whole, without copying anything. As
// with Bytes, the slice must not be touched after Close.
func View[T Number](m Memory) []T {
	b := m.Bytes()
	numbers, _ := shm.Numbers[T](b[:len(b)-len(b)%shm.Size[T]()]) // pages are aligned
	return numbers
}

//go:build !linux

package shm

import (
	"errors"
	"os"
)

// Supported tells whether this system has memory that processes can share without a
// name.
const Supported = false

// Memory does not exist on this system.
type Memory struct{}

// New is not available on this system.
func New(string, int) (*Memory, error) { return nil, errors.ErrUnsupported }

// Open is not available on this system; it closes the file.
func Open(file *os.File) (*Memory, error) {
	file.Close()
	return nil, errors.ErrUnsupported
}

// Map is not available on this system; it closes the file.
func Map(file *os.File, size int) (*Memory, error) { return Open(file) }

// ID would identify memory.
type ID struct{ Device, Inode uint64 }

// Identify is not available on this system.
func Identify(*os.File) (ID, int, error) { return ID{}, 0, errors.ErrUnsupported }

// Bytes returns nil.
func (m *Memory) Bytes() []byte { return nil }

// File returns nil.
func (m *Memory) File() *os.File { return nil }

// CloseFile does nothing.
func (m *Memory) CloseFile() error { return nil }

// Close does nothing.
func (m *Memory) Close() error { return nil }

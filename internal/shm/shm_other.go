//go:build !linux

package shm

import "os"

// Supported tells whether this system has memory that processes can share without a
// name.
const Supported = false

// Memory does not exist on this system.
type Memory struct{}

// File returns nil.
func (m *Memory) File() *os.File { return nil }

// CloseFile does nothing.
func (m *Memory) CloseFile() error { return nil }

// Close does nothing.
func (m *Memory) Close() error { return nil }

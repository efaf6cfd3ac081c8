//go:build !linux

package transport

import (
	"errors"
	"io"

	"github.com/seed84f35039/multiproc/internal/shm"
)

// newMemory: frames go through the socket.
func newMemory() *shm.Memory { return nil }

func withRings(io.ReadWriteCloser, *shm.Memory) (Conn, error) { return nil, errors.ErrUnsupported }

func openRings(io.ReadWriteCloser, uintptr) (Conn, error) { return nil, errors.ErrUnsupported }

//go:build !unix

package transport

import (
	"errors"
	"os"
)

// Supported tells whether this system has sockets that a process can inherit.
const Supported = false

// New is not available on this system.
func New() (Conn, []*os.File, error) { return nil, nil, errors.ErrUnsupported }

// NewSocket is not available on this system.
func NewSocket() (Conn, []*os.File, error) { return nil, nil, errors.ErrUnsupported }

// Open is not available on this system.
func Open(fd uintptr, n int) (Conn, error) { return nil, errors.ErrUnsupported }

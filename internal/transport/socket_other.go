//go:build !unix

package transport

import (
	"errors"
	"os"
)

// Supported tells whether this system has sockets that a process can inherit.
const Supported = false

// Socketpair is not available on this system.
func Socketpair() (Conn, *os.File, error) { return nil, nil, errors.ErrUnsupported }

// Open is not available on this system.
func Open(fd uintptr) (Conn, error) { return nil, errors.ErrUnsupported }

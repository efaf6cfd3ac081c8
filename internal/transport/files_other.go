//go:build !linux

package transport

import (
	"errors"
	"os"
)

// AddFiles leaves the connection as it is: this system has no memory to be shared, the
// only thing that needs a way for files.
func AddFiles(conn Conn, theirs []*os.File) (Conn, []*os.File, error) { return conn, theirs, nil }

func openFiles(Conn, uintptr) (Conn, error) { return nil, errors.ErrUnsupported }

func duplicate(*os.File) (*os.File, error) { return nil, errors.ErrUnsupported }

package transport

import (
	"errors"
	"syscall"
)

// shutDown ends both directions of a socket, without closing it. On Linux what has come can
// still be read.
func shutDown(rw any) error {
	sc, ok := rw.(syscall.Conn)
	if !ok {
		return errors.ErrUnsupported
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = syscall.Shutdown(int(fd), syscall.SHUT_RDWR) }); err != nil {
		return err
	}
	return failed
}

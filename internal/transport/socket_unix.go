//go:build unix

package transport

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// Supported tells whether this system has sockets that a process can inherit.
const Supported = true

// Socketpair returns the parent's end of a new unix stream socket, and the file of
// the other end, which the worker inherits and passes to [Open]. Neither is
// inherited by anyone else.
func Socketpair() (Conn, *os.File, error) {
	syscall.ForkLock.RLock() // no process is started between the next two steps
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", os.NewSyscallError("socketpair", err))
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "multiproc parent"), os.NewFile(uintptr(fds[1]), "multiproc worker")
	conn, err := net.FileConn(ours) // a duplicate that waits without holding a thread
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	return NewStream(conn), theirs, nil
}

// Open returns the worker's end of a socket that this process inherited as
// descriptor fd. Its Recv blocks in the system call rather than in the scheduler, so
// that it hears from the parent however busy the other threads are.
func Open(fd uintptr) (Conn, error) {
	var st syscall.Stat_t
	if err := syscall.Fstat(int(fd), &st); err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFSOCK {
		return nil, errors.New("descriptor is not a socket")
	}
	syscall.CloseOnExec(int(fd))
	if err := syscall.SetNonblock(int(fd), false); err != nil {
		return nil, err
	}
	return NewStream(os.NewFile(fd, "multiproc control")), nil
}

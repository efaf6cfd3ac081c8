//go:build unix

package transport

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/seed84f35039/multiproc/internal/shm"
)

// Supported tells whether this system has sockets that a process can inherit.
const Supported = true

// New returns the parent's end of a new connection, and the files of the other end,
// which the worker inherits in this order and passes to [Open]: a unix stream socket
// and, if the system has that, memory for rings. None is inherited by anyone else.
func New() (Conn, []*os.File, error) { return open(newMemory()) }

// NewSocket is New on a system that has no memory for rings.
func NewSocket() (Conn, []*os.File, error) { return open(nil) }

// open returns a connection over a socket and rings in mem, or none where that is nil. It
// takes mem over.
func open(mem *shm.Memory) (Conn, []*os.File, error) {
	ours, theirs, err := socketpair()
	if err != nil {
		if mem != nil {
			mem.Close()
		}
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	if mem == nil {
		return NewStream(ours), []*os.File{theirs}, nil
	}
	conn, err := withRings(ours, mem)
	if err != nil {
		return nil, nil, errors.Join(err, ours.Close(), mem.Close(), theirs.Close())
	}
	return conn, []*os.File{theirs, mem.File()}, nil
}

func socketpair() (ours, theirs *os.File, err error) {
	syscall.ForkLock.RLock() // no process is started between the next two steps
	defer syscall.ForkLock.RUnlock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	syscall.SetNonblock(fds[0], true) // who waits here does so without holding a thread
	return os.NewFile(uintptr(fds[0]), "multiproc parent"), os.NewFile(uintptr(fds[1]), "multiproc worker"), nil
}

// Open returns the worker's end of a connection whose files this process inherited as
// n descriptors from fd on, the third one from [AddFiles]. Its Wait blocks in the scheduler
// and not in a system call: with one thread for Go code, a goroutine that goes on into a
// blocking system call keeps the thread from a call that runs for up to 20 ms.
func Open(fd uintptr, n int) (Conn, error) {
	if n < 1 || n > 3 {
		return nil, fmt.Errorf("a connection cannot have %d descriptors", n)
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(fd), &st); err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFSOCK {
		return nil, errors.New("descriptor is not a socket")
	}
	syscall.CloseOnExec(int(fd))
	if err := syscall.SetNonblock(int(fd), true); err != nil {
		return nil, err
	}
	sock := os.NewFile(fd, "multiproc control")
	if n == 1 {
		return NewStream(sock), nil
	}
	conn, err := openRings(sock, fd+1)
	if err != nil {
		return nil, errors.Join(err, sock.Close())
	}
	if n == 2 {
		return conn, nil
	}
	full, err := openFiles(conn, fd+2)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return full, nil
}

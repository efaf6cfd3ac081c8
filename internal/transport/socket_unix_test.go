//go:build unix

package transport

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
)

// ringPair opens a duplicate of the worker's end, as a worker inherits one.
func ringPair(t testing.TB) (parent, worker Conn) {
	parent, files, err := New()
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 2 {
		t.Skip("this system has no memory for rings")
	}
	// Two neighbouring descriptors.
	var low int
	for low = 500; ; low += 2 {
		if err := errors.Join(dup(files[0], low), dup(files[1], low+1)); err == nil {
			break
		}
	}
	for _, f := range files {
		f.Close()
	}
	if worker, err = Open(uintptr(low), 2); err != nil {
		t.Fatal(err)
	}
	return parent, worker
}

// dup makes a descriptor of exactly that number, if it is free.
func dup(f *os.File, fd int) error {
	got, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_DUPFD_CLOEXEC, uintptr(fd))
	if errno != 0 {
		return errno
	}
	if int(got) != fd {
		syscall.Close(int(got))
		return syscall.EBUSY
	}
	return nil
}

func socketPair(t testing.TB) (parent, worker Conn) {
	ours, theirs, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	fd, err := syscall.Dup(int(theirs.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if worker, err = Open(uintptr(fd), 1); err != nil {
		t.Fatal(err)
	}
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	return NewStream(conn), worker
}

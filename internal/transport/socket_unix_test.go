//go:build unix

package transport

import (
	"syscall"
	"testing"
)

// socketPair opens a duplicate of the worker's end, as a worker inherits one.
func socketPair(t *testing.T) (parent, worker Conn) {
	parent, file, err := Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fd, err := syscall.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	worker, err = Open(uintptr(fd))
	if err != nil {
		t.Fatal(err)
	}
	return parent, worker
}

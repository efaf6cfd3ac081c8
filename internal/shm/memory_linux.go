package shm

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Supported tells whether this system has memory that processes can share without a
// name.
const Supported = true

// Memory is a piece of memory that other processes can map too.
type Memory struct {
	file *os.File
	b    []byte
}

// seals keep every process from changing the size of the memory, which would make
// touching it fatal for the others, and from undoing that.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// New makes zeroed memory of that many bytes, rounded up to whole pages. Pages that nobody
// has touched cost nothing. name is what tools like lsof show.
func New(name string, size int) (*Memory, error) {
	if size <= 0 {
		return nil, fmt.Errorf("make shared memory: size is %d, it must be positive", size)
	}
	size = (size + os.Getpagesize() - 1) &^ (os.Getpagesize() - 1)
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err == unix.EMFILE {
		err = fmt.Errorf("%w: raise the limit of open files (ulimit -n)", err)
	}
	if err != nil {
		return nil, fmt.Errorf("make shared memory: %w", err)
	}
	m := &Memory{file: os.NewFile(uintptr(fd), name)}
	err = unix.Ftruncate(fd, int64(size))
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	}
	if err == nil {
		m.b, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err == unix.EFBIG {
		err = fmt.Errorf("%w: raise the limit of the size of files (ulimit -f)", err)
	}
	if err != nil {
		m.file.Close()
		return nil, fmt.Errorf("make shared memory of %d bytes: %w", size, err)
	}
	return m, nil
}

// Open maps the memory that file refers to and takes file over, whether it fails or
// not. It refuses what [Identify] refuses.
func Open(file *os.File) (*Memory, error) {
	_, size, err := Identify(file)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open shared memory: %w", err)
	}
	unix.CloseOnExec(int(file.Fd()))
	return Map(file, size)
}

// Map is Open for a file that was identified: it must be closed on exec, and size is what
// Identify said.
func Map(file *os.File, size int) (*Memory, error) {
	b, err := unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open shared memory: %w", os.NewSyscallError("mmap", err))
	}
	return &Memory{file, b}, nil
}

// Bytes returns the memory. It must not be touched after Close.
func (m *Memory) Bytes() []byte { return m.b }

// File returns the descriptor, for handing it to another process.
func (m *Memory) File() *os.File { return m.file }

// CloseFile closes the descriptor and leaves the memory mapped.
func (m *Memory) CloseFile() error { return m.file.Close() }

// Close unmaps the memory and closes the descriptor, if it is open. The memory itself
// goes with the last process that has it.
func (m *Memory) Close() error {
	m.file.Close() // it may have been closed before
	if m.b == nil {
		return nil
	}
	err := unix.Munmap(m.b)
	m.b = nil
	return os.NewSyscallError("munmap", err)
}

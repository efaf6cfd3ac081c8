package shm

import (
	"errors"
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
	if err != nil {
		return nil, fmt.Errorf("make shared memory: %w", os.NewSyscallError("memfd_create", err))
	}
	m := &Memory{file: os.NewFile(uintptr(fd), name)}
	err = unix.Ftruncate(fd, int64(size))
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	}
	if err == nil {
		m.b, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		m.file.Close()
		return nil, fmt.Errorf("make shared memory of %d bytes: %w", size, err)
	}
	return m, nil
}

// Open maps the memory that file refers to and takes file over, whether it fails or
// not. It refuses a file that somebody could make smaller.
func Open(file *os.File) (*Memory, error) {
	m := &Memory{file: file}
	err := m.open()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open shared memory: %w", err)
	}
	return m, nil
}

func (m *Memory) open() error {
	fd := int(m.file.Fd())
	unix.CloseOnExec(fd)
	got, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return errors.New("the descriptor is not a memfd")
	}
	if got&seals != seals {
		return errors.New("the memory is not sealed, so its owner could take it away")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Size <= 0 || int64(int(st.Size)) != st.Size {
		return fmt.Errorf("its size is %d", st.Size)
	}
	m.b, err = unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return os.NewSyscallError("mmap", err)
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

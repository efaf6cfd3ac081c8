package shm

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ID identifies memory: descriptors with the same ID, in whatever processes, are of the
// same memory, as long as one of them is open.
type ID struct{ Device, Inode uint64 }

// Identify returns which memory a descriptor is of, and how many bytes that has. It
// refuses what [Open] would not map: whatever is no memfd, or one that somebody could
// make smaller.
func Identify(file *os.File) (id ID, size int, err error) {
	fd := int(file.Fd())
	got, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return ID{}, 0, errors.New("the descriptor is not a memfd")
	}
	if got&seals != seals {
		return ID{}, 0, errors.New("the memory is not sealed, so its owner could take it away")
	}
	if got&(unix.F_SEAL_WRITE|unix.F_SEAL_FUTURE_WRITE) != 0 {
		return ID{}, 0, errors.New("the memory cannot be written to")
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return ID{}, 0, os.NewSyscallError("fstatfs", err)
	}
	if fs.Type == unix.HUGETLBFS_MAGIC { // its pages can be taken away, and may not come again
		return ID{}, 0, errors.New("the memory is of huge pages")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return ID{}, 0, os.NewSyscallError("fstat", err)
	}
	if st.Size <= 0 || int64(int(st.Size)) != st.Size {
		return ID{}, 0, fmt.Errorf("its size is %d", st.Size)
	}
	return ID{uint64(st.Dev), uint64(st.Ino)}, int(st.Size), nil
}

package child

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A tie has the kernel kill a process group when this process dies, whatever of. It is for programs that know nothing
// of [Arm], and leaves them no descriptor: this process holds both ends of pipes, and whoever has the reading end of one
// gets its signal when the last writing end closes (fcntl(2), F_SETOWN and F_SETSIG), provided that it is closed before
// the reading end is. When a process dies, its descriptors are closed in the order of their numbers, from the first or
// from the last: that is for each kernel to choose. So there are two pipes, one for each order.
type tie [2]struct{ read, write int }

// newTie returns a tie without a group. All is ready then, so that hardly any time passes between the start of a group
// and its being tied.
func newTie() (t *tie, err error) {
	t = &tie{{-1, -1}, {-1, -1}}
	for i := range t {
		if err := t.open(i); err != nil {
			t.close()
			return nil, fmt.Errorf("prepare to tie a process group to this process: %w", err)
		}
	}
	return t, nil
}

// to ties a group, whose leader has not been waited for.
func (t *tie) to(group int) error {
	for _, p := range t {
		if _, err := unix.FcntlInt(uintptr(p.read), unix.F_SETOWN, -group); err != nil {
			return fmt.Errorf("tie process group %d to this process: %w", group, os.NewSyscallError("fcntl", err))
		}
	}
	return nil
}

// open makes a pipe whose reading end has the lower number if i is 0, and the higher one if it is 1.
func (t *tie) open(i int) error {
	p := &t[i]
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	p.read, p.write = ends[0], ends[1]
	if lower := p.read < p.write; lower != (i == 0) {
		low, high := &p.read, p.write
		if !lower {
			low, high = &p.write, p.read
		}
		above, err := unix.FcntlInt(uintptr(*low), unix.F_DUPFD_CLOEXEC, high+1)
		if err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		unix.Close(*low)
		*low = above
	}
	return os.NewSyscallError("fcntl", signalOnHangUp(uintptr(p.read), 0))
}

// close unties the group.
func (t *tie) close() {
	if t == nil {
		return
	}
	for _, p := range t {
		if p.read >= 0 {
			unix.Close(p.read) // before the other end, so that there is no signal
			unix.Close(p.write)
		}
	}
}

// signalOnHangUp has the kernel send SIGKILL to a process, to a group if it is negative, or to nobody if it is 0, when the
// other end of the pipe closes.
func signalOnHangUp(fd uintptr, owner int) error {
	for _, set := range []struct{ cmd, arg int }{
		{unix.F_SETSIG, int(syscall.SIGKILL)},
		{unix.F_SETOWN, owner},
		{unix.F_SETFL, unix.O_ASYNC},
	} {
		if _, err := unix.FcntlInt(fd, set.cmd, set.arg); err != nil {
			return err
		}
	}
	return nil
}

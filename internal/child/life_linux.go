package child

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Arm ties the life of this process, and of every other one in its group, to the
// parent that started it: fd is the descriptor after those of Config.Files, the
// reading end of a pipe whose other end only the parent holds. When that end
// closes, the kernel sends SIGKILL to the group (fcntl(2), F_SETSIG and F_SETOWN),
// whatever the processes in it are doing: computing, stopped, or waiting.
//
// The parent-death signal of prctl(2) does less: it comes when the thread that
// forked ends, and it reaches only the process itself.
func Arm(fd uintptr) error {
	if _, err := unix.FcntlInt(fd, unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return fmt.Errorf("arm: descriptor %d: %w", fd, err)
	}
	if err := signalOnHangUp(fd, -unix.Getpgrp()); err != nil {
		return fmt.Errorf("arm: %w", os.NewSyscallError("fcntl", err))
	}
	// The parent may have died before the signal was asked for.
	poll := []unix.PollFd{{Fd: int32(fd)}}
	if n, err := unix.Poll(poll, 0); err == nil && n > 0 && poll[0].Revents&unix.POLLHUP != 0 {
		KillGroup()
	}
	return nil
}

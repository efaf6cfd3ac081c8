package child

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// watches tells whether the end of a child is noticed here before it is reaped.
const watches = true

// watch waits until the child itself has ended, however many others hold what it had
// open, and kills those of its group: its id is still its own, as it has not been
// reaped.
func (c *Child) watch(onExit func()) {
	awaitExit(c.PID())
	c.Signal(syscall.SIGKILL)
	close(c.exited)
	if onExit != nil {
		onExit()
	}
}

// awaitExit waits until the process has ended, or has been reaped.
func awaitExit(pid int) {
	if fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK); err == nil {
		f := os.NewFile(uintptr(fd), "pidfd")
		defer f.Close()
		if conn, err := f.SyscallConn(); err == nil && conn.Read(func(uintptr) bool { return ended(pid, unix.WNOHANG) }) == nil {
			return
		}
	}
	ended(pid, 0) // without a pidfd to poll, this holds a thread
}

// ended reports whether the process has ended, or has been reaped.
func ended(pid, flags int) bool {
	var info unix.Siginfo
	for {
		switch err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT|flags, nil); err {
		case unix.EINTR:
		case nil:
			return info.Signo != 0
		default:
			return true // it has been reaped
		}
	}
}

// Exited reports whether the child itself has ended.
func (c *Child) Exited() bool { return ended(c.PID(), unix.WNOHANG) }

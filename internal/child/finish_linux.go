package child

import "golang.org/x/sys/unix"

// finish waits until the child ends by itself, without reaping it, so that its id
// stays its own until its group is killed.
func (c *Child) finish() Ended {
	for unix.Waitid(unix.P_PID, c.PID(), nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	return c.Reap()
}

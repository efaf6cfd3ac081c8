//go:build unix

package main

import "syscall"

// filesLimit returns how many descriptors this process may have, or 0 if that is not known.
func filesLimit() int {
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) != nil {
		return 0
	}
	return int(min(r.Cur, 1<<30))
}

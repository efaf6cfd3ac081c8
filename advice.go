package multiproc

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// advice is what to do when the system has no more of something that a worker needs.
var advice = []struct {
	errno syscall.Errno
	do    string
}{
	{syscall.EMFILE, "this process may not open more files: raise that limit (ulimit -n), or have fewer workers"},
	{syscall.ENFILE, "the system has no more open files: raise that limit (fs.file-max), or have fewer workers"},
	{syscall.EAGAIN, "there may not be more processes and threads: raise the limit of the user (ulimit -u) or of the container (pids.max), or have fewer workers"},
	{syscall.ENOMEM, "the system has no memory for another process: have fewer workers"},
}

// advise adds to an error of starting a worker what can be done about it.
func advise(err error) error {
	for _, a := range advice {
		if errors.Is(err, a.errno) || a.errno == syscall.EAGAIN && noThread(err) {
			return fmt.Errorf("%w: %s", err, a.do)
		}
	}
	return err
}

// noThread reports whether a worker has died as it could not have another thread: the Go
// runtime says so, without and with the C library.
func noThread(err error) bool {
	crash, ok := errors.AsType[*CrashError](err)
	return ok && (strings.HasPrefix(crash.Reason, "fatal error: newosproc") || strings.HasPrefix(crash.Reason, "runtime/cgo: pthread_create failed"))
}

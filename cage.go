package multiproc

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/seed84f35039/multiproc/internal/child"
)

// A Cage holds worker processes: it limits from outside what a process can use, together
// with all that it starts. Package cgroup has one; it belongs to [PoolConfig] or
// [ProcessConfig].
type Cage interface {
	// Admit takes in a process that has just been started and has not got a call yet. An
	// error is one of starting the worker; the process is killed.
	//
	// release is called once, when the process has ended and has been waited for. It kills
	// what is left in the cage of what the process has started, wherever that has got to,
	// and removes what Admit has made. It reports whether the system ended something in
	// there for lack of memory, and has to return within a second or so. Its error is told
	// in the Reason of a *CrashError if the worker left no better one, and to nobody else: a
	// Cage that wants it known returns it where it is closed.
	//
	// Several goroutines may call Admit, and release, at once.
	Admit(pid int) (release func() (outOfMemory bool, err error), err error)
}

// noCage is the Cage of a worker without one.
func noCage() (bool, error) { return false, nil }

// admit puts a process that was started into the cage, if there is one. If that fails the
// process is ended.
func admit(cage Cage, l procLink) (link, error) {
	if cage == nil {
		return l, nil
	}
	release, err := cage.Admit(l.PID())
	if err == nil && release == nil {
		err = errors.New("the Cage returned neither an error nor a function that releases")
	}
	if err != nil {
		l.Signal(syscall.SIGKILL)
		l.Child.Reap()
		l.Close()
		return nil, fmt.Errorf("put the worker into its Cage: %w", err)
	}
	l.release = sync.OnceValues(release)
	return l, nil
}

// Reap ends the process, as that of [child.Child], and releases it from its cage.
func (l procLink) Reap() child.Ended {
	e := l.Child.Reap()
	oom, err := l.release()
	switch {
	case oom && e.Signal() == syscall.SIGKILL:
		e.Reason = outOfMemory + "it was killed, and the kernel has killed something in its Cage for lack of memory"
	case err != nil && e.Err == nil:
		e.Err = fmt.Errorf("release from the Cage: %w", err)
	}
	return e
}

// Package cgroup limits worker processes by control groups of Linux: memory, CPU time and the
// number of processes, each worker together with all that it starts.
//
//	cage, err := cgroup.New(cgroup.Config{Memory: 512 << 20, CPUs: 1})
//	if err != nil {
//		return err // errors.ErrUnsupported where this process owns no cgroup
//	}
//	defer cage.Close()
//	pool := multiproc.NewPool(multiproc.PoolConfig{Cage: cage})
//	defer pool.Close()
//
// A worker that needs more memory than that is killed by the kernel. That costs the call that it ran,
// which gets a *multiproc.CrashError whose OutOfMemory is true. When a worker has ended,
// everything that it has started is killed, also what has left its process group.
//
// This is for programs that own a cgroup; [New] says what that takes. PoolConfig.MemoryLimit
// needs no privileges, but counts what the worker itself allocates, not what it starts.
//
// It is a package of its own because of what it imports: programs that do not import it are
// not made larger by it (decision 0012).
//
// # Groups
//
// A [Cage] is a group multiproc-<pid>-<n> below that of this process, in which each worker has
// a group of its own. In the hierarchies of cgroup v1 that is so once for each controller.
// The group is removed by [Cage.Close]. If this process is killed before that, the
// workers end and the groups stay; the next New in the same place removes them, and kills what
// may be left in them. It knows the groups of those who live by a lock that the kernel gives
// back at their end.
//
// # Concurrency
//
// The methods of Cage may be called from several goroutines at once.
package cgroup

import (
	"errors"
	"fmt"
	"math"
	"path"

	"github.com/seed84f35039/multiproc"
)

// Config configures [New]. The zero value has no limits, and still ends all that a worker has
// started.
type Config struct {
	// Memory is how much memory a worker may use, with all that it starts, in bytes: also
	// what the kernel has for it, and pages of files that it reads, which the kernel drops
	// first. Swap is no way around it. What the worker has touched before it is admitted,
	// in its first milliseconds, is not counted. At the limit the kernel kills: with cgroup
	// v2 the worker and all that it has started, with v1 the largest process of these, which
	// may be another than the worker. 0 means no limit.
	Memory int64

	// CPUs is how many CPUs a worker may take, with all that it starts: 1 means the whole time of one, 1.5 that of one
	// and a half. It is held back when it has used up what it may in a tenth of a second. At
	// least 0.01. 0 means no limit.
	CPUs float64

	// PIDs is how many threads and processes a worker may have, with all that it starts. At
	// the limit no more can be started. A Go program has about five threads more than
	// GOMAXPROCS, and ends when it cannot have another. 0 means no limit.
	PIDs int

	// Parent is the group below which groups are made, as /proc/self/cgroup names groups,
	// such as "/user.slice/mine". It has to exist; with cgroup v1, in the hierarchies of all
	// controllers that are needed. Empty means the group of this process.
	Parent string

	// MoveSelf has New move this process, and all others that are in its group, to a group
	// multiproc-main below that, if need be. Cgroup v2 needs it where this process is in the group below
	// which groups with limits are made: there must not be processes. They stay
	// there after Close.
	MoveSelf bool
}

// check returns everything that is wrong with the configuration.
func (c Config) check() error {
	var errs []error
	if c.Memory < 0 {
		errs = append(errs, fmt.Errorf("%s is %d; give bytes, or 0 for no limit", "Memory", c.Memory))
	}
	if c.CPUs != 0 && !(c.CPUs >= 0.01 && c.CPUs <= math.MaxInt32) {
		errs = append(errs, fmt.Errorf("%s is %v; give at least 0.01, or 0 for no limit", "CPUs", c.CPUs))
	}
	if c.PIDs < 0 {
		errs = append(errs, fmt.Errorf("%s is %d; give a number of threads and processes, or 0 for no limit", "PIDs", c.PIDs))
	}
	if c.Parent != "" && (!path.IsAbs(c.Parent) || path.Clean(c.Parent) != c.Parent) {
		errs = append(errs, fmt.Errorf("%s is %q; give an absolute path without . and .., as in /proc/self/cgroup", "Parent", c.Parent))
	}
	return errors.Join(errs...)
}

// controllers returns the names of the controllers that the limits need.
func (c Config) controllers() (names []string) {
	if c.Memory > 0 {
		names = append(names, "memory")
	}
	if c.CPUs > 0 {
		names = append(names, "cpu")
	}
	if c.PIDs > 0 {
		names = append(names, "pids")
	}
	return names
}

// Cage holds workers in groups; see [multiproc.Cage]. It must be closed, after what uses it.
type Cage struct{ t *tree }

var _ multiproc.Cage = (*Cage)(nil)

// New returns a Cage with these limits, after it has tried whether they can be set, and
// removes what dead processes have left in the same place.
//
// It needs a cgroup that this process may write to, with the controllers of the limits: as
// root outside of containers; in a container whose /sys/fs/cgroup can be written, as with
// docker run --privileged --cgroupns=private; or where systemd has handed over a group, as with
// systemd-run --user --scope -p Delegate=yes. With cgroup v2 the last two need
// [Config].MoveSelf too. Without such a group, and on other systems than Linux, the error wraps
// errors.ErrUnsupported.
func New(cfg Config) (*Cage, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("cgroup: Config: %w", err)
	}
	t, err := plant(cfg)
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	return &Cage{t}, nil
}

// Admit makes a group with the limits and puts a process there. It implements
// [multiproc.Cage], which says what release does.
func (c *Cage) Admit(pid int) (release func() (outOfMemory bool, err error), err error) {
	if c == nil || c.t == nil {
		return nil, errors.New("cgroup: the Cage was not made by cgroup.New")
	}
	release, err = c.t.admit(pid)
	if err != nil {
		return nil, fmt.Errorf("cgroup: admit process %d: %w", pid, err)
	}
	return release, nil
}

// Close kills what is in the groups and removes them. The error says what is left after a
// second. After Close nothing is admitted any more. Close may be called again.
func (c *Cage) Close() error {
	if c == nil || c.t == nil {
		return nil
	}
	if err := c.t.close(); err != nil {
		return fmt.Errorf("cgroup: close: %w", err)
	}
	return nil
}

package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// patience is how long it may take until processes that were killed are gone.
const patience = time.Second

// end kills what is in the groups and removes them.
func end(dirs ...string) error {
	deadline := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause *= 2 {
		var errs []error
		for _, dir := range dirs {
			errs = append(errs, remove(dir))
		}
		err := errors.Join(errs...)
		if err == nil || !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return err
		}
		for _, dir := range dirs {
			kill(dir)
		}
		time.Sleep(pause) // the kernel of cgroup v1 does not tell when a group is empty
	}
}

// remove removes a group with those below it, if nothing is in them. EBUSY means that there is.
func remove(dir string) error {
	err := syscall.Rmdir(dir)
	if err == syscall.EBUSY || err == syscall.ENOTEMPTY {
		for _, sub := range groups(dir) {
			if err := remove(sub); err != nil {
				return err
			}
		}
		err = syscall.Rmdir(dir)
	}
	if err == nil || err == syscall.ENOENT {
		return nil
	}
	return &fs.PathError{Op: "remove", Path: dir, Err: err}
}

// groups returns the groups directly below one.
func groups(dir string) (dirs []string) {
	entries, _ := os.ReadDir(dir) // if it has gone there are none
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(dir, e.Name()))
		}
	}
	return dirs
}

// kill kills what is in a group and those below it, as far as it finds it; more may have been
// started meanwhile.
func kill(dir string) {
	if write(filepath.Join(dir, "cgroup.kill"), "1") == nil { // Linux 5.14, cgroup v2
		return
	}
	pids := members(dir)
	var ps []*os.Process
	for _, pid := range pids {
		if p, err := os.FindProcess(pid); err == nil {
			defer p.Release()
			ps = append(ps, p)
		}
	}
	// Now that there are pidfds, a process that has still that id is the one that is killed.
	now := members(dir)
	for _, p := range ps {
		if slices.Contains(now, p.Pid) {
			p.Signal(syscall.SIGKILL)
		}
	}
	for _, sub := range groups(dir) {
		kill(sub)
	}
}

// members returns the processes that are in a group itself.
func members(dir string) (pids []int) {
	words, _ := fields(filepath.Join(dir, "cgroup.procs")) // if it has gone there are none
	for _, word := range words {
		if pid, err := strconv.Atoi(word); err == nil && pid > 0 { // 0: of another pid namespace
			pids = append(pids, pid)
		}
	}
	return pids
}

// lock takes the lock by which others know that a group is in use. It is given back when the file
// is closed or this process ends. The error is errTaken when somebody else has it, or has
// removed the group.
func lock(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errTaken
	} else if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		mine, errMine := f.Stat()
		there, errThere := os.Stat(dir)
		if errMine == nil && errThere == nil && os.SameFile(mine, there) {
			return f, nil
		}
		err = syscall.EWOULDBLOCK
	}
	f.Close()
	if err == syscall.EWOULDBLOCK {
		return nil, errTaken
	}
	return nil, fmt.Errorf("lock %s: %w", dir, err)
}

var errTaken = errors.New("the group belongs to another process")

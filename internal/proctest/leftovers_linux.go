package proctest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// processes returns those that this one, or one that it started, has started: children
// that have not been waited for, and whoever has the mark in its environment.
func processes(mark string) (found []string) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if pid == os.Getpid() {
			continue
		}
		env, _ := os.ReadFile(dir + "/environ") // unreadable or empty where it is another user's, or has ended
		parent, state := status(dir)
		if parent == os.Getpid() || slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool { return string(v) == mark }) {
			cmd, _ := os.ReadFile(dir + "/cmdline")
			found = append(found, fmt.Sprintf("%d (%s): %s", pid, state, bytes.ReplaceAll(cmd, []byte{0}, []byte(" "))))
		}
	}
	return found
}

// status returns the parent of a process and its state, "Z" if it has ended.
func status(dir string) (parent int, state string) {
	stat, _ := os.ReadFile(dir + "/stat")
	_, rest, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	if fields := strings.Fields(rest); len(fields) > 1 {
		state = fields[0]
		parent, _ = strconv.Atoi(fields[1])
	}
	return parent, state
}

// Running reports whether a process has not ended.
func Running(pid int) bool {
	_, state := status(fmt.Sprintf("/proc/%d", pid))
	return state != "" && state != "Z" && state != "X"
}

// Stopped reports whether a process is stopped by a signal.
func Stopped(pid int) bool {
	_, state := status(fmt.Sprintf("/proc/%d", pid))
	return state == "T"
}

// Group returns the processes in a process group that have not ended.
func Group(id int) []int {
	return alive(func(pid int) bool {
		group, err := syscall.Getpgid(pid)
		return err == nil && group == id
	})
}

// Strays returns the processes with the variable in their environment that have not
// ended, wherever they have got to.
func Strays(variable string) []int {
	return alive(func(pid int) bool {
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		return slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool { return string(v) == variable })
	})
}

// alive returns the processes that have not ended and are such.
func alive(such func(pid int) bool) (pids []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && such(pid) && Running(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// files returns what the descriptors of this process refer to, but for those by which
// the runtime and the test framework themselves wait.
func files() (targets []string) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && target != "anon_inode:[eventpoll]" && target != "anon_inode:[eventfd]" { // err: that of ReadDir
			targets = append(targets, target)
		}
	}
	return targets
}

// sharedMemory returns the files in the directory for shared memory, and what this
// process has mapped of memory without a name.
func sharedMemory() (names []string) {
	entries, _ := os.ReadDir("/dev/shm")
	for _, e := range entries {
		names = append(names, e.Name())
	}
	maps, _ := os.ReadFile("/proc/self/maps")
	for line := range strings.Lines(string(maps)) {
		if _, memfd, ok := strings.Cut(line, "/memfd:"); ok {
			names = append(names, "mapping of "+strings.TrimSpace(memfd))
		}
	}
	return names
}

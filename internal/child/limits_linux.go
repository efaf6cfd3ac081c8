package child

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Apply sets the limits for this process, which should be the leader of its process group.
// They hold for what it starts too, each process by itself, but for the soft limit of
// memory.
//
// Memory is private memory that can be written, beyond what the process has at that time:
// the Go heap, stacks, and what C allocates, but not memory that is shared. It needs no
// privileges (RLIMIT_DATA), and is hard: an allocation beyond it fails, which ends a Go
// program with "fatal error: runtime: out of memory". At 80 % of it the collector begins to
// work harder (GOMEMLIMIT), unless it is told to do so at less already. The Go heap grows by
// arenas of 64 MiB, which count from their first page on, and in a program with the C library
// the stacks of threads do too. So much more is what a process can get until it is stopped
// here, 80 MiB, or 144 with the C library; [PrivateMemory] tells it more exactly.
func (l Limits) Apply() error {
	if l.zero() {
		return nil
	}
	var errs []error
	if l.Memory > 0 {
		errs = append(errs, limitMemory(l.Memory))
	}
	if l.OpenFiles > 0 {
		n := uint64(l.OpenFiles)
		// Not of x/sys: the runtime would give what it starts the limit that it found.
		errs = append(errs, os.NewSyscallError("setrlimit RLIMIT_NOFILE", syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n})))
	}
	if l.Nice != 0 {
		errs = append(errs, renice(l.Nice))
	}
	if len(l.CPUs) > 0 {
		errs = append(errs, bind(l.CPUs))
	}
	return errors.Join(errs...)
}

func limitMemory(n int64) error {
	have, err := mapped()
	if err != nil {
		return err
	}
	have += arena
	if usesC() {
		have += cThreads * cStack
	}
	limit := uint64(have + n)
	if err := syscall.Setrlimit(syscall.RLIMIT_DATA, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
		return os.NewSyscallError("setrlimit RLIMIT_DATA", err)
	}
	if soft := n / 5 * 4; soft < debug.SetMemoryLimit(-1) {
		debug.SetMemoryLimit(soft)
	}
	return nil
}

// A thread that starts in a program with the C library gets a stack of that library's, which
// counts though most of it is never touched. So many of so many bytes may come on top.
const (
	cThreads = 8
	cStack   = 8 << 20
)

// arena is how much the Go heap maps at a time, in bytes, with what it needs to keep track.
const arena = 80 << 20

// usesC reports whether this program has the C library in it.
func usesC() bool {
	maps, err := os.ReadFile("/proc/self/maps")
	return err != nil || bytes.Contains(maps, []byte("/libc.")) || bytes.Contains(maps, []byte("/ld-musl"))
}

// mapped returns how much this process has of what RLIMIT_DATA limits, in bytes.
func mapped() (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(status, []byte("\nVmData:"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	kb, err := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(line, []byte("kB")))), 10, 64)
	if err != nil || kb > math.MaxInt64>>10 {
		return 0, fmt.Errorf("/proc/self/status: VmData %q cannot be read", line)
	}
	return kb << 10, nil
}

// PrivateMemory returns how much memory this process has in use that nobody else has, in
// bytes, or 0 if that is not known.
func PrivateMemory() int64 {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(statm) // size, resident, shared, …
	if len(fields) < 3 {
		return 0
	}
	resident, err := strconv.ParseInt(string(fields[1]), 10, 64)
	shared, err2 := strconv.ParseInt(string(fields[2]), 10, 64)
	if err != nil || err2 != nil {
		return 0
	}
	return (resident - shared) * pageSize
}

// renice changes the priority of all threads of the group: that of a process alone would be
// that of one of its threads.
func renice(by int) error {
	// The system call returns 20 minus the value, so that it is never negative.
	now, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err == nil {
		err = unix.Setpriority(unix.PRIO_PGRP, 0, min(20-now+by, 19))
	}
	return os.NewSyscallError("setpriority", err)
}

// bind lets all threads run on these CPUs alone. One that is started meanwhile gets the CPUs
// of the thread that starts it, so that there is an end.
func bind(cpus []int) error {
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	for bound := map[string]bool{}; ; {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		news := false
		for _, t := range threads {
			tid, err := strconv.Atoi(t.Name())
			if err != nil || bound[t.Name()] {
				continue
			}
			news, bound[t.Name()] = true, true
			if err := unix.SchedSetaffinity(tid, &set); err != nil && err != unix.ESRCH {
				return os.NewSyscallError("sched_setaffinity", err)
			}
		}
		if !news {
			return nil
		}
	}
}

// hasCPU reports whether this process may run on a CPU.
func hasCPU(cpu int) bool {
	var set unix.CPUSet
	return cpu >= 0 && (unix.SchedGetaffinity(0, &set) != nil || set.IsSet(cpu))
}

package transport

import (
	"bytes"
	"os"
	"runtime"
	"strconv"

	"github.com/seed84f35039/multiproc/internal/shm"
	"golang.org/x/sys/unix"
)

// crowd sees to it that a worker which looks out for calls does not share a CPU with the
// parent that looks out for the answers while another CPU has nothing to do. The kernel wakes
// a process on the CPU of who wakes it, and takes long to move one that never sleeps: 6 µs a
// call instead of 2.
type crowd struct {
	alone  int // how many times in a row it was not shared
	shared int // how many times in a row it was
	limit  int // how many of these are too many
}

// After so many times the worker moves over, then after twice as many, and so on.
const (
	minCrowd = 64
	maxCrowd = 1 << 20
)

// note notes whether the CPU was shared while looking out.
func (c *crowd) note(shared bool) {
	if !shared {
		if c.shared, c.alone = 0, c.alone+1; c.alone >= minCrowd {
			*c = crowd{}
		}
		return
	}
	c.alone = 0
	if c.shared++; c.shared < max(c.limit, minCrowd) {
		return
	}
	c.shared, c.limit = 0, min(2*max(c.limit, minCrowd), maxCrowd)
	if runnable() <= runtime.NumCPU() { // this one and the other side among them
		moveOver()
	}
}

// runnable returns how many threads of all processes run or want to.
func runnable() int {
	load, err := os.ReadFile("/proc/loadavg") // 0.20 0.18 0.12 1/80 11206
	fields := bytes.Fields(load)
	if err != nil || len(fields) < 4 {
		return runtime.NumCPU() + 1
	}
	n, _, _ := bytes.Cut(fields[3], []byte("/"))
	running, err := strconv.Atoi(string(n))
	if err != nil {
		return runtime.NumCPU() + 1
	}
	return running
}

// moveOver makes this thread go on on another CPU, if it may. It may return to the one that
// it was on.
func moveOver() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all unix.CPUSet
	if unix.SchedGetaffinity(0, &all) != nil || all.Count() < 2 {
		return
	}
	others := all
	others.Clear(shm.CPU())
	if others.Count() == all.Count() || unix.SchedSetaffinity(0, &others) != nil {
		return
	}
	unix.SchedSetaffinity(0, &all) // cannot fail: it was so before
}

package transport

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Moving over leaves a thread with the CPUs that it may run on.
func TestMoveOver(t *testing.T) {
	runtime.LockOSThread() // not unlocked: the thread goes with this goroutine
	var before, after unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	moveOver()
	if err := unix.SchedGetaffinity(0, &after); err != nil || after != before {
		t.Errorf("it may run on %v now, before on %v (%v)", after, before, err)
	}
	if n := runnable(); n < 1 {
		t.Errorf("%d threads run, and this is one", n)
	}
}

// A worker moves over the more seldom the less it helps.
func TestCrowd(t *testing.T) {
	var c crowd
	for range 3 * minCrowd {
		c.note(true)
	}
	if c.limit != 4*minCrowd {
		t.Errorf("after having been crowded %d times the limit is %d", 3*minCrowd, c.limit)
	}
	c.note(false)
	if c.shared != 0 || c.limit == 0 {
		t.Errorf("after a moment alone it has been crowded %d times, the limit is %d", c.shared, c.limit)
	}
	for range minCrowd {
		c.note(false)
	}
	if c != (crowd{alone: 1}) {
		t.Errorf("after a while alone: %+v", c)
	}
}

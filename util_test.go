//go:build linux

package multiproc_test

import (
	"syscall"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// pidOf returns the process of a worker.
func pidOf(t testing.TB, ex multiproc.Executor) int {
	t.Helper()
	view, err := proctest.Look.Call(proctest.Within(t), ex, "")
	if err != nil {
		t.Fatal(err)
	}
	return view.PID
}

// stop stops a process, until it is told to go on.
func stop(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	proctest.Eventually(t, proctest.Patience, "the process is stopped", func() bool { return proctest.Stopped(pid) })
}

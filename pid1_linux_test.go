package multiproc_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

func init() { helpers["init"] = inRole(asInit) }

// TestProcessOne has a pool in process 1 of a container, which is the parent of all who have
// lost theirs: nothing is left of its workers and of what they have started, no zombie either.
func TestProcessOne(t *testing.T) {
	t.Parallel()
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	p, err := os.StartProcess("/proc/self/exe", []string{"init"}, &os.ProcAttr{
		Env: append(os.Environ(), helperEnv+"=nothing"), Sys: attr,
	})
	if err != nil {
		t.Skipf("needs to make a container: %v", err)
	}
	p.Wait()
	runRole(t, "init", attr)
}

// asInit is what process 1 does.
func asInit() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("this is process %d", os.Getpid())
	}
	if err := errors.Join(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""), syscall.Mount("proc", "/proc", "proc", 0, "")); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	ctx := context.Background()
	pool := multiproc.NewPool(multiproc.PoolConfig{
		Workers: 2, KillGrace: 100 * time.Millisecond, CallTimeout: 300 * time.Millisecond, Stderr: proctest.Quiet,
	})
	for _, end := range []string{"", "child", "child 1", "signal 9", "exit 3", "child", "hang"} {
		out, err := proctest.Do.Call(ctx, pool, proctest.Task{X: 3, End: end, Deaf: true})
		crash, crashed := errors.AsType[*multiproc.CrashError](err)
		timeout, late := errors.AsType[*multiproc.TimeoutError](err)
		switch end {
		case "", "child":
			if out != 9 || err != nil {
				return fmt.Errorf("%q: got %d, %w", end, out, err)
			}
		case "signal 9", "exit 3":
			if !crashed || crash.Signal != syscall.SIGKILL && crash.ExitCode != 3 {
				return fmt.Errorf("%q: got %d, %w", end, out, err)
			}
		default:
			if !late || !timeout.Hard {
				return fmt.Errorf("%q: got %d, %w", end, out, err)
			}
		}
	}
	if err := pool.Close(); err != nil {
		return err
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		// What is left would be seen here; whoever looks for zombies leaves them as they are.
		left, err := others()
		if err != nil {
			return err
		}
		if len(left) == 0 {
			return nil
		}
		if time.Since(began) > proctest.Patience/2 {
			return fmt.Errorf("processes are left: %v", left)
		}
	}
}

// others returns what the processes other than this one are.
func others() (left []string, err error) {
	entries, err := os.ReadDir("/proc")
	for _, e := range entries {
		if e.Name()[0] < '0' || e.Name()[0] > '9' || e.Name() == fmt.Sprint(os.Getpid()) {
			continue
		}
		if stat, err := os.ReadFile("/proc/" + e.Name() + "/stat"); err == nil {
			left = append(left, string(stat[:min(len(stat), 40)]))
		}
	}
	return left, err
}

//go:build linux

package multiproc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// The resources of these tests run out in processes of their own, so that nobody else goes
// without.
func init() {
	helpers["descriptors"] = inRole(noDescriptors)
	helpers["forks"] = inRole(noForks)
	helpers["memory"] = inRole(noMemory)
}

// inRole makes a helper of a function: it says what has gone wrong, and fails.
func inRole(role func() error) func() {
	return func() {
		if err := role(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}

// runRole runs a helper, and fails with what it says.
func runRole(t *testing.T, name string, attr *syscall.SysProcAttr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), proctest.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"="+name)
	cmd.SysProcAttr = attr
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}

func TestDescriptorsRunOut(t *testing.T) {
	t.Parallel()
	runRole(t, "descriptors", nil)
}

// noDescriptors has fewer descriptors than a worker needs, by one, by two, and so on: a call
// says so, nothing is left open, and the same executor works when there are enough.
func noDescriptors() error {
	const limit = 128
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	if err := warm(); err != nil {
		return err
	}
	for name, ex := range map[string]func() multiproc.Executor{
		"pool":      func() multiproc.Executor { return multiproc.NewPool(multiproc.PoolConfig{Workers: 1}) },
		"processes": func() multiproc.Executor { return multiproc.NewProcesses(multiproc.PoolConfig{Workers: 1}) },
	} {
		ex := ex()
		refused := 0
		for free := 0; ; free++ {
			before := openFiles()
			release, err := takeDescriptors(free)
			if err != nil {
				return err
			}
			_, err = proctest.Square.Call(context.Background(), ex, 3)
			release()
			if err == nil {
				break
			}
			if refused++; !errors.Is(err, syscall.EMFILE) || !strings.Contains(err.Error(), "ulimit -n") {
				return fmt.Errorf("%s with %d descriptors: got %T: %w; want EMFILE and what to do", name, free, err, err)
			}
			if err := settle(before); err != nil {
				return fmt.Errorf("%s with %d descriptors: %w", name, free, err)
			}
			if free > 50 {
				return fmt.Errorf("%s: there is no end to it", name)
			}
		}
		if refused < 3 {
			return fmt.Errorf("%s: only %d calls were refused", name, refused)
		}
		if out, err := proctest.Square.Map(context.Background(), ex, proctest.Numbers(5)); err != nil || out[4] != 16 {
			return fmt.Errorf("%s, afterwards: got %v, %w", name, out, err)
		}
		if err := ex.Close(); err != nil {
			return err
		}
	}
	release, err := takeDescriptors(0)
	if err != nil {
		return err
	}
	defer release()
	_, err = proctest.Square.Start(context.Background(), 3, multiproc.ProcessConfig{})
	if !errors.Is(err, syscall.EMFILE) || !strings.Contains(err.Error(), "ulimit -n") {
		return fmt.Errorf("Start: got %w; want EMFILE and what to do", err)
	}
	return nil
}

// warm has a pool run a call while nothing is missing: what is opened once is open then.
func warm() error {
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
	if out, err := proctest.Square.Call(context.Background(), pool, 3); out != 9 || err != nil {
		return fmt.Errorf("while nothing is missing: got %d, %w", out, err)
	}
	return pool.Close()
}

// takeDescriptors leaves so many of them, until release is called.
func takeDescriptors(free int) (release func(), err error) {
	var fds []int
	for {
		fd, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err == syscall.EMFILE {
			break
		} else if err != nil {
			return nil, err
		}
		fds = append(fds, fd)
	}
	for _, fd := range fds[:free] {
		syscall.Close(fd)
	}
	return func() {
		for _, fd := range fds[free:] {
			syscall.Close(fd)
		}
	}, nil
}

// openFiles counts the descriptors of this process.
func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(entries)
}

// settle waits until there are no more than so many descriptors.
func settle(files int) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); openFiles() > files; <-tick.C {
		if time.Since(began) > proctest.Patience/2 {
			return fmt.Errorf("%d descriptors are open, there were %d", openFiles(), files)
		}
	}
	return nil
}

// TestForksFail has a user who may have no more processes. Root may have any number, and is
// somebody else for this test.
func TestForksFail(t *testing.T) {
	t.Parallel()
	attr := &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		const nobodyElse = 54321
		attr.Credential = &syscall.Credential{Uid: nobodyElse, Gid: nobodyElse}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), helperEnv+"=nothing")
		cmd.SysProcAttr = attr
		if err := cmd.Run(); err != nil {
			t.Skipf("needs to become another user who may run this file: %v", err)
		}
	}
	runRole(t, "forks", attr)
}

func init() { helpers["nothing"] = func() {} }

// rlimitNPROC is RLIMIT_NPROC, which package syscall does not have.
const rlimitNPROC = 6

// noForks has no process to be had: a call says so, and the same pool works when there is.
func noForks() error {
	if err := warm(); err != nil {
		return err
	}
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Stderr: proctest.Quiet})
	defer pool.Close()
	spareThreads(30)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(rlimitNPROC, &limit); err != nil {
		return err
	}
	if err := syscall.Setrlimit(rlimitNPROC, &syscall.Rlimit{Cur: 1, Max: limit.Max}); err != nil {
		return err
	}
	before := openFiles()
	for _, start := range starts(pool) {
		if err := start(); !errors.Is(err, syscall.EAGAIN) || !strings.Contains(err.Error(), "ulimit -u") {
			return fmt.Errorf("got %w; want EAGAIN and what to do", err)
		}
		if err := settle(before); err != nil {
			return err
		}
	}
	// With room for the process, but not for all of its threads, it dies as it starts.
	own, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, more := range []int{1, 3, 5, 8} {
		few := syscall.Rlimit{Cur: uint64(len(own) + more), Max: limit.Max}
		if err := syscall.Setrlimit(rlimitNPROC, &few); err != nil {
			return err
		}
		for _, start := range starts(pool) {
			err := start()
			if err != nil && !fewThreads.MatchString(err.Error()) {
				return fmt.Errorf("with %d processes more: got %w", more, err)
			}
		}
	}
	if err := syscall.Setrlimit(rlimitNPROC, &limit); err != nil {
		return err
	}
	if out, err := proctest.Square.Call(context.Background(), pool, 3); out != 9 || err != nil {
		return fmt.Errorf("afterwards: got %d, %w", out, err)
	}
	return nil
}

// fewThreads is what errors say of a worker that could have too few threads: when it starts, what
// to do; later, what the Go runtime says, with and without the C library.
var fewThreads = regexp.MustCompile(`ulimit -u|worker died: .*(pthread_create failed|newosproc)`)

// starts are the ways to start a process.
func starts(pool *multiproc.Pool) []func() error {
	ctx := context.Background()
	return []func() error{
		func() error { _, err := proctest.Square.Call(ctx, pool, 3); return err },
		func() error { return pool.Start(ctx) },
		func() error {
			p, err := proctest.Square.Start(ctx, 3, multiproc.ProcessConfig{Stderr: proctest.Quiet})
			if err == nil {
				_, err = p.Wait(ctx)
			}
			return err
		},
	}
}

// spareThreads sees to it that the runtime has so many threads that do nothing: it ends the
// program when it needs one more and cannot have it.
func spareThreads(n int) {
	var there, done sync.WaitGroup
	there.Add(n)
	leave := make(chan struct{})
	for range n {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			there.Done()
			<-leave
		})
	}
	there.Wait()
	close(leave)
	done.Wait()
}

func TestNoMemoryToShare(t *testing.T) {
	t.Parallel()
	runRole(t, "memory", nil)
}

// noMemory lets no file, and so no memory that can be shared, be larger than some pages: a
// pool has connections without rings then.
func noMemory() error {
	const most = 64 << 10
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: most, Max: most}); err != nil {
		return err
	}
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2})
	defer pool.Close()
	out, err := proctest.Square.Map(context.Background(), pool, proctest.Numbers(1000))
	if err != nil || out[999] != 999*999 {
		return fmt.Errorf("got %d results, %w", len(out), err)
	}
	large := bytes.Repeat([]byte("large"), 100_000)
	if back, err := proctest.Echo.Call(context.Background(), pool, large); err != nil || !bytes.Equal(back, large) {
		return fmt.Errorf("got %d bytes back of %d, %w", len(back), len(large), err)
	}
	return nil
}

// TestFullDisk has what workers write go to a device that is full: calls that do not look
// at that do not notice, whatever the amount.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("needs a device that is always full: %v", err)
	}
	defer full.Close()
	counts := writerFunc(func([]byte) (int, error) { return 0, syscall.ENOSPC })
	for name, cfg := range map[string]multiproc.PoolConfig{
		"the device":               {Stdout: full, Stderr: full},
		"a writer that is full":    {Stdout: counts, Stderr: counts},
		"a writer over the device": {Stdout: struct{ io.Writer }{full}, Stderr: struct{ io.Writer }{full}},
	} {
		cfg.Workers = 1
		pool := multiproc.NewPool(cfg)
		defer pool.Close()
		text := proctest.Text{Out: strings.Repeat("out\n", 50_000), Err: strings.Repeat("err\n", 50_000)} // more than a pipe holds
		for range 3 {
			_, err := proctest.Print.Call(proctest.Within(t), pool, text)
			if cfg.Stdout == io.Writer(full) { // it is the worker's own, which is told
				if remote, ok := errors.AsType[*multiproc.RemoteError](err); !ok || !strings.Contains(remote.Message, "no space left") {
					t.Errorf("%s: got %T: %v", name, err, err)
				}
			} else if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if out, err := proctest.Do.Call(proctest.Within(t), pool, proctest.Task{X: 3, Say: text.Err}); out != 9 || err != nil {
			t.Errorf("%s: got %d, %v", name, out, err)
		}
		_, err := proctest.Do.Call(proctest.Within(t), pool, proctest.Task{Say: "last words\n", End: "exit 3"})
		if crash := proctest.CrashOf(t, err, -1); crash.ExitCode != 3 || !strings.HasSuffix(crash.Stderr, "last words\n") {
			t.Errorf("%s: got %v, with %q", name, crash, crash.Stderr)
		}
	}
}

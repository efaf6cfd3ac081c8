package cgroup_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/cgroup"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// moveSelf, in the environment, allows the tests Config.MoveSelf: they are then moved with all that is in
// their group, such as the go command, and stay there.
const moveSelf = "MULTIPROC_TEST_MOVESELF"

// open makes a cage, to be closed at the end of the test; that must leave nothing.
func open(t testing.TB, cfg cgroup.Config) *cgroup.Cage {
	t.Helper()
	cfg.MoveSelf = os.Getenv(moveSelf) != ""
	cage, err := cgroup.New(cfg)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("needs a cgroup that this process may write to: %v", err)
	}
	if errors.Is(err, syscall.EBUSY) {
		t.Skipf("needs a cgroup without processes; set %s=1 to have those of this one moved: %v", moveSelf, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	own := cage.Own()
	if len(own) == 0 {
		t.Fatal("the cage has no group")
	}
	t.Cleanup(func() {
		if err := cage.Close(); err != nil {
			t.Error(err)
		}
		for _, dir := range own {
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left (%v)", dir, err)
			}
		}
	})
	return cage
}

// kept is what calls of hog leave in their worker.
var kept [][]byte

// hog allocates so many MiB and keeps them; with 0, all that it gets. It returns the process.
var hog = multiproc.Register("hog", func(_ context.Context, mib int) (int, error) {
	for i := 0; i < mib || mib == 0; i++ {
		kept = append(kept, bytes.Repeat([]byte{1}, 1<<20))
	}
	return os.Getpid(), nil
})

// family allocates so many MiB and has a child, which is no worker, allocate all that it gets. It returns
// how that ended.
var family = multiproc.Register("family", func(ctx context.Context, mib int) (string, error) {
	for range mib {
		kept = append(kept, bytes.Repeat([]byte{1}, 1<<20))
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"=hog")
	return fmt.Sprint(cmd.Run()), nil
})

func init() {
	helpers["hog"] = func() {
		for {
			kept = append(kept, bytes.Repeat([]byte{1}, 1<<20))
		}
	}
}

// memory is a limit that a worker of this program stays well below by itself, under the race detector too.
const memory = 256 << 20

// TestMemory has a call exceed the limit: it fails, for that reason, and no other does.
func TestMemory(t *testing.T) {
	t.Parallel()
	cage := open(t, cgroup.Config{Memory: memory})
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Cage: cage, Stderr: proctest.Quiet})
	defer pool.Close()
	out, err := hog.Map(proctest.Within(t), pool, []int{10, 0, 20}, multiproc.CollectErrors())
	e := proctest.CrashOf(t, err, 1)
	if !e.OutOfMemory || e.Signal != syscall.SIGKILL || !strings.Contains(e.Reason, "in its Cage") {
		t.Errorf("got %v, out of memory: %t", err, e.OutOfMemory)
	}
	if errs := err.(interface{ Unwrap() []error }).Unwrap(); len(errs) != 1 {
		t.Errorf("got %v, want one error", err)
	}
	if out[0] == 0 || out[2] == 0 || out[0] == out[2] || out[0] != e.PID {
		t.Errorf("the other calls ran in %v", out)
	}
	// That of a single process.
	p, err := hog.Start(proctest.Within(t), 0, multiproc.ProcessConfig{Cage: cage, Stderr: proctest.Quiet})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Wait(proctest.Within(t))
	if e, ok := errors.AsType[*multiproc.CrashError](err); !ok || !e.OutOfMemory {
		t.Errorf("Start: got %v", err)
	}
}

// TestMemoryIsThatOfAll has a worker stay below the limit, and exceed it together with its child.
func TestMemoryIsThatOfAll(t *testing.T) {
	t.Parallel()
	cage := open(t, cgroup.Config{Memory: memory})
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Cage: cage, Stderr: proctest.Quiet})
	defer pool.Close()
	const most = memory >> 20 * 6 / 10
	_, err := family.Call(proctest.Within(t), pool, most)
	if e := proctest.CrashOf(t, err, -1); !e.OutOfMemory {
		t.Errorf("got %v", err)
	}
	if _, err := hog.Call(proctest.Within(t), pool, 10); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

// TestMemoryOfChild has a child of a worker exceed the limit by itself. With cgroup v2 the worker goes with
// it; with v1 it is told how its child ended, and goes on.
func TestMemoryOfChild(t *testing.T) {
	t.Parallel()
	cage := open(t, cgroup.Config{Memory: memory})
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Cage: cage, Stderr: proctest.Quiet})
	defer pool.Close()
	got, err := family.Call(proctest.Within(t), pool, 0)
	if cage.Unified() {
		if e := proctest.CrashOf(t, err, -1); !e.OutOfMemory {
			t.Errorf("got %v", err)
		}
	} else if got != "signal: killed" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := hog.Call(proctest.Within(t), pool, 10); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

// spin computes for so many milliseconds of CPU time, and returns how long that took.
var spin = multiproc.Register("spin", func(_ context.Context, ms int) (time.Duration, error) {
	began, before := time.Now(), used()
	for used()-before < time.Duration(ms)*time.Millisecond {
		for i := range 1000 {
			sink += i
		}
	}
	return time.Since(began), nil
})

var sink int

// used returns the CPU time that this process has used.
func used() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestCPUs has a call compute for longer than it may at a time.
func TestCPUs(t *testing.T) {
	t.Parallel()
	const share, ms = 0.25, 400
	cage := open(t, cgroup.Config{CPUs: share})
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Cage: cage})
	defer pool.Close()
	took, err := spin.Call(proctest.Within(t), pool, ms)
	if err != nil {
		t.Fatal(err)
	}
	// What it may take in the first and in the last tenth of a second is not held back.
	if least := time.Duration(ms/share/2) * time.Millisecond; took < least {
		t.Errorf("%d ms of CPU time took %v, want at least %v", ms, took, least)
	}
	if n := count(t, cage, "cpu.stat", "nr_throttled"); n == 0 {
		t.Error("it was never held back")
	}
}

// count returns a number that a file of the groups in a cage has, by its name.
func count(t *testing.T, cage *cgroup.Cage, file, name string) (n int) {
	t.Helper()
	found := false
	for _, dir := range cage.Dirs() {
		text, _ := os.ReadFile(filepath.Join(dir, file)) // of another hierarchy
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, name+" "); ok {
				i, err := strconv.Atoi(strings.TrimSpace(value))
				if err != nil {
					t.Fatal(err)
				}
				n, found = n+i, true
			}
		}
	}
	if !found {
		t.Fatalf("no group in %v has %s in %s", cage.Own(), name, file)
	}
	return n
}

// shell starts a shell that runs a script when it has read a line, admits it and lets it go. It returns
// what it says, and how it is ended.
func shell(t *testing.T, cage *cgroup.Cage, script string) (says *bufio.Reader, end func() error) {
	t.Helper()
	cmd := exec.Command("sh", "-c", "read line; "+script)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	t.Cleanup(func() { r.Close() })
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	release, err := cage.Admit(cmd.Process.Pid)
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		t.Fatal(err)
	}
	io.WriteString(stdin, "\n")
	return bufio.NewReader(r), func() error {
		cmd.Process.Kill()
		cmd.Wait()
		_, err := release()
		return err
	}
}

// TestPIDs has a process start more than it may.
func TestPIDs(t *testing.T) {
	t.Parallel()
	const most = 20
	cage := open(t, cgroup.Config{PIDs: most})
	_, end := shell(t, cage, "i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done; wait")
	proctest.Eventually(t, proctest.Patience, "it is refused another", func() bool { return count(t, cage, "pids.events", "max") > 0 })
	for _, dir := range cage.Dirs() {
		if pids, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs")); len(bytes.Fields(pids)) > most {
			t.Errorf("there are %d processes, want at most %d", len(bytes.Fields(pids)), most)
		}
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}

// leave starts a process that leaves the session and the process group of the worker, and returns its id.
var leave = multiproc.Register("leave", func(context.Context, struct{}) (int, error) {
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err := cmd.Start()
	if err != nil {
		return 0, err
	}
	return cmd.Process.Pid, nil
})

// TestStray has a worker start a process that gets away from it: at the worker's end it is killed all the
// same. Once with each limit, as in cgroup v1 they are in different hierarchies, and once with none.
func TestStray(t *testing.T) {
	for name, cfg := range map[string]cgroup.Config{
		"no limit": {}, "memory": {Memory: memory}, "cpu": {CPUs: 2}, "pids": {PIDs: 500}, "all": {Memory: memory, CPUs: 2, PIDs: 500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cage := open(t, cfg)
			pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Cage: cage})
			defer pool.Close()
			pid, err := leave.Call(proctest.Within(t), pool, struct{}{})
			if err != nil {
				t.Fatal(err)
			}
			if !proctest.Running(pid) {
				t.Error("it does not run")
			}
			proctest.Want(t, "groups of workers", len(cage.Dirs()), len(cage.Own()))
			if err := pool.Close(); err != nil {
				t.Error(err)
			}
			if proctest.Running(pid) {
				t.Errorf("%d runs", pid)
			}
			proctest.Want(t, "groups of workers after Close", len(cage.Dirs()), 0)
		})
	}
}

// TestClose closes a cage with processes in it. After that it takes nobody, and they can still be released.
func TestClose(t *testing.T) {
	t.Parallel()
	cage := open(t, cgroup.Config{PIDs: 20})
	says, end := shell(t, cage, "setsid sleep 1000 & echo $!; wait")
	line, err := says.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := cage.Close(); err != nil {
			t.Error(err)
		}
	}
	if proctest.Running(pid) {
		t.Errorf("%d runs", pid)
	}
	if err := end(); err != nil {
		t.Errorf("release after Close: %v", err)
	}
	if _, err := cage.Admit(os.Getpid()); !errors.Is(err, multiproc.ErrClosed) {
		t.Errorf("Admit: got %v", err)
	}
}

// TestAdmitEnded admits a process that has ended and was waited for.
func TestAdmitEnded(t *testing.T) {
	t.Parallel()
	cage := open(t, cgroup.Config{PIDs: 20})
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	release, err := cage.Admit(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if oom, err := release(); oom || err != nil {
		t.Errorf("got %t, %v", oom, err)
	}
}

// TestMany has processes come and go in several cages at once.
func TestMany(t *testing.T) {
	t.Parallel()
	for i := range 3 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			cage := open(t, cgroup.Config{Memory: memory, PIDs: 500})
			ex := multiproc.NewProcesses(multiproc.PoolConfig{Workers: 3, Cage: cage})
			defer ex.Close()
			out, err := proctest.Square.Map(proctest.Within(t), ex, proctest.Numbers(10))
			if err != nil {
				t.Fatal(err)
			}
			proctest.Want(t, "results", out, proctest.Squares(10))
		})
	}
}

// TestParent has groups be made below one that is not that of this process, and below none that there is.
func TestParent(t *testing.T) {
	t.Parallel()
	outer := open(t, cgroup.Config{PIDs: 100})
	inner, err := cgroup.New(cgroup.Config{PIDs: 50, Parent: outer.Place()})
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	if dir, above := inner.Own()[0], outer.Own()[0]; filepath.Dir(dir) != above {
		t.Errorf("got %s, want it below %s", dir, above)
	}
	if err := inner.Close(); err != nil {
		t.Error(err)
	}
	_, err = cgroup.New(cgroup.Config{PIDs: 50, Parent: outer.Place() + "/not-there"})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func init() {
	helpers["parent"] = func() {
		cage, err := cgroup.New(cgroup.Config{PIDs: 500, MoveSelf: os.Getenv(moveSelf) != ""})
		if err != nil {
			fmt.Println(err)
			return
		}
		pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Cage: cage})
		fmt.Println(leave.Call(context.Background(), pool, struct{}{}))
		select {}
	}
}

// TestParentKilled kills a program with a cage. The next cage in the same place removes what is left of it,
// with a process that had got away from its worker; and nothing of a program that lives.
func TestParentKilled(t *testing.T) {
	open(t, cgroup.Config{PIDs: 500}) // or skip
	start := func() (cmd *exec.Cmd, stray int) {
		cmd = exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), helperEnv+"=parent")
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
		})
		line, err := bufio.NewReader(stdout).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscanf(line, "%d <nil>\n", &stray); err != nil || !proctest.Running(stray) {
			t.Fatalf("got %q: %v", line, err)
		}
		return cmd, stray
	}
	dead, itsStray := start()
	alive, otherStray := start()
	if len(cgroup.GroupsOf(dead.Process.Pid)) == 0 {
		t.Error("it has no groups")
	}
	dead.Process.Kill()
	dead.Wait()
	next := open(t, cgroup.Config{PIDs: 500})
	if left := cgroup.GroupsOf(dead.Process.Pid); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
	if proctest.Running(itsStray) {
		t.Errorf("%d runs", itsStray)
	}
	if len(cgroup.GroupsOf(alive.Process.Pid)) == 0 || !proctest.Running(otherStray) {
		t.Error("a program that lives has lost its groups")
	}
	alive.Process.Kill()
	alive.Wait()
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	open(t, cgroup.Config{PIDs: 500})
	if left := cgroup.GroupsOf(alive.Process.Pid); len(left) > 0 || proctest.Running(otherStray) {
		t.Errorf("%v are left", left)
	}
}

// timed is a cage that notes how long it takes.
type timed struct {
	*cgroup.Cage
	took atomic.Int64 // nanoseconds
}

func (c *timed) Admit(pid int) (func() (bool, error), error) {
	began := time.Now()
	release, err := c.Cage.Admit(pid)
	c.took.Add(int64(time.Since(began)))
	return func() (bool, error) {
		began := time.Now()
		defer func() { c.took.Add(int64(time.Since(began))) }()
		return release()
	}, err
}

// BenchmarkStart is a process for one call, in no cage and in one. What Admit and release take of that is
// in-cage-ns/op.
func BenchmarkStart(b *testing.B) {
	for _, in := range []struct {
		name string
		cfg  *cgroup.Config
	}{
		{"none", nil},
		{"memory", &cgroup.Config{Memory: memory}},
		{"all", &cgroup.Config{Memory: memory, CPUs: 2, PIDs: 500}},
	} {
		b.Run("cage="+in.name, func(b *testing.B) {
			var cfg multiproc.ProcessConfig
			var cage timed
			if in.cfg != nil {
				cage.Cage = open(b, *in.cfg)
				cfg.Cage = &cage
			}
			for b.Loop() {
				p, err := proctest.Square.Start(b.Context(), 3, cfg)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := p.Wait(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cage.took.Load())/float64(b.N), "in-cage-ns/op")
		})
	}
}

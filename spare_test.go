//go:build linux

package multiproc_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// family returns a variable for the environment of processes, and a function that tells
// which of those that have it have not ended.
func family(t testing.TB) (variable string, members func() []int) {
	variable = fmt.Sprintf("MULTIPROC_TEST_FAMILY=%s in %d", t.Name(), os.Getpid()) // the same test may run elsewhere
	return variable, func() []int { return proctest.Strays(variable) }
}

// TestSpareProcess starts calls in processes that stood ready.
func TestSpareProcess(t *testing.T) {
	t.Parallel()
	variable, members := family(t)
	var out strings.Builder
	spares := multiproc.NewSpares(2, multiproc.ProcessConfig{Env: []string{variable}, Dir: t.TempDir(), GOMAXPROCS: 3, Stdout: &out})
	defer spares.Close()
	proctest.Want(t, "processes before they are wanted", len(members()), 0)
	gate := proctest.NewGate(t)
	var running []*multiproc.Process[int]
	for i := range 4 {
		if err := spares.Start(proctest.Within(t)); err != nil {
			t.Fatal(err)
		}
		before := members()
		proctest.Want(t, "processes", len(before), 2+i)
		p, err := proctest.Do.Start(proctest.Within(t), proctest.Task{X: i, Gate: gate.Path}, multiproc.ProcessConfig{Spares: spares})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(before, p.PID()) {
			t.Errorf("process %d was not one of %v", p.PID(), before)
		}
		proctest.Want(t, "process of the call", gate.Next().PID, p.PID())
		running = append(running, p)
	}
	if err := spares.Close(); err != nil {
		t.Error(err)
	}
	proctest.Want(t, "processes after Close", len(members()), 4)
	gate.Open()
	for i, p := range running {
		if got, err := p.Wait(proctest.Within(t)); got != i*i || err != nil {
			t.Errorf("call %d: got %d, %v", i, got, err)
		}
		proctest.Want(t, "exit code", p.ExitState().ExitCode(), 0)
	}
	proctest.Want(t, "processes at the end", len(members()), 0)
}

// TestSpareSurroundings looks at what spares are given.
func TestSpareSurroundings(t *testing.T) {
	t.Parallel()
	variable, _ := family(t)
	name, value, _ := strings.Cut(variable, "=")
	dir := t.TempDir()
	spares := multiproc.NewSpares(1, multiproc.ProcessConfig{Env: []string{variable}, Dir: dir, GOMAXPROCS: 3})
	defer spares.Close()
	for range 2 { // one is started for the call, one is a spare
		p, err := proctest.Look.Start(proctest.Within(t), name, multiproc.ProcessConfig{Spares: spares})
		if err != nil {
			t.Fatal(err)
		}
		view, err := p.Wait(proctest.Within(t))
		if err != nil {
			t.Fatal(err)
		}
		proctest.Want(t, "variable", view.Env, value)
		proctest.Want(t, "directory", view.Dir, dir)
		proctest.Want(t, "GOMAXPROCS", view.GOMAXPROCS, 3)
		if err := spares.Start(proctest.Within(t)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSpareKilled kills spares while they wait: none of them is handed out, none stays a
// zombie, and others take their places.
func TestSpareKilled(t *testing.T) {
	t.Parallel()
	variable, members := family(t)
	spares := multiproc.NewSpares(2, multiproc.ProcessConfig{Env: []string{variable}})
	defer spares.Close()
	for i := range 5 {
		if err := spares.Start(proctest.Within(t)); err != nil {
			t.Fatal(err)
		}
		victims := members()
		for _, pid := range victims {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		// The last of its threads tells the parent.
		proctest.Eventually(t, proctest.Patience, "they have ended", func() bool {
			return !slices.ContainsFunc(victims, func(pid int) bool {
				threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
				return proctest.Running(pid) || len(threads) > 1
			})
		})
		p, err := proctest.Square.Start(proctest.Within(t), i, multiproc.ProcessConfig{Spares: spares})
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(victims, p.PID()) {
			t.Errorf("process %d was handed out after its end", p.PID())
		}
		if out, err := p.Wait(proctest.Within(t)); out != i*i || err != nil {
			t.Errorf("got %d, %v", out, err)
		}
		proctest.Eventually(t, proctest.Patience, "they have been reaped", func() bool {
			return !slices.ContainsFunc(victims, func(pid int) bool { return syscall.Kill(pid, 0) == nil })
		})
	}
}

// TestSpareInPool has workers of a pool die: their places are taken by processes that
// stood ready, with their setup behind them.
func TestSpareInPool(t *testing.T) {
	t.Parallel()
	variable, members := family(t)
	log := proctest.LogFile(t)
	pool := multiproc.NewPool(multiproc.PoolConfig{
		Workers: 1, Spares: 1, Env: []string{variable}, Setup: proctest.Do.With(proctest.Task{X: 1, Log: log}), Stderr: io.Discard,
	})
	defer pool.Close()
	for i := range 4 {
		if err := pool.Start(proctest.Within(t)); err != nil {
			t.Fatal(err)
		}
		ready := members()
		proctest.Want(t, "processes", len(ready), 2)
		proctest.Want(t, "runs of the setup", proctest.Runs(t, log)[1], i+2)
		_, err := proctest.Do.Call(proctest.Within(t), pool, proctest.Task{End: "exit 3"})
		crash := proctest.CrashOf(t, err, -1)
		if pid := pidOf(t, pool); pid == crash.PID || !slices.Contains(ready, pid) {
			t.Errorf("after process %d of %v, calls go to %d", crash.PID, ready, pid)
		}
	}
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
	proctest.Want(t, "processes after Close", len(members()), 0)
}

// TestSpareProcesses has each call run in a process that stood ready.
func TestSpareProcesses(t *testing.T) {
	t.Parallel()
	variable, members := family(t)
	processes := multiproc.NewProcesses(multiproc.PoolConfig{Workers: 1, Spares: 2, Env: []string{variable}})
	defer processes.Close()
	seen := map[int]bool{}
	for range 5 {
		if err := processes.Start(proctest.Within(t)); err != nil {
			t.Fatal(err)
		}
		ready := members()
		pid := pidOf(t, processes)
		if !slices.Contains(ready, pid) || seen[pid] {
			t.Errorf("process %d was not one of %v, or is used again", pid, ready)
		}
		seen[pid] = true
	}
	processes.Kill()
	proctest.Want(t, "processes after Kill", len(members()), 0)
}

// TestSpareSetupHangs closes a pool whose worker and spares do not get ready.
func TestSpareSetupHangs(t *testing.T) {
	t.Parallel()
	variable, members := family(t)
	gate := proctest.NewGate(t)
	pool := multiproc.NewPool(multiproc.PoolConfig{
		Workers: 1, Spares: 2, Env: []string{variable}, KillGrace: time.Hour,
		Setup: proctest.Do.With(proctest.Task{Gate: gate.Path, Deaf: true}),
	})
	started := make(chan error, 1)
	go func() { started <- pool.Start(proctest.Within(t)) }()
	for range 3 {
		gate.Next()
	}
	began := time.Now()
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
	if err := <-started; err == nil {
		t.Error("Start returns no error")
	}
	if took := time.Since(began); took > within {
		t.Errorf("Close took %v", took)
	}
	proctest.Want(t, "processes after Close", len(members()), 0)
}

func init() { helpers["spares"] = parentOfSpares }

// parentOfSpares is a program that has spares, says so, and waits.
func parentOfSpares() {
	spares := multiproc.NewSpares(2, multiproc.ProcessConfig{})
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Spares: 2})
	for _, start := range []func(context.Context) error{spares.Start, pool.Start} {
		if err := start(context.Background()); err != nil {
			fmt.Println(err)
			os.Exit(9)
		}
	}
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadString('\n')
}

// TestParentOfSparesEnds kills a program that has spares, or lets it return without
// closing them: they end within a second.
func TestParentOfSparesEnds(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"killed", "return"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			variable, members := family(t)
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), helperEnv+"=spares", variable)
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, _ := bufio.NewReader(stdout).ReadString('\n')
			proctest.Want(t, "line", line, "ready\n")
			proctest.Want(t, "processes", len(members()), 6)
			if how == "killed" {
				cmd.Process.Kill()
			} else {
				stdin.Close()
			}
			cmd.Wait()
			proctest.Eventually(t, time.Second, "they are gone", func() bool { return len(members()) == 0 })
		})
	}
}

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

func init() { helpers["parent"] = parent }

// parent is a program with a pool of two workers. It has them pass the gate GATE and
// then do END, says when that is done or under way, waits for a line of input and ends
// as that says.
func parent() {
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2, Stderr: io.Discard})
	task := proctest.Task{Gate: os.Getenv("GATE"), End: os.Getenv("END")}
	mapped := make(chan error, 1)
	go func() {
		_, err := proctest.Do.Map(context.Background(), pool, proctest.Tasks(2, task))
		mapped <- err
	}()
	if task.End == "" || task.End == "child" {
		if err := <-mapped; err != nil {
			fmt.Println(err)
			os.Exit(9)
		}
	}
	fmt.Println("ready")
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	switch line {
	case "return\n":
	case "exit\n":
		os.Exit(5)
	case "panic\n":
		panic("the parent panics")
	}
}

// TestParentEnds ends a program with workers in every state, in every way: the
// workers and what they started end within a second.
func TestParentEnds(t *testing.T) {
	states := map[string]string{"idle": "", "busy": "spin", "stopped": "signal 19", "with a child": "child", "blocked": "hang"}
	ends := []string{"killed", "interrupted", "return", "exit", "panic"}
	for state, end := range states {
		for _, how := range ends {
			t.Run(state+"/"+how, func(t *testing.T) {
				t.Parallel()
				p := startParent(t, end)
				groups := slices.Clone(p.workers)
				if end == "signal 19" {
					proctest.Eventually(t, proctest.Patience, "the workers are stopped", func() bool {
						return proctest.Stopped(groups[0]) && proctest.Stopped(groups[1])
					})
				}
				left := func() (pids []int) {
					for _, group := range groups {
						pids = append(pids, proctest.Group(group)...)
					}
					return pids
				}
				if n := len(left()); n != 2 && end != "child" || n != 4 && end == "child" {
					t.Fatalf("%d processes are there before the end", n)
				}

				switch how {
				case "killed":
					p.cmd.Process.Kill()
				case "interrupted": // as by Ctrl-C, which the whole foreground group gets
					syscall.Kill(-p.cmd.Process.Pid, syscall.SIGINT)
				default:
					io.WriteString(p.stdin, how+"\n")
				}
				p.cmd.Wait()

				took := proctest.Eventually(t, time.Second, "the workers are gone", func() bool { return len(left()) == 0 })
				t.Logf("gone after %v", took)
			})
		}
	}
}

// parentProcess is a running parent.
type parentProcess struct {
	cmd     *exec.Cmd
	stdin   io.Writer
	workers []int
}

// startParent starts a parent and returns when its workers do what they are to do.
func startParent(t *testing.T, end string) parentProcess {
	t.Helper()
	gate := proctest.NewGate(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"=parent", "GATE="+gate.Path, "END="+end)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
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
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	var workers []int
	for range 2 {
		v := gate.Next()
		workers = append(workers, v.PID)
	}
	gate.Open()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "ready" {
		t.Fatalf("the parent says %q, %v", line, err)
	}
	return parentProcess{cmd, stdin, workers}
}

// TestParentHangsOn stops the parent: its workers stay, as it may go on.
func TestParentHangsOn(t *testing.T) {
	t.Parallel()
	p := startParent(t, "")
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	proctest.Eventually(t, proctest.Patience, "the parent is stopped", func() bool { return proctest.Stopped(p.cmd.Process.Pid) })
	for _, pid := range p.workers {
		if !proctest.Running(pid) {
			t.Errorf("worker %d has ended", pid)
		}
	}
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	io.WriteString(p.stdin, "return\n")
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the parent ended with %v", err)
	}
	proctest.Eventually(t, time.Second, "the workers are gone", func() bool {
		return len(proctest.Group(p.workers[0]))+len(proctest.Group(p.workers[1])) == 0
	})
}

// host makes the call in a pool of its own.
var host = multiproc.Register("host", func(ctx context.Context, task proctest.Task) (int, error) {
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
	defer pool.Close()
	return proctest.Do.Call(ctx, pool, task)
})

// TestNestedParentDies kills a worker that has a worker: both are gone.
func TestNestedParentDies(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"hang", "spin", "signal 19"} {
		pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
		defer pool.Close()
		pid := pidOf(t, pool)
		gate := proctest.NewGate(t)
		fut := host.Go(proctest.Within(t), pool, proctest.Task{Gate: gate.Path, End: end})
		v := gate.Next()
		v.Release()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_, err := fut.Wait(proctest.Within(t))
		proctest.Want(t, "process of the crash", proctest.CrashOf(t, err, -1).PID, pid)
		proctest.Eventually(t, time.Second, "the worker's worker is gone", func() bool { return len(proctest.Group(v.PID)) == 0 })
	}
}

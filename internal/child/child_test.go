//go:build linux

package child

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The test binary is also the child: the variable says what to do.
const roleVar = "CHILD_TEST_ROLE"

// say tells the test through descriptor 3 that the child has come so far.
func say(format string, args ...any) { fmt.Fprintf(toTest(), format+"\n", args...) }

// toTest stays reachable: a file that does not is closed.
var toTest = sync.OnceValue(func() *os.File { return os.NewFile(3, "test") })

// wait waits for the end. An empty select would not do: the runtime ends a program
// that waits for nothing.
func wait() { <-time.After(time.Hour) }

// busy is written by a child that computes.
var busy int

var roles = map[string]func(){
	"exit":  func() { os.Exit(7) },
	"wait":  func() { say("here"); wait() },
	"close": func() { toTest().Close(); os.Exit(9) },
	"armed loop": func() {
		if err := Arm(4); err != nil {
			say("%v", err)
			os.Exit(1)
		}
		say("here")
		for i := 0; ; i++ { // computes, and asks for nothing
			busy = i
		}
	},
	"armed grandchild": func() {
		if err := Arm(4); err != nil {
			say("%v", err)
			os.Exit(1)
		}
		cmd := exec.Command("sleep", "1000")
		cmd.Start()
		say("%d", cmd.Process.Pid)
		wait()
	},
	"grandchild": func() {
		cmd := exec.Command("sleep", "1000")
		cmd.Stderr = os.Stderr // keeps the pipe open
		cmd.Start()
		say("%d", cmd.Process.Pid)
		os.Exit(3)
	},
	"talk": func() {
		fmt.Println("out one")
		fmt.Print("out two, no newline")
		for i := range 1000 {
			fmt.Fprintf(os.Stderr, "line %d\n", i)
		}
		fmt.Fprint(os.Stderr, "last words")
	},
	"panic":        func() { panic("a reason") },
	"tied command": func() { tied("command") },
	"tied foreign": func() { tied("foreign") },
	"count": func() {
		fds, _ := os.ReadDir("/proc/self/fd")
		say("%d", len(fds))
	},
}

func TestMain(m *testing.M) {
	if role, ok := roles[os.Getenv(roleVar)]; ok {
		role()
		os.Exit(0)
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // or each child takes a second to end under the race detector
	r, w, err := os.Pipe()                   // makes the runtime open the descriptors that it keeps
	if err != nil {
		panic(err)
	}
	r.Close()
	w.Close()
	if _, err := nullDevice(); err != nil { // stays open
		panic(err)
	}
	before := descriptors()
	code := m.Run()
	// What Reap has given up on, a pipe or a pidfd, is closed by its own goroutine.
	poll, deadline := time.NewTicker(10*time.Millisecond), time.After(5*time.Second)
	for late := false; code == 0 && descriptors() > before; {
		if late {
			fmt.Printf("%d descriptors before the tests, after:\n%s\n", before, strings.Join(targets(), "\n"))
			code = 1
		}
		select {
		case <-poll.C:
		case <-deadline:
			late = true
		}
	}
	var ws syscall.WaitStatus
	if pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil); err != syscall.ECHILD {
		fmt.Printf("a child is left: %d, %v\n", pid, err)
		code = 1
	}
	os.Exit(code)
}

func descriptors() int {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	return len(fds)
}

// targets returns what the descriptors refer to.
func targets() (names []string) {
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		if name, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// start starts the role; the reader has what it says.
func start(t *testing.T, role string, change func(*Config)) (*Child, *bufio.Reader) {
	t.Helper()
	cfg, said := config(t, role)
	if change != nil {
		change(&cfg)
	}
	c, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range cfg.Files {
		f.Close()
	}
	t.Cleanup(func() { c.Reap() })
	return c, said
}

func config(t *testing.T, role string) (Config, *bufio.Reader) {
	self, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.SetReadDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { r.Close() })
	return Config{Path: self, Args: []string{"child"}, Env: append(os.Environ(), roleVar+"="+role), Files: []*os.File{w}, Tail: 100}, bufio.NewReader(r)
}

func hear(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	line, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("the child said %q, then: %v", line, err)
	}
	return strings.TrimSpace(line)
}

// waitEOF waits until everybody who could speak is gone.
func waitEOF(t *testing.T, r *bufio.Reader) {
	t.Helper()
	if rest, err := io.ReadAll(r); err != nil {
		t.Fatalf("waiting for the end of the child: %q, %v", rest, err)
	}
}

// waitGone waits until there is no process pid, or only its remains.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || bytes.Contains(stat, []byte(") Z ")) || bytes.Contains(stat, []byte(") X ")) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("process %d is still there: %s", pid, stat)
		}
	}
}

func TestEnded(t *testing.T) {
	t.Run("by itself", func(t *testing.T) {
		c, said := start(t, "exit", nil)
		waitEOF(t, said)
		if e := c.Reap(); e.ExitCode() != 7 || e.Signal() != 0 || e.Err != nil {
			t.Errorf("exit code %d, signal %v, error %v; want 7", e.ExitCode(), e.Signal(), e.Err)
		}
	})
	t.Run("by a signal", func(t *testing.T) {
		c, said := start(t, "wait", nil)
		hear(t, said)
		if err := c.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		waitEOF(t, said)
		if e := c.Reap(); e.Signal() != syscall.SIGTERM || e.ExitCode() != -1 {
			t.Errorf("signal %v, exit code %d; want SIGTERM, -1", e.Signal(), e.ExitCode())
		}
	})
	t.Run("by Reap", func(t *testing.T) {
		c, said := start(t, "wait", nil)
		hear(t, said)
		if e := c.Reap(); e.Signal() != syscall.SIGKILL {
			t.Errorf("signal %v, want SIGKILL", e.Signal())
		}
		if e := c.Reap(); e.Err != os.ErrProcessDone || e.ExitCode() != -1 {
			t.Errorf("second Reap: %+v, want os.ErrProcessDone", e)
		}
		if err := c.Signal(syscall.SIGTERM); err != os.ErrProcessDone {
			t.Errorf("Signal after Reap: %v, want os.ErrProcessDone", err)
		}
	})
}

// A status is not lost when Reap finds the process between closing its descriptors
// and its end.
func TestReapKeepsExitCode(t *testing.T) {
	for range 50 {
		c, said := start(t, "exit", nil)
		waitEOF(t, said) // comes while the process is ending
		if e := c.Reap(); e.ExitCode() != 7 {
			t.Fatalf("exit code %d, signal %v; want 7", e.ExitCode(), e.Signal())
		}
	}
}

func TestReapKillsTheGroup(t *testing.T) {
	c, said := start(t, "grandchild", nil)
	pid, err := strconv.Atoi(hear(t, said))
	if err != nil {
		t.Fatal(err)
	}
	waitGone(t, c.PID()) // but for its remains
	if e := c.Reap(); e.ExitCode() != 3 {
		t.Errorf("exit code %d, want 3", e.ExitCode())
	}
	waitGone(t, pid)
}

// The lifeline ends the group whatever it does, without help of its own.
func TestLifeline(t *testing.T) {
	for name, stopped := range map[string]bool{"computing": false, "stopped": true} {
		t.Run(name, func(t *testing.T) {
			c, said := start(t, "armed loop", nil)
			if got := hear(t, said); got != "here" {
				t.Fatal(got)
			}
			if stopped {
				c.Signal(syscall.SIGSTOP)
			}
			c.life.Close() // as when this process dies
			waitGone(t, c.PID())
			if e := c.Reap(); e.Signal() != syscall.SIGKILL {
				t.Errorf("signal %v, exit code %d; want SIGKILL", e.Signal(), e.ExitCode())
			}
		})
	}
	t.Run("with a grandchild", func(t *testing.T) {
		c, said := start(t, "armed grandchild", nil)
		pid, err := strconv.Atoi(hear(t, said))
		if err != nil {
			t.Fatal(err)
		}
		c.life.Close()
		waitGone(t, pid)
		waitGone(t, c.PID())
	})
	t.Run("closed before it was armed", func(t *testing.T) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		c, said := start(t, "armed loop", func(cfg *Config) { cfg.Files = append(cfg.Files, r) }) // descriptor 4 is this pipe
		waitEOF(t, said)
		if e := c.Reap(); e.Signal() != syscall.SIGKILL {
			t.Errorf("signal %v, exit code %d; want SIGKILL", e.Signal(), e.ExitCode())
		}
	})
}

func TestOutput(t *testing.T) {
	var out, errs bytes.Buffer
	cfg, _ := config(t, "talk")
	cfg.Stdout, cfg.Stderr = &out, &errs
	e, err := Run(t.Context(), cfg)
	cfg.Files[0].Close()
	if err != nil || e.ExitCode() != 0 {
		t.Fatalf("%v, exit code %d", err, e.ExitCode())
	}
	if want := "out one\nout two, no newline\n"; out.String() != want {
		t.Errorf("stdout %q, want %q", out.String(), want)
	}
	if got := strings.Count(errs.String(), "\n"); got != 1001 || !strings.HasSuffix(errs.String(), "\nlast words\n") {
		t.Errorf("stderr has %d lines, ending in %q", got, errs.String()[max(0, errs.Len()-20):])
	}
	if len(e.Tail) > 100 || !strings.HasPrefix(e.Tail, "line ") || !strings.HasSuffix(e.Tail, "line 999\nlast words") {
		t.Errorf("tail %q, want the last whole lines in 100 bytes", e.Tail)
	}
}

func TestReason(t *testing.T) {
	cfg, _ := config(t, "panic")
	e, err := Run(t.Context(), cfg)
	cfg.Files[0].Close()
	if err != nil || e.Reason != "panic: a reason" || e.ExitCode() != 2 {
		t.Errorf("%v, reason %q, exit code %d", err, e.Reason, e.ExitCode())
	}
}

func TestRunEndsWithContext(t *testing.T) {
	cfg, said := config(t, "wait")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan Ended)
	go func() {
		e, err := Run(ctx, cfg)
		if err != nil {
			t.Error(err)
		}
		done <- e
	}()
	hear(t, said)
	cancel()
	if e := <-done; e.Signal() != syscall.SIGKILL {
		t.Errorf("signal %v, want SIGKILL", e.Signal())
	}
	cfg.Files[0].Close()
}

// A process that left the group holds the pipe: Reap does not wait for it.
func TestReapDoesNotWaitForTheEscaped(t *testing.T) {
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip("this machine has no setsid command to escape with")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := Start(Config{
		Path: "/bin/sh", Args: []string{"sh", "-c", "setsid sh -c 'echo $$ >&3; exec sleep 60' & sleep 60"},
		Env: os.Environ(), Files: []*os.File{w}, Stderr: io.Discard,
	})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(hear(t, bufio.NewReader(r)))
	if err != nil {
		t.Fatal(err)
	}
	defer waitGone(t, pid)
	defer syscall.Kill(pid, syscall.SIGKILL)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Reap()
	}()
	select {
	case <-done:
	case <-time.After(reapTimeout):
		t.Error("Reap waits for a process that it cannot reach")
	}
}

// A writer that is stuck does not hold up Reap.
func TestReapDoesNotWaitForTheWriter(t *testing.T) {
	release := make(chan struct{})
	c, said := start(t, "talk", func(cfg *Config) { cfg.Stderr = stuckWriter(release) })
	waitEOF(t, said)
	c.Reap()
	close(release)
	<-c.stderr.done
}

type stuckWriter chan struct{}

func (w stuckWriter) Write(p []byte) (int, error) { <-w; return len(p), nil }

func TestStartFails(t *testing.T) {
	before := descriptors()
	for _, cfg := range []Config{
		{Path: "/nonexistent", Stdout: io.Discard, Stderr: io.Discard},
		{Path: "/proc/self/exe", Dir: "/nonexistent", Tail: 10},
	} {
		_, err := Start(cfg)
		if err == nil || !strings.HasPrefix(err.Error(), "start process: ") || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("error %v", err)
		}
	}
	if after := descriptors(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestNothingIsInherited(t *testing.T) {
	high, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer high.Close()
	want := ""
	for range 5 { // with 0 to 4 siblings
		_, said := start(t, "count", nil)
		start(t, "wait", nil)
		if got := hear(t, said); want == "" {
			want = got
		} else if got != want {
			t.Errorf("a child has %s descriptors, its sibling %s", got, want)
		}
	}
}

//go:build linux

package child

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// shell returns a command that runs a script.
func shell(script string, stdout, stderr io.Writer) Command {
	return Command{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: os.Environ(), Stdout: stdout, Stderr: stderr, Grace: 10 * time.Second}
}

func TestCommand(t *testing.T) {
	needShell(t)
	big := strings.Repeat("x", 1<<20)
	for _, test := range []struct {
		script, stdout, stderr string
		want                   Exit
	}{
		{"true", "", "", Exit{}},
		{"printf 'no newline'; printf err >&2; exit 3", "no newline", "err", Exit{Code: 3}},
		{"kill -9 $$", "", "", Exit{Code: -1, Signal: syscall.SIGKILL}},
		{"cat; echo at the end", "at the end\n", "", Exit{}},
		{"head -c 1048576 /dev/zero | tr '\\0' x; head -c 1048576 /dev/zero | tr '\\0' x >&2", big, big, Exit{}},
		{"sleep 1000 & echo started", "started\n", "", Exit{}}, // it does not hold up the end, and is killed
	} {
		var stdout, stderr bytes.Buffer
		got, err := shell(test.script, &stdout, &stderr).Run(t.Context())
		if err != nil || got != test.want || stdout.String() != test.stdout || stderr.String() != test.stderr {
			t.Errorf("%s: %+v, %v, %d and %d bytes; want %+v, %d and %d bytes", test.script, got, err, stdout.Len(), stderr.Len(), test.want, len(test.stdout), len(test.stderr))
		}
	}
}

func TestCommandThatCannotStart(t *testing.T) {
	if _, err := (Command{Path: "/nonexistent", Args: []string{"x"}}).Run(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the error is %v", err)
	}
}

func needShell(t *testing.T) {
	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skip("needs /bin/sh, a POSIX shell")
	}
}

// TestAwaitEnd awaits the end of a process without a pidfd.
func TestAwaitEnd(t *testing.T) {
	needShell(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cmd := exec.Command("/bin/sh", "-c", "read x")
	cmd.Stdin = r
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	end, err := awaitEnd(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(end)
	poll := []unix.PollFd{{Fd: int32(end), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 0); n > 0 || err != nil && err != unix.EINTR {
		t.Errorf("while the process runs, poll returns %d, %v", n, err)
	}
	w.Close()
	n, err := unix.Poll(poll, 10_000)
	for err == unix.EINTR {
		n, err = unix.Poll(poll, 10_000)
	}
	if n != 1 {
		t.Errorf("after its end, poll returns %d, %v", n, err)
	}
	cmd.Wait()
}

// signalled calls a function when it is written to.
type signalled struct{ then func() }

func (s signalled) Write(p []byte) (int, error) { s.then(); return len(p), nil }

func TestCommandWhoseContextEnds(t *testing.T) {
	needShell(t)
	for _, test := range []struct {
		name, script string
		grace        time.Duration
		want         Exit
	}{
		{"obeys", "echo started; sleep 1000", time.Hour, Exit{Code: -1, Signal: syscall.SIGTERM, Killed: true}},
		{"cleans up", "trap 'exit 7' TERM; echo started; while :; do sleep 0.01; done", time.Hour, Exit{Code: 7, Killed: true}},
		{"does not obey", "trap '' TERM; echo started; while :; do sleep 1000; done", time.Millisecond, Exit{Code: -1, Signal: syscall.SIGKILL, Killed: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c := shell(test.script, signalled{cancel}, nil)
			c.Grace = test.grace
			if got, err := c.Run(ctx); err != nil || got != test.want {
				t.Errorf("%+v, %v; want %+v", got, err, test.want)
			}
		})
	}
}

// TestTie has a process that starts commands killed: their groups go with it.
func TestTie(t *testing.T) {
	needShell(t)
	for _, how := range []string{"command", "foreign"} {
		t.Run(how, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			cmd := exec.Command("/proc/self/exe", "-test.run=^$")
			cmd.Env = append(os.Environ(), roleVar+"=tied "+how)
			cmd.Stdout = w
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			var pids []int
			buf := make([]byte, 100)
			text := ""
			for strings.Count(text, "\n") < 3 {
				n, err := r.Read(buf)
				if err != nil {
					t.Fatalf("after %q: %v", text, err)
				}
				text += string(buf[:n])
			}
			for _, field := range strings.Fields(text) {
				if field == "tied" {
					continue
				}
				pid, err := strconv.Atoi(field)
				if err != nil {
					t.Fatal(err)
				}
				pids = append(pids, pid)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			for _, pid := range pids {
				waitGone(t, pid)
			}
		})
	}
}

// tied runs a command that says its process id and that of what it starts, and says itself when that is tied.
func tied(how string) {
	go func() { // ends when it has seen the tie
		for tick := time.Tick(time.Millisecond); len(owned()) < 2; <-tick {
		}
		os.Stdout.WriteString("tied\n")
	}()
	script := "trap '' TERM; echo $$; sh -c 'trap \"\" TERM HUP; exec 3>&- 4>&- 5>&-; echo $$; while :; do sleep 1000; done'"
	if how == "command" {
		Command{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: os.Environ(), Stdout: os.Stdout}.Run(context.Background())
		return
	}
	c, err := Start(Config{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: os.Environ(), Stdout: os.Stdout, Foreign: true})
	if err == nil {
		<-c.exited
	}
}

// owned returns the descriptors of this process that have a signal sent to a group.
func owned() (fds []int) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		owner, err := unix.FcntlInt(uintptr(fd), unix.F_GETOWN, 0)
		var no syscall.Errno // the number of a group below 4096 looks like that of an error
		if err == nil && owner < -1 || errors.As(err, &no) && no > unix.EHWPOISON {
			fds = append(fds, fd)
		}
	}
	return fds
}

func BenchmarkCommand(b *testing.B) {
	c := Command{Path: "/bin/true", Args: []string{"true"}, Env: os.Environ()}
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	for b.Loop() {
		if exit, err := c.Run(b.Context()); err != nil || exit != (Exit{}) {
			b.Fatal(exit, err)
		}
	}
}

func BenchmarkExec(b *testing.B) {
	for b.Loop() {
		var out, errs bytes.Buffer
		c := exec.Command("/bin/true")
		c.Stdout, c.Stderr = &out, &errs
		if err := c.Run(); err != nil {
			b.Fatal(err)
		}
	}
}

//go:build linux

package multiproc_test

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestOutputInLines has workers write at once: each line arrives whole, and the
// writers need no lock of their own.
func TestOutputInLines(t *testing.T) {
	t.Parallel()
	const n, lines = 40, 20
	text := func(i int) (text proctest.Text) {
		for l := range lines {
			text.Out += fmt.Sprintf("call %d line %d %s\n", i, l, strings.Repeat("o", 50*l))
			text.Err += fmt.Sprintf("call %d line %d %s\n", i, l, strings.Repeat("e", 50*l))
		}
		return text
	}
	var texts []proctest.Text
	all := map[string]int{}
	for i := range n {
		texts = append(texts, text(i))
		for line := range strings.Lines(texts[i].Out + texts[i].Err) {
			all[line]++
		}
	}
	for name, ex := range map[string]func(multiproc.PoolConfig) multiproc.Executor{
		"pool":      func(c multiproc.PoolConfig) multiproc.Executor { return multiproc.NewPool(c) },
		"processes": func(c multiproc.PoolConfig) multiproc.Executor { return multiproc.NewProcesses(c) },
	} {
		var out, errs bytes.Buffer
		ex := ex(multiproc.PoolConfig{Workers: 3, Stdout: &out, Stderr: &errs})
		if _, err := proctest.Print.Map(proctest.Within(t), ex, texts); err != nil {
			t.Fatal(err)
		}
		if err := ex.Close(); err != nil { // after it everything has arrived
			t.Error(err)
		}
		got := map[string]int{}
		for line := range strings.Lines(out.String() + errs.String()) {
			got[line]++
		}
		proctest.Want(t, name+": lines", got, all)
		if strings.Contains(out.String(), "e\n") || strings.Contains(errs.String(), "o\n") {
			t.Errorf("%s: standard output and error are mixed", name)
		}
	}
}

// TestOutputToOneWriter sends both to one writer.
func TestOutputToOneWriter(t *testing.T) {
	t.Parallel()
	var both bytes.Buffer
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 3, Stdout: &both, Stderr: &both})
	var texts []proctest.Text
	for range 50 {
		texts = append(texts, proctest.Text{Out: "out out out\n", Err: "err err err\n"})
	}
	if _, err := proctest.Print.Map(proctest.Within(t), pool, texts); err != nil {
		t.Error(err)
	}
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
	proctest.Want(t, "lines out", strings.Count(both.String(), "out out out\n"), 50)
	proctest.Want(t, "lines err", strings.Count(both.String(), "err err err\n"), 50)
	proctest.Want(t, "length", both.Len(), 50*24)
}

// writerFunc cannot be compared with ==.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestOutputWriters has writers of every kind, those that fail included.
func TestOutputWriters(t *testing.T) {
	t.Parallel()
	fails := writerFunc(func([]byte) (int, error) { return 0, io.ErrShortWrite })
	for name, cfg := range map[string]multiproc.PoolConfig{
		"fails":             {Stdout: fails, Stderr: io.Discard},
		"not comparable":    {Stdout: fails, Stderr: fails},
		"nor within":        {Stdout: struct{ io.Writer }{fails}, Stderr: struct{ io.Writer }{fails}},
		"discard":           {Stdout: io.Discard, Stderr: io.Discard},
		"error to discard":  {Stderr: io.Discard},
		"output to discard": {Stdout: io.Discard},
	} {
		func() {
			defer func() {
				if r := recover(); r != nil {
					t.Errorf("%s: panic: %v", name, r)
				}
			}()
			cfg.Workers = 1
			pool := multiproc.NewPool(cfg)
			defer pool.Close()
			// More than a pipe holds.
			text := proctest.Text{Out: strings.Repeat("out\n", 50_000)}
			if name == "output to discard" || name == "error to discard" {
				text = proctest.Text{}
			}
			for range 3 {
				if _, err := proctest.Print.Call(proctest.Within(t), pool, text); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}()
	}
}

// TestLastLine has no newline at its end, and one is longer than a buffer.
func TestLastLine(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Stdout: &out})
	long := strings.Repeat("x", 200_000)
	if _, err := proctest.Print.Call(proctest.Within(t), pool, proctest.Text{Out: long + "\nend"}); err != nil {
		t.Error(err)
	}
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
	if got := out.String(); strings.TrimRight(got, "\n") != long+"\nend" {
		t.Errorf("%d bytes arrive, of %d", len(got), len(long)+4)
	}
}

// TestStderrTail looks at what a crash tells of the worker's last lines.
func TestStderrTail(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	for name, sink := range map[string]io.Writer{"dropped": io.Discard, "kept": &bytes.Buffer{}} {
		pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Stderr: sink})
		defer pool.Close()
		_, err := proctest.Do.Call(proctest.Within(t), pool, proctest.Task{Say: b.String(), End: "exit 1"})
		crash := proctest.CrashOf(t, err, -1)
		if n := len(crash.Stderr); n > 8<<10 || n < 7<<10 {
			t.Errorf("%s: %d bytes of standard error are told", name, n)
		}
		if !regexp.MustCompile(`^(line \d+\n)+line 9999\n$`).MatchString(crash.Stderr) {
			t.Errorf("%s: standard error ends with %q", name, crash.Stderr[max(0, len(crash.Stderr)-100):])
		}
		if !strings.HasSuffix(err.Error(), "exit code 1: line 9999") {
			t.Errorf("%s: got %v, want the last line in it", name, err)
		}
	}
}

// TestStrayKeepsOutput has a call leave a process behind that has left its group and
// keeps the worker's output open: nobody waits for it for long.
func TestStrayKeepsOutput(t *testing.T) {
	t.Parallel()
	const marked = "STRAY=of this test"
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Stdout: io.Discard, Stderr: io.Discard, Env: []string{marked}})
	out, err := proctest.Do.Call(proctest.Within(t), pool, proctest.Task{X: 3, End: "stray"})
	if out != 9 || err != nil {
		t.Errorf("got %d, %v", out, err)
	}
	defer func() { // it is not killed with the worker, which is a limit that is documented
		for _, stray := range proctest.Strays(marked) {
			syscall.Kill(stray, syscall.SIGKILL)
		}
	}()
	began := time.Now()
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("Close took %v", took)
	}
}

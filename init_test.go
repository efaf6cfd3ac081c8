//go:build linux

package multiproc_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// build compiles a program of testdata.
func build(t *testing.T, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", slices.Concat(args, []string{"-o", path, "./testdata/noinit"})...)
	cmd.Env = append(os.Environ(), "MULTIPROC_TEST_MARK=") // what the go command leaves running is not ours
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return path
}

// TestInitForgotten runs programs that call Init too late or never: they say so, soon,
// and no crowd of processes comes of it.
func TestInitForgotten(t *testing.T) {
	t.Parallel()
	program := build(t, "build")
	for how, wanted := range map[string][]string{
		"never": {
			"main runs",
			"[] square: " + multiproc.ErrNotInitialized.Error(),
			"start: square: start process: " + multiproc.ErrNotInitialized.Error(),
		},
		"hangs": {
			"[] square #0: start worker: the worker did not call multiproc.Init within 300ms; make it the first statement of main",
			"process: 0 square (pid N): start worker: the worker did not call multiproc.Init within 300ms; make it the first statement of main",
		},
		"exits": {
			"[] square #0: start worker: the worker ended before it called multiproc.Init, which should be the first statement of main: start (pid N): worker died: exit code 7",
			"process: 0 square (pid N): start worker: the worker ended before it called multiproc.Init, which should be the first statement of main: start (pid N): worker died: exit code 7",
		},
		"panics": {
			"[] square #0: start worker: the worker ended before it called multiproc.Init, which should be the first statement of main: start (pid N): worker died: exit code 2: panic: before Init",
			"process: 0 square (pid N): start worker: the worker ended before it called multiproc.Init, which should be the first statement of main: start (pid N): worker died: exit code 2: panic: before Init",
		},
		"late": {"[1 4 9] <nil>", "process: 16 <nil>"},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			lines, starts := run(t, exec.Command(program, how))
			for _, line := range wanted {
				if !slices.Contains(lines, line) {
					t.Errorf("no line says %q, but:\n%s", line, strings.Join(lines, "\n"))
				}
			}
			if most := map[string]int{"never": 1}[how]; starts > max(most, 8) || most > 0 && starts > most {
				t.Errorf("main ran in %d processes", starts)
			}
		})
	}
}

// TestInitForgottenInTest runs the test of a package that has no TestMain.
func TestInitForgottenInTest(t *testing.T) {
	t.Parallel()
	lines, starts := run(t, exec.Command(build(t, "test", "-c"), "never"))
	if text := strings.Join(lines, "\n"); !strings.Contains(text, "of TestMain in a test: func TestMain(m *testing.M) { multiproc.Init(); os.Exit(m.Run()) }") {
		t.Errorf("nothing says what to do, but:\n%s", text)
	}
	proctest.Want(t, "processes in which main ran", starts, 1)
}

// run runs a program and returns what it prints, with pids as N, and in how many
// processes its main ran.
func run(t *testing.T, cmd *exec.Cmd) (lines []string, starts int) {
	t.Helper()
	timer := time.AfterFunc(proctest.Patience, func() { cmd.Process.Kill() })
	defer timer.Stop()
	cmd.Env = os.Environ()
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		words := strings.SplitAfter(strings.TrimSuffix(line, "\n"), "(pid ")
		for i, word := range words[1:] {
			words[i+1] = "N" + word[strings.IndexByte(word, ')'):]
		}
		line = strings.Join(words, "")
		if line == "main runs" {
			starts++
		}
		lines = append(lines, line)
	}
	return lines, starts
}

// TestNesting has workers use pools of their own, to the depth that is allowed.
func TestNesting(t *testing.T) {
	t.Parallel()
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
	defer pool.Close()
	for levels, deep := range map[int]bool{1: true, 3: true, 8: true, 9: false, 20: false} {
		n, err := proctest.Nest.Call(proctest.Within(t), pool, levels)
		switch {
		case deep && (n != levels || err != nil):
			t.Errorf("%d levels: got %d, %v", levels, n, err)
		case !deep && !errors.Is(err, multiproc.ErrTooDeep):
			t.Errorf("%d levels: got %d, %v, want ErrTooDeep", levels, n, err)
		}
	}
}

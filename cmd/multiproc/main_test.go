package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/seed84f35039/multiproc"
)

// TestMain is also the main of the command, which scripts run, and of its workers.
func TestMain(m *testing.M) {
	multiproc.Init()
	// With the race detector every process would wait for a second at its end.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	testscript.Main(tidy{m}, map[string]func(){"multiproc": main})
}

// tidy fails the tests when they leave processes behind.
type tidy struct{ m *testing.M }

func (t tidy) Run() int {
	code := t.m.Run()
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		if pids, err := os.ReadFile(list); err == nil && len(pids) > 0 {
			fmt.Fprintf(os.Stderr, "FAIL: the tests left processes behind: %s\n", pids)
			code = 1
		}
	}
	return code
}

func TestRunTellsWhatIsWrong(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run([]string{"scale", "--runs", "0", "nothing"}, &stdout, &stderr); code != codeUsage {
		t.Errorf("exit code %d, want %d", code, codeUsage)
	}
	want := `error: unknown workload "nothing"; there are list-append, files, sleep
error: --runs is 0, want at least 1
hint: multiproc scale --help tells what there is
`
	if stdout.Len() > 0 || stderr.String() != want {
		t.Errorf("stdout %q, stderr:\n%s\nwant:\n%s", stdout.String(), stderr.String(), want)
	}
}

// brokenPipe takes nothing.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("nobody reads") }

func TestReportThatCannotBeWritten(t *testing.T) {
	var stderr bytes.Buffer
	args := []string{"scale", "sleep", "--size", "1", "--runs", "1", "--kind", threads, "--workers", "1"}
	code := run(args, brokenPipe{}, &stderr)
	if code != codeFailure || !strings.Contains(stderr.String(), "error: write report: nobody reads") {
		t.Errorf("exit code %d, stderr %q", code, stderr.String())
	}
}

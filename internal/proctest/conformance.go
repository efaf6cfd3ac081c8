package proctest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/shm"
)

// Subject is an executor under test.
type Subject struct {
	Name string
	Open func(Options) multiproc.Executor

	// What it can do. Cases that need more are not part of its suite.
	Crashes bool // calls run in other processes, which may die; values are encoded on the way
	Reuses  bool // a worker takes one call after another
	Setup   bool // workers can have a setup function

	NoMemory bool // it has no way for shared memory, though the system has that
	Far      bool // it takes a moment until those who have a call learn that it is not wanted any more
}

// Options are what a case wants of an executor. Zero means the default.
type Options struct {
	Workers int
	Grace   time.Duration // for calls that do not look at their contexts
	Setup   *multiproc.Setup
	Retry   multiproc.Retry
}

// Conformance checks that an executor does what callers rely on: one subtest for each
// behaviour, by its number and words.
func Conformance(t *testing.T, s Subject) {
	for _, group := range [][]behaviour{mapCases, streamCases, errorCases, codecCases, futureCases, closeCases, unreadCases, crashCases, memoryCases, keyCases} {
		for _, b := range group {
			if b.needs.crashes && !s.Crashes || b.needs.setup && !s.Setup || b.needs.memory && (s.NoMemory || !shm.Supported) {
				continue
			}
			t.Run(b.name, func(t *testing.T) {
				t.Parallel()
				b.test(t, s)
			})
		}
	}
}

// behaviour is one case of the suite.
type behaviour struct {
	name  string
	needs needs
	test  func(t *testing.T, s Subject)
}

// needs are the capabilities without which a case makes no sense.
type needs struct{ crashes, setup, memory bool }

// start opens an executor, to be closed at the end of the test.
func (s Subject) start(t testing.TB, o Options) multiproc.Executor {
	t.Helper()
	ex := s.Open(o)
	t.Cleanup(func() {
		if err := ex.Close(); err != nil && !errors.Is(err, multiproc.ErrClosed) {
			t.Errorf("Close: %v", err)
		}
	})
	return ex
}

// some returns how many of n calls are enough of a test: fewer where each of them
// costs a process.
func (s Subject) some(n int) int {
	if s.Reuses {
		return n
	}
	return max(n/4, 6)
}

// Within returns a context that ends when the test should have ended long ago.
func Within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	t.Cleanup(cancel)
	return ctx
}

// Want compares what came with what should have.
func Want(t testing.TB, what string, got, wanted any) {
	t.Helper()
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("%s differs from what it should be (-want +got):\n%s", what, clip(diff))
	}
}

func clip(s string) string {
	if len(s) > 2000 {
		return s[:2000] + "…"
	}
	return s
}

// WantErr checks that err is, in the sense of errors.Is, target.
func WantErr(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("got error %s, want %v", clip(fmt.Sprint(err)), target)
	}
}

// Squares returns the squares of 0 to n-1.
func Squares(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i * i
	}
	return out
}

// Numbers returns 0 to n-1.
func Numbers(n int) []int {
	xs := make([]int, n)
	for i := range xs {
		xs[i] = i
	}
	return xs
}

// LogFile returns the path of a new log for tasks.
func LogFile(t testing.TB) string { return filepath.Join(t.TempDir(), "log") }

// Entry is a line of a log.
type Entry struct{ X, PID int }

// ReadLog returns what tasks have logged, in order.
func ReadLog(t testing.TB, path string) (entries []Entry) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		x, pid, _ := strings.Cut(strings.TrimSpace(line), " ")
		var e Entry
		e.X, _ = strconv.Atoi(x)
		e.PID, _ = strconv.Atoi(pid)
		entries = append(entries, e)
	}
	return entries
}

// Runs returns how often each task is in the log.
func Runs(t testing.TB, path string) map[int]int {
	t.Helper()
	runs := map[int]int{}
	for _, e := range ReadLog(t, path) {
		runs[e.X]++
	}
	return runs
}

// Once returns what Runs should return when tasks 0 to n-1 have run once each.
func Once(n int) map[int]int {
	return maps.Collect(func(yield func(int, int) bool) {
		for i := range n {
			if !yield(i, 1) {
				return
			}
		}
	})
}

// AwaitClosing waits until the executor refuses calls.
func AwaitClosing(t testing.TB, ex multiproc.Executor) {
	t.Helper()
	Eventually(t, Patience, "calls are refused", func() bool {
		_, err := Square.Map(context.Background(), ex, nil)
		return errors.Is(err, multiproc.ErrClosed)
	})
}

// Eventually waits for what nobody announces, and returns how long it took.
func Eventually(t testing.TB, limit time.Duration, what string, holds func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for ; !holds(); <-poll.C {
		if time.Since(began) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
	return time.Since(began)
}

// Promptly checks that f returns well before a wait would show.
func Promptly(t testing.TB, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(Patience):
		t.Fatalf("%s did not return", what)
	}
}

package proctest

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// mark is in the environment of every process that the tests start, and of those that
// these start, however far they have got from their parents.
const mark = "MULTIPROC_TEST_MARK"

// endings bounds how long what is about to end may take.
const endings = 5 * time.Second

// Run runs the tests of a package and returns the exit code. It is 1 also when they
// have left something behind: a process, a descriptor, a goroutine, or a file in the
// directories for temporary files or for shared memory. Goroutines that others are known to leave
// behind are excused by options.
func Run(m *testing.M, excused ...goleak.Option) int {
	if !flag.Parsed() {
		flag.Parse()
	}
	for _, name := range []string{"test.bench", "test.fuzz", "test.list"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			return m.Run() // and no tests, or not only
		}
	}
	before, err := watch()
	if err != nil {
		fmt.Fprintf(os.Stderr, "look for what is there before the tests: %v\n", err)
		return 1
	}
	code := m.Run()
	if left := before.leftovers(excused); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "the tests leave behind:\n%s\n", strings.Join(left, "\n"))
		code = max(code, 1)
	}
	if raced.Load() {
		fmt.Fprintln(os.Stderr, "a worker has a data race; see above")
		code = max(code, 1)
	}
	return code
}

// watched is what there was before the tests.
type watched struct {
	temp   string // directory for temporary files, which was empty
	files  []string
	shared []string
	mark   string // as it is in the environment of a process
}

func watch() (w watched, err error) {
	if w.temp, err = os.MkdirTemp("", "multiproc-test-"); err != nil {
		return w, err
	}
	for _, name := range []string{"TMPDIR", "TMP", "TEMP"} { // Unix, Windows
		os.Setenv(name, w.temp)
	}
	os.Setenv(mark, w.temp)
	// Under the race detector a process sleeps for a second when it exits.
	os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	w.mark = mark + "=" + w.temp
	w.shared = sharedMemory()
	w.files = files()
	return w, nil
}

// leftovers returns what is there that was not there before, a line each. It gives
// processes and descriptors that are about to go the time to do so.
func (w watched) leftovers(excused []goleak.Option) (left []string) {
	if err := goleak.Find(excused...); err != nil { // has a patience of its own
		left = append(left, err.Error())
	}
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	deadline := time.After(endings)
	for {
		runtime.GC() // closes shared memory that nobody has
		now := w.now()
		if len(now) == 0 {
			os.Remove(w.temp)
			return left
		}
		select {
		case <-poll.C:
		case <-deadline:
			os.RemoveAll(w.temp)
			return append(left, now...)
		}
	}
}

func (w watched) now() (left []string) {
	for _, p := range processes(w.mark) {
		left = append(left, "process "+p)
	}
	for _, f := range added(w.files, files()) {
		left = append(left, "descriptor of "+f)
	}
	for _, f := range added(w.shared, sharedMemory()) {
		left = append(left, "shared memory "+f)
	}
	entries, err := os.ReadDir(w.temp)
	if err != nil {
		left = append(left, err.Error())
	}
	for _, e := range entries {
		left = append(left, "temporary file "+e.Name())
	}
	return left
}

// added returns what after has more of than before.
func added(before, after []string) (more []string) {
	before = slices.Clone(before)
	for _, x := range after {
		if i := slices.Index(before, x); i >= 0 {
			before = slices.Delete(before, i, i+1)
		} else {
			more = append(more, x)
		}
	}
	return more
}

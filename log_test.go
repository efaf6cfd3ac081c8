//go:build linux

package multiproc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// speech is what a call of speak logs: its message, by these ways, in order:
//
//	context   with its context
//	derived   with a context that is derived from it, by a logger with attributes and a group
//	none      without a context
//	log       by package log
//	debug     at level debug
//	error     at level error
//	goroutine without a context, on a goroutine of its own
//	crash     as context, and kills its process then
type speech struct {
	X    int
	Ways []string
}

type speechKey struct{}

// speak returns whether it could have logged at level info.
var speak = multiproc.Register("log.speak", func(ctx context.Context, s speech) (bool, error) {
	for _, way := range s.Ways {
		switch way {
		case "context":
			slog.InfoContext(ctx, way, "x", s.X)
		case "derived":
			ctx, cancel := context.WithCancel(context.WithValue(ctx, speechKey{}, 1))
			slog.With("a", 1).WithGroup("g").InfoContext(ctx, way, "x", s.X)
			cancel()
		case "none":
			slog.Info(way, "x", s.X)
		case "log":
			log.Printf("%s %d", way, s.X)
		case "debug":
			slog.DebugContext(ctx, way, "x", s.X)
		case "error":
			slog.ErrorContext(ctx, way, "x", s.X)
		case "goroutine":
			done := make(chan struct{})
			go func() {
				defer close(done)
				slog.Info(way, "x", s.X)
			}()
			<-done
		case "crash":
			slog.InfoContext(ctx, way, "x", s.X)
			os.Exit(3)
		}
	}
	return slog.Default().Enabled(ctx, slog.LevelInfo), nil
})

// journal is where records go, a line each.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, strings.TrimSpace(string(line)))
	return len(line), nil
}

// logger returns a logger that writes to j, without times.
func (j *journal) logger(level slog.Leveler) *slog.Logger {
	return slog.New(slog.NewJSONHandler(j, &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey && len(groups) == 0 {
			return slog.Attr{}
		}
		return a
	}}))
}

// take returns the lines that have come, sorted, with N for each process id, which must be one of
// a worker, and begins anew.
func (j *journal) take(t *testing.T) []string {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	lines := j.lines
	j.lines = nil
	for i, line := range lines {
		var r struct{ Worker struct{ PID int } }
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.Worker.PID <= 1 || r.Worker.PID == os.Getpid() {
			t.Errorf("%s: %v", line, err)
		}
		lines[i] = strings.Replace(line, fmt.Sprintf(`"pid":%d`, r.Worker.PID), `"pid":N`, 1)
	}
	slices.Sort(lines)
	return lines
}

// TestLogger has calls of every executor log in all ways: it is there when their results are.
func TestLogger(t *testing.T) {
	t.Parallel()
	all := []string{"context", "derived", "none", "log", "debug", "error", "goroutine"}
	want := func(x int, call string) (lines []string) {
		for _, l := range []string{
			`{"level":"INFO","msg":"context","x":X,"worker":{"pid":N,CALL}}`,
			`{"level":"INFO","msg":"derived","a":1,"g":{"x":X},"worker":{"pid":N,CALL}}`,
			`{"level":"INFO","msg":"none","x":X,"worker":{"pid":N,CALL}}`,
			`{"level":"INFO","msg":"log X","worker":{"pid":N,CALL}}`,
			`{"level":"ERROR","msg":"error","x":X,"worker":{"pid":N,CALL}}`,
			`{"level":"INFO","msg":"goroutine","x":X,"worker":{"pid":N,CALL}}`,
		} {
			lines = append(lines, strings.NewReplacer("X", fmt.Sprint(x), "CALL", `"func":"log.speak"`+call).Replace(l))
		}
		slices.Sort(lines)
		return lines
	}
	for name, ex := range map[string]func(multiproc.PoolConfig) multiproc.Executor{
		"pool":      func(c multiproc.PoolConfig) multiproc.Executor { return multiproc.NewPool(c) },
		"sockets":   func(c multiproc.PoolConfig) multiproc.Executor { return multiproc.NewSocketPool(c) },
		"processes": func(c multiproc.PoolConfig) multiproc.Executor { return multiproc.NewProcesses(c) },
	} {
		var j, stderr journal
		ex := ex(multiproc.PoolConfig{Workers: 2, Logger: j.logger(nil), Stderr: &stderr})
		if _, err := speak.Call(proctest.Within(t), ex, speech{5, all}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		proctest.Want(t, name+": Call", j.take(t), want(5, ""))
		var speeches []speech
		var lines []string
		for i := range 40 {
			speeches = append(speeches, speech{i, all})
			lines = append(lines, want(i, fmt.Sprintf(`,"index":%d`, i))...)
		}
		if _, err := speak.Map(proctest.Within(t), ex, speeches); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		slices.Sort(lines)
		proctest.Want(t, name+": Map", j.take(t), lines)
		if err := ex.Close(); err != nil {
			t.Error(err)
		}
		proctest.Want(t, name+": standard error", len(stderr.lines), 0)
	}
	var j journal
	p, err := speak.Start(proctest.Within(t), speech{5, all}, multiproc.ProcessConfig{Logger: j.logger(nil)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Result(proctest.Within(t)); err != nil {
		t.Error(err)
	}
	proctest.Want(t, "Start", j.take(t), want(5, ""))
	p.Wait(proctest.Within(t))
}

// TestNoLogger has a worker log to its standard error.
func TestNoLogger(t *testing.T) {
	t.Parallel()
	var stderr journal
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Stderr: &stderr})
	if _, err := speak.Call(proctest.Within(t), pool, speech{5, []string{"context", "log"}}); err != nil {
		t.Error(err)
	}
	pool.Close()
	if got := strings.Join(stderr.lines, "\n"); !regexp.MustCompile(`^\S+ \S+ INFO context x=5\n\S+ \S+ log 5$`).MatchString(got) {
		t.Errorf("standard error: %s", got)
	}
}

// TestLogLevel has a worker log no more than its parent wants.
func TestLogLevel(t *testing.T) {
	t.Parallel()
	var j journal
	var level slog.LevelVar
	level.Set(slog.LevelError)
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Logger: j.logger(&level)})
	defer pool.Close()
	say := func() bool {
		wants, err := speak.Call(proctest.Within(t), pool, speech{5, []string{"none", "error"}})
		if err != nil {
			t.Error(err)
		}
		return wants
	}
	if say() {
		t.Error("the worker thinks that information is wanted")
	}
	line := `{"level":"ERROR","msg":"error","x":5,"worker":{"pid":N,"func":"log.speak"}}`
	proctest.Want(t, "lines", j.take(t), []string{line})
	level.Set(slog.LevelInfo) // for workers that are started from now on
	say()
	proctest.Want(t, "lines, lower", j.take(t), []string{line})
	level.Set(slog.LevelError + 1) // at once
	say()
	proctest.Want(t, "lines, higher", len(j.take(t)), 0)
}

// TestLogOfSetup has a setup function log, in a worker and in a spare, and one that fails.
func TestLogOfSetup(t *testing.T) {
	t.Parallel()
	var j journal
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Spares: 1, Logger: j.logger(nil), Setup: speak.With(speech{7, []string{"context", "none"}})})
	if err := pool.Start(proctest.Within(t)); err != nil {
		t.Error(err)
	}
	context, none := `{"level":"INFO","msg":"context","x":7,"worker":{"pid":N,"func":"log.speak"}}`, `{"level":"INFO","msg":"none","x":7,"worker":{"pid":N,"func":"log.speak"}}`
	proctest.Want(t, "of two setups", j.take(t), []string{context, context, none, none})
	pool.Close()
	pool = multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Logger: j.logger(nil), Setup: speak.With(speech{7, []string{"crash"}})})
	defer pool.Close()
	if err := pool.Start(proctest.Within(t)); err == nil {
		t.Error("the setup that crashes is not an error")
	}
	proctest.Want(t, "of a setup that crashes", j.take(t), []string{strings.Replace(context, "context", "crash", 1)})
}

// TestLogBeforeCrash has calls log and die: what they have logged is there.
func TestLogBeforeCrash(t *testing.T) {
	t.Parallel()
	var j journal
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2, Logger: j.logger(nil)})
	defer pool.Close()
	for x := range 10 {
		_, err := speak.Call(proctest.Within(t), pool, speech{x, []string{"context", "crash"}})
		if crash, ok := errors.AsType[*multiproc.CrashError](err); !ok || crash.ExitCode != 3 {
			t.Errorf("got %v", err)
		}
		proctest.Want(t, "lines", j.take(t), []string{
			fmt.Sprintf(`{"level":"INFO","msg":"context","x":%d,"worker":{"pid":N,"func":"log.speak"}}`, x),
			fmt.Sprintf(`{"level":"INFO","msg":"crash","x":%d,"worker":{"pid":N,"func":"log.speak"}}`, x),
		})
	}
}

// handlerFunc is a handler of records.
type handlerFunc func(context.Context, slog.Record) error

func (f handlerFunc) Enabled(context.Context, slog.Level) bool        { return true }
func (f handlerFunc) Handle(ctx context.Context, r slog.Record) error { return f(ctx, r) }
func (f handlerFunc) WithAttrs([]slog.Attr) slog.Handler              { return f }
func (f handlerFunc) WithGroup(string) slog.Handler                   { return f }
func newLogger(f func(context.Context, slog.Record) error) *slog.Logger {
	return slog.New(handlerFunc(f))
}

// TestLogHandlerBlocks has the handler block in a record of one worker: others work, and their
// records are handled meanwhile.
func TestLogHandlerBlocks(t *testing.T) {
	t.Parallel()
	blocks, release := make(chan struct{}), make(chan struct{})
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2, Logger: newLogger(func(_ context.Context, r slog.Record) error {
		if r.Message == "error" {
			close(blocks)
			<-release
		}
		return errors.New("nobody looks at this")
	})})
	defer pool.Close()
	slow := speak.Go(proctest.Within(t), pool, speech{1, []string{"error"}})
	<-blocks
	for x := range 100 {
		if _, err := speak.Call(proctest.Within(t), pool, speech{x, []string{"none"}}); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-slow.Done():
		t.Error("the result of the call has overtaken its record")
	default:
	}
	close(release)
	if _, err := slow.Wait(proctest.Within(t)); err != nil {
		t.Error(err)
	}
}

// TestLogContextAndSource looks at what a handler can learn of a record besides its text: the
// context of the caller, and the statement that logged it.
func TestLogContextAndSource(t *testing.T) {
	t.Parallel()
	type key struct{}
	ctx := context.WithValue(proctest.Within(t), key{}, "of the caller")
	var got []string
	logger := newLogger(func(ctx context.Context, r slog.Record) error {
		at := r.Source()
		if at == nil {
			at = &slog.Source{}
		}
		got = append(got, fmt.Sprint(ctx.Value(key{}), " ", at.File[strings.LastIndex(at.File, "/")+1:], " ", strings.Contains(at.Function, "multiproc_test")))
		return nil
	})
	want := []string{"of the caller log_test.go true"}
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Logger: logger})
	defer pool.Close()
	if _, err := speak.Call(ctx, pool, speech{1, []string{"context"}}); err != nil {
		t.Error(err)
	}
	proctest.Want(t, "in a pool", got, want)
	got = nil
	p, err := speak.Start(ctx, speech{1, []string{"none"}}, multiproc.ProcessConfig{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(ctx); err != nil {
		t.Error(err)
	}
	proctest.Want(t, "in a process", got, want)
}

// TestLogOfNested has a worker's worker log: it comes through both.
func TestLogOfNested(t *testing.T) {
	t.Parallel()
	var j journal
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Logger: j.logger(nil), Stderr: io.Discard})
	defer pool.Close()
	if _, err := speakBelow.Call(proctest.Within(t), pool, speech{5, []string{"context"}}); err != nil {
		t.Error(err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	got := regexp.MustCompile(`"pid":\d+`).ReplaceAllString(strings.Join(j.lines, "\n"), `"pid":N`)
	proctest.Want(t, "line", got, `{"level":"INFO","msg":"context","x":5,"worker":{"pid":N,"func":"log.speak"},"worker":{"pid":N,"func":"log.speakBelow"}}`)
}

// speakBelow has a worker of its own speak.
var speakBelow = multiproc.Register("log.speakBelow", func(ctx context.Context, s speech) (bool, error) {
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Logger: slog.Default()})
	defer pool.Close()
	return speak.Call(ctx, pool, s)
})

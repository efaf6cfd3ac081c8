//go:build unix

package multiproc_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// rawAnswer is an answer to a raw call.
type rawAnswer struct {
	i      int
	result []byte
	err    error
}

// runRaw runs raw calls and returns the answers by index.
func runRaw(t *testing.T, ex multiproc.Executor, function string, args ...[]byte) []rawAnswer {
	t.Helper()
	came := make(chan rawAnswer, 2*len(args))
	b := multiproc.NewRawBatch(t.Context(), multiproc.RawCalls{Func: function, Args: args, Fail: func(i int, err error) { came <- rawAnswer{i, nil, err} }, Return: func(i, _ int, results [][]byte) {
		for k, result := range results {
			came <- rawAnswer{i + k, bytes.Clone(result), nil}
		}
	}})
	if err := ex.Submit(b); err != nil {
		t.Fatal(err)
	}
	answers := make([]rawAnswer, len(args))
	for range args {
		select {
		case a := <-came:
			answers[a.i] = a
		case <-proctest.Within(t).Done():
			t.Fatal("an answer is missing")
		}
	}
	return answers
}

// encodeTask encodes an argument.
func encodeTask(t *testing.T, v any) []byte {
	t.Helper()
	switch v := v.(type) {
	case proctest.Task:
		out, err := wire.Encode(nil, &v)
		if err != nil {
			t.Fatal(err)
		}
		return out
	case []byte:
		out, err := wire.Encode(nil, &v)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	t.Fatalf("%T", v)
	return nil
}

// TestRawBatch has a pool, whose workers are named by Command, run calls of which it knows
// bytes alone, and checks each kind of answer.
func TestRawBatch(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2, Command: []string{self}, Stderr: proctest.Quiet})
	defer pool.Close()
	answers := runRaw(t, pool, "do", encodeTask(t, proctest.Task{X: 3}), encodeTask(t, proctest.Task{End: "error"}),
		encodeTask(t, proctest.Task{End: "exit 3"}), encodeTask(t, proctest.Task{X: 5}), []byte("\x61x"))
	var out int
	if err := wire.Decode(answers[0].result, &out); out != 9 || err != nil || answers[0].err != nil {
		t.Errorf("got %d, %v, %v", out, err, answers[0].err)
	}
	if raw, ok := errors.AsType[*multiproc.RawFailure](answers[1].err); !ok || raw.Error() == "" {
		t.Errorf("got %v", answers[1].err)
	}
	if crash, ok := errors.AsType[*multiproc.CrashError](answers[2].err); !ok || crash.ExitCode != 3 || crash.Index != 2 {
		t.Errorf("got %v", answers[2].err)
	}
	if err := wire.Decode(answers[3].result, &out); out != 25 || err != nil {
		t.Errorf("got %d, %v, %v", out, err, answers[3].err)
	}
	if answers[4].err == nil {
		t.Error("an argument of another type was taken")
	}
	large := bytes.Repeat([]byte("large"), 100_000)
	var back []byte
	a := runRaw(t, pool, "echo", encodeTask(t, large))[0]
	if err := wire.Decode(a.result, &back); err != nil || !bytes.Equal(back, large) {
		t.Errorf("got %d bytes of %d, %v, %v", len(back), len(large), err, a.err)
	}
	if err := runRaw(t, pool, "nobody", encodeTask(t, proctest.Task{}))[0].err; err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ended := make(chan error, 1)
	if err := pool.Submit(multiproc.NewRawBatch(ctx, multiproc.RawCalls{Func: "do", Args: [][]byte{encodeTask(t, proctest.Task{})}, Return: func(_, _ int, _ [][]byte) { ended <- nil }, Fail: func(_ int, err error) { ended <- err }})); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("a call whose context has ended has a result")
	}
}

// TestCommandIsMissing has a Command that is not there.
func TestCommandIsMissing(t *testing.T) {
	t.Parallel()
	pool := multiproc.NewPool(multiproc.PoolConfig{Command: []string{"/nowhere/worker"}})
	defer pool.Close()
	if err := pool.Start(proctest.Within(t)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

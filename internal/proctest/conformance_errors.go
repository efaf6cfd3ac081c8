package proctest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/seed84f35039/multiproc"
)

var errorCases = []behaviour{
	{"12 error carries type, message and the registered errors it wraps", needs{}, remoteError},
	{"12 panic carries type, text and stack, and the worker lives on", needs{}, panicError},
	{"12 Goexit is told as a panic, and the worker lives on", needs{}, goexit},
	{"12 common errors keep their identity", needs{}, commonErrors},
	{"15 a call that panics with an error wraps it", needs{}, panicWithError},
	{"35 unregistered function, nil context, nil executor", needs{}, badUse},
}

func remoteError(t *testing.T, s Subject) {
	ex := s.start(t, Options{Workers: 1})
	_, err := Do.Call(Within(t), ex, Task{X: 3, End: "error"})
	e, ok := errors.AsType[*multiproc.RemoteError](err)
	if !ok {
		t.Fatalf("got %T, want a *RemoteError", err)
	}
	Want(t, "type", e.Type, "*fmt.wrapError")
	Want(t, "message", e.Message, "item 3: task failed")
	Want(t, "function", e.Func, "do")
	Want(t, "index", e.Index, -1)
	Want(t, "process is told", e.PID != 0, s.Crashes || s.Setup)
	WantErr(t, err, ErrTask)
	Want(t, "text", err.Error(), e.CallInfo.String()+": item 3: task failed")
}

func panicError(t *testing.T, s Subject) {
	ex := s.start(t, Options{Workers: 1})
	pid := pidOf(t, ex)
	_, err := Do.Call(Within(t), ex, Task{X: 3, End: "panic"})
	e, ok := errors.AsType[*multiproc.PanicError](err)
	if !ok {
		t.Fatalf("got %T, want a *PanicError", err)
	}
	Want(t, "type", e.Type, "string")
	Want(t, "value", e.Value, "panic of item 3")
	Want(t, "text", err.Error(), e.CallInfo.String()+": panic: panic of item 3")
	if !strings.Contains(e.Stack, "proctest.Task.end") || !strings.Contains(e.Stack, "roles.go:") {
		t.Errorf("the stack does not lead to the panic:\n%s", clip(e.Stack))
	}
	if s.Reuses {
		Want(t, "process afterwards", pidOf(t, ex), pid)
	}
}

func pidOf(t testing.TB, ex multiproc.Executor) int {
	t.Helper()
	v, err := Look.Call(Within(t), ex, "")
	if err != nil {
		t.Fatal(err)
	}
	return v.PID
}

func goexit(t *testing.T, s Subject) {
	ex := s.start(t, Options{Workers: 1})
	pid := pidOf(t, ex)
	tasks := Tasks(6, Task{})
	tasks[2].End, tasks[3].End = "goexit", "goexit"
	out, err := Do.Map(Within(t), ex, tasks, multiproc.CollectErrors(), multiproc.WithBatch(6))
	right := Squares(6)
	right[2], right[3] = 0, 0
	Want(t, "results", out, right)
	e, ok := errors.AsType[*multiproc.PanicError](err)
	if !ok || e.Index != 2 || !strings.Contains(e.Value, "Goexit") {
		t.Errorf("got %v, want a *PanicError of item 2 that names Goexit", err)
	}
	if s.Reuses {
		Want(t, "process afterwards", pidOf(t, ex), pid)
	}
}

// failWith returns an error of the kind that is asked for.
var failWith = multiproc.Register("failWith", func(ctx context.Context, kind string) (int, error) {
	switch kind {
	case "not exist":
		_, err := os.Open("/does/not/exist")
		return 0, err
	case "canceled":
		return 0, context.Canceled
	case "deadline":
		return 0, fmt.Errorf("in time: %w", context.DeadlineExceeded)
	case "joined":
		return 0, errors.Join(ErrTask, fs.ErrExist)
	default:
		return 0, errors.ErrUnsupported
	}
})

func commonErrors(t *testing.T, s Subject) {
	ex := s.start(t, Options{Workers: 1})
	for kind, targets := range map[string][]error{
		"not exist":   {fs.ErrNotExist},
		"canceled":    {context.Canceled},
		"deadline":    {context.DeadlineExceeded},
		"joined":      {ErrTask, fs.ErrExist},
		"unsupported": {errors.ErrUnsupported},
	} {
		_, err := failWith.Call(Within(t), ex, kind)
		for _, target := range targets {
			WantErr(t, err, target)
		}
		if errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s: %v is taken for another error", kind, err)
		}
	}
}

func panicWithError(t *testing.T, s Subject) {
	ex := s.start(t, Options{Workers: 1})
	_, err := Do.Call(Within(t), ex, Task{End: "panic error"})
	WantErr(t, err, ErrTask)
	if _, ok := errors.AsType[*multiproc.PanicError](err); !ok {
		t.Errorf("got %T, want a *PanicError", err)
	}
}

func badUse(t *testing.T, s Subject) {
	ex, ctx := s.start(t, Options{Workers: 1}), Within(t)
	var zero multiproc.Func[int, int]
	var none *multiproc.Func[int, int]
	for _, f := range []*multiproc.Func[int, int]{&zero, none} {
		_, err := f.Call(ctx, ex, 1)
		WantErr(t, err, multiproc.ErrUnknownFunc)
		_, err = f.Map(ctx, ex, nil)
		WantErr(t, err, multiproc.ErrUnknownFunc)
		_, err = f.Go(ctx, ex, 1).Wait(ctx)
		WantErr(t, err, multiproc.ErrUnknownFunc)
		n := 0
		for _, err := range f.Stream(ctx, ex, nil) {
			n++
			WantErr(t, err, multiproc.ErrUnknownFunc)
		}
		Want(t, "errors of a stream", n, 1)
	}
	var noContext context.Context
	if _, err := Square.Call(noContext, ex, 1); err == nil {
		t.Error("a nil context passes")
	}
	if _, err := Square.Call(ctx, nil, 1); err == nil {
		t.Error("a nil executor passes")
	}
	if out, err := Square.Call(ctx, ex, 4); out != 16 || err != nil {
		t.Errorf("afterwards: got %d, %v", out, err)
	}
}

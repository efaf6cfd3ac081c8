package proctest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"
	"weak"

	"github.com/seed84f35039/multiproc"
)

var codecCases = []behaviour{
	{"09 argument that cannot be encoded: an error of that call, and of no other", needs{crashes: true}, badArgument},
	{"10 result that cannot be encoded, 20 times: 20 errors that name it", needs{crashes: true}, badResult},
	{"11 failure in each stage of encoding and decoding is an error of that call", needs{crashes: true}, stages},
	{"20 values of every size arrive as they were", needs{}, sizes},
	{"20 values of every kind arrive as they were", needs{}, kinds},
	{"38 arguments and results are not kept alive", needs{}, released},
}

func badArgument(t *testing.T, s Subject) {
	ex, ctx := s.start(t, Options{Workers: 1}), Within(t)
	pid := pidOf(t, ex)
	tasks := Tasks(8, Task{})
	tasks[5].Any = struct{ Secret int }{42}
	out, err := Do.Map(ctx, ex, tasks, multiproc.CollectErrors(), multiproc.WithBatch(8))
	right := Squares(8)
	right[5] = 0
	Want(t, "results", out, right)
	WantErr(t, err, multiproc.ErrEncoding)
	if err == nil || !strings.Contains(err.Error(), "Secret int") || !strings.Contains(err.Error(), "do #5") {
		t.Errorf("got %v, want the call and the type in it", err)
	}
	_, err = Any.Call(ctx, ex, make(chan int))
	WantErr(t, err, multiproc.ErrEncoding)
	if s.Reuses {
		Want(t, "process afterwards", pidOf(t, ex), pid)
	}
}

func badResult(t *testing.T, s Subject) {
	ex, ctx := s.start(t, Options{Workers: 1}), Within(t)
	pid := pidOf(t, ex)
	n := 20
	if !s.Reuses {
		n = 3
	}
	_, err := Opaque.Map(ctx, ex, Numbers(n), multiproc.CollectErrors())
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("got %v, want many errors", err)
	}
	Want(t, "number of errors", len(joined.Unwrap()), n)
	for i, err := range joined.Unwrap() {
		WantErr(t, err, multiproc.ErrEncoding)
		if !strings.Contains(err.Error(), "Opaque int") || !strings.Contains(err.Error(), fmt.Sprintf("opaque #%d ", i)) {
			t.Errorf("error %d is %v", i, err)
		}
	}
	if s.Reuses {
		Want(t, "process afterwards", pidOf(t, ex), pid)
	}
}

func stages(t *testing.T, s Subject) {
	ex, ctx := s.start(t, Options{Workers: 1}), Within(t)
	for _, where := range []string{"encode argument", "decode argument", "encode result", "decode result"} {
		for _, how := range []string{"error", "panic"} {
			_, err := Explode.Call(ctx, ex, Bomb{where + ": " + how})
			WantErr(t, err, multiproc.ErrEncoding)
			if err == nil || !strings.Contains(err.Error(), "bomb went off") || !strings.Contains(err.Error(), where) {
				t.Errorf("%s, %s: got %v", where, how, err)
			}
		}
	}
	for _, where := range []string{"decode argument", "encode result"} {
		_, err := Explode.Call(ctx, ex, Bomb{where + ": exit 7"})
		if e, ok := errors.AsType[*multiproc.CrashError](err); !ok || e.ExitCode != 7 {
			t.Errorf("%s: got %v, want a crash with exit code 7", where, err)
		}
	}
	if out, err := Explode.Call(ctx, ex, Bomb{"nowhere"}); out.Where != "nowhere" || err != nil {
		t.Errorf("afterwards: got %v, %v", out, err)
	}
}

func sizes(t *testing.T, s Subject) {
	ex, ctx := s.start(t, Options{Workers: 2}), Within(t)
	var in [][]byte
	for _, n := range []int{0, 1, 15, 16, 17, 4096, 65_519, 65_520, 65_521, 65_536, 1 << 20, 16<<20 + 1} {
		in = append(in, bytes.Repeat([]byte{byte(n)}, n))
	}
	out, err := Echo.Map(ctx, ex, in)
	if err != nil {
		t.Fatal(err)
	}
	for i := range in {
		if !bytes.Equal(out[i], in[i]) {
			t.Errorf("%d bytes: %d others came back", len(in[i]), len(out[i]))
		}
	}
}

func kinds(t *testing.T, s Subject) {
	ex := s.start(t, Options{Workers: 1})
	in := []any{
		nil, true, int64(-1), int64(math.MinInt64), int64(math.MaxInt64), 1.5, math.Inf(-1), "", "word", "\x00\xff",
		[]byte("bytes"),
		[]any{int64(1), []any{}, nil},
		map[string]any{"a": map[string]any{"b": int64(2)}},
		time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC),
	}
	out, err := Any.Map(Within(t), ex, in)
	if err != nil {
		t.Fatal(err)
	}
	Want(t, "values", out, in)
}

// released sees arguments and results go while the executor, and what it took to get
// them, stay.
func released(t *testing.T, s Subject) {
	ex, ctx := s.start(t, Options{Workers: 1}), Within(t)
	fut, in, out := keepOne(t, ex)
	collected(t, "argument of a future that is held", in)
	runtime.KeepAlive(fut)
	collected(t, "result of a future that is not", out)

	var ins, outs []weak.Pointer[block]
	blocks := func(yield func(*block) bool) {
		for range 20 {
			if !yield(newBlock(&ins)) {
				return
			}
		}
	}
	n := 0
	for out, err := range keep.Stream(ctx, ex, blocks, multiproc.WithWindow(4)) {
		if err != nil {
			t.Error(err)
		}
		outs = append(outs, weak.Make(out))
		if n++; n == 20 {
			for i := range 12 {
				collected(t, fmt.Sprintf("argument %d of a stream", i), ins[i])
				collected(t, fmt.Sprintf("result %d of a stream", i), outs[i])
			}
		}
	}
}

// block is large enough to be worth releasing.
type block struct{ Data []byte }

func newBlock(known *[]weak.Pointer[block]) *block {
	b := &block{make([]byte, 1<<16)}
	*known = append(*known, weak.Make(b))
	return b
}

// keep returns a copy of its argument.
var keep = multiproc.Register("keep", func(_ context.Context, b *block) (*block, error) {
	return &block{bytes.Clone(b.Data)}, nil
})

func keepOne(t *testing.T, ex multiproc.Executor) (fut *multiproc.Future[*block], in, out weak.Pointer[block]) {
	b := &block{make([]byte, 1<<16)}
	fut = keep.Go(Within(t), ex, b)
	result, err := fut.Wait(Within(t))
	if err != nil {
		t.Fatal(err)
	}
	return fut, weak.Make(b), weak.Make(result)
}

// collected waits until the block is.
func collected(t *testing.T, what string, p weak.Pointer[block]) {
	t.Helper()
	for deadline := time.Now().Add(Patience); p.Value() != nil; runtime.GC() {
		if time.Now().After(deadline) {
			t.Fatalf("%s is kept alive", what)
		}
	}
}

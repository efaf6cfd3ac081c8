//go:build unix

package multiproc_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestBadInput compares what callers are told about their mistakes, word for word.
func TestBadInput(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	square := proctest.Square
	ex := multiproc.NewThreads(multiproc.ThreadsConfig{Workers: 1})
	defer ex.Close()
	var none context.Context
	var zero multiproc.Func[int, int]
	var noThreads *multiproc.Threads
	var noPool *multiproc.Pool
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	threads := func(cfg multiproc.ThreadsConfig) error {
		_, err := square.Call(ctx, multiproc.NewThreads(cfg), 1)
		return err
	}
	pool := func(cfg multiproc.PoolConfig) error {
		_, err := square.Call(ctx, multiproc.NewPool(cfg), 1)
		_, other := square.Call(ctx, multiproc.NewProcesses(cfg), 1)
		proctest.Want(t, "what Processes say", other.Error(), err.Error())
		return err
	}
	process := func(cfg multiproc.ProcessConfig) error {
		_, err := square.Start(ctx, 1, cfg)
		return err
	}
	second := func(_ any, err error) error { return err }
	stream := func(ex multiproc.Executor, opts ...multiproc.StreamOption) (errs error) {
		for _, err := range square.Stream(ctx, ex, slices.Values([]int{1}), opts...) {
			errs = errors.Join(errs, err)
		}
		for r := range square.StreamUnordered(ctx, ex, slices.Values([]int{1}), opts...) {
			if r.Index != -1 || r.Err.Error() != errs.Error() {
				t.Errorf("StreamUnordered: got %v, want %v", r, errs)
			}
		}
		return errs
	}

	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"zero Func", second(zero.Call(ctx, ex, 1)), "multiproc: function is not registered; call multiproc.Register in a package-level variable, so that every process does it before Init"},
		{"zero Func, Start", second(zero.Start(ctx, 1, multiproc.ProcessConfig{})), "multiproc: function is not registered; call multiproc.Register in a package-level variable, so that every process does it before Init"},
		{"nil context", second(square.Call(none, ex, 1)), "square: the context is nil; pass context.Background()"},
		{"nil context, Start", second(square.Start(none, 1, multiproc.ProcessConfig{})), "square: the context is nil; pass context.Background()"},
		{"nil context, Wait", second(square.Go(ctx, ex, 1).Wait(none)), "square: the context is nil; pass context.Background()"},
		{"nil context, Shutdown", multiproc.NewThreads(multiproc.ThreadsConfig{}).Shutdown(none), "multiproc: Shutdown: the context is nil; pass context.Background()"},
		{"nil context, Pool.Shutdown", multiproc.NewPool(multiproc.PoolConfig{}).Shutdown(none), "multiproc: Shutdown: the context is nil; pass context.Background()"},
		{"nil context, Pool.Start", multiproc.NewPool(multiproc.PoolConfig{}).Start(none), "multiproc: Start: the context is nil; pass context.Background()"},
		{"nil executor", second(square.Map(ctx, nil, []int{1})), "square: the executor is nil; pass multiproc.NewThreads or NewPool"},
		{"nil *Threads", second(square.Map(ctx, noThreads, []int{1})), "square: the executor is nil; pass multiproc.NewThreads or NewPool"},
		{"nil *Pool", stream(noPool), "square: the executor is nil; pass multiproc.NewThreads or NewPool"},
		{"nil sequence", func() (errs error) {
			for _, err := range square.Stream(ctx, ex, nil) {
				errs = errors.Join(errs, err)
			}
			return errs
		}(), "square: the input sequence is nil"},
		{"WithBatch(0)", second(square.Map(ctx, ex, nil, multiproc.WithBatch(0))), "square: WithBatch(0): a batch has at least 1 call"},
		{"WithBatch(-3)", stream(ex, multiproc.WithBatch(-3)), "square: WithBatch(-3): a batch has at least 1 call"},
		{"WithWindow(0)", stream(ex, multiproc.WithWindow(0)), "square: WithWindow(0): a window has at least 1 call"},

		{"ThreadsConfig", threads(multiproc.ThreadsConfig{Workers: -1, Grace: -time.Second}), "square: ThreadsConfig: Workers is -1; it must not be negative (0 means the default)\n" +
			"Grace is -1s; it must not be negative (0 means the default)"},
		{"Workers", pool(multiproc.PoolConfig{Workers: -1}), "square: PoolConfig: Workers is -1; it must not be negative (0 means the default)"},
		{
			"everything", pool(multiproc.PoolConfig{
				Workers: -2, KillGrace: -1, StartTimeout: -1, GOMAXPROCS: -1, Dir: "/does/not/exist", Env: []string{"A", "=b", "C=d\x00"},
			}), `square: PoolConfig: Workers is -2; it must not be negative (0 means the default)
KillGrace is -1ns; it must not be negative (0 means the default)
StartTimeout is -1ns; it must not be negative (0 means the default)
GOMAXPROCS is -1; it must not be negative (0 means the default)
Dir: stat /does/not/exist: no such file or directory
Env: "A" is not of the form NAME=value
Env: "=b" is not of the form NAME=value
Env: "C=d\x00" is not of the form NAME=value`,
		},
		{"Logger", pool(multiproc.PoolConfig{Logger: new(slog.Logger)}), "square: PoolConfig: Logger: it has no handler; make it with slog.New"},
		{"Dir", pool(multiproc.PoolConfig{Dir: file.Name()}), "square: PoolConfig: Dir: " + file.Name() + " is not a directory"},
		{"ProcessConfig", process(multiproc.ProcessConfig{KillGrace: -1, GOMAXPROCS: -4}), "square: ProcessConfig: KillGrace is -1ns; it must not be negative (0 means the default)\n" +
			"GOMAXPROCS is -4; it must not be negative (0 means the default)"},
	} {
		if c.err == nil {
			t.Errorf("%s: no error", c.name)
		} else if got := c.err.Error(); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

// TestZeroExecutors uses executors that were not made as they should be.
func TestZeroExecutors(t *testing.T) {
	t.Parallel()
	for want, ex := range map[string]multiproc.Executor{
		"square: the executor was not made by multiproc.NewPool or NewProcesses":  new(multiproc.Pool),
		"square: the executor was not made by multiproc.NewPool or NewProcesses ": new(multiproc.Processes),
		"square: the Threads were not made by multiproc.NewThreads":               new(multiproc.Threads),
	} {
		func() {
			defer func() {
				if r := recover(); r != nil {
					t.Errorf("%T: panic: %v", ex, r)
				}
			}()
			want = strings.TrimSpace(want)
			if _, err := proctest.Square.Call(proctest.Within(t), ex, 1); err == nil || err.Error() != want {
				t.Errorf("Call: got %v, want %s", err, want)
			}
			for _, err := range proctest.Square.Stream(proctest.Within(t), ex, slices.Values([]int{1})) {
				if err == nil || err.Error() != want {
					t.Errorf("Stream: got %v, want %s", err, want)
				}
			}
			if k, ok := ex.(interface{ Kill() }); ok {
				k.Kill()
			}
			if err := ex.Close(); err != nil {
				t.Errorf("%T: Close: %v", ex, err)
			}
		}()
	}
}

// TestBadStart has Pool.Start tell of a bad configuration.
func TestBadStart(t *testing.T) {
	t.Parallel()
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: -1})
	want := "multiproc: start: PoolConfig: Workers is -1; it must not be negative (0 means the default)"
	if err := pool.Start(proctest.Within(t)); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
}

type withChan struct {
	Name string
	Jobs chan int
}

// TestRegisterPanics compares what Register panics with, word for word but for places.
func TestRegisterPanics(t *testing.T) {
	t.Parallel()
	type hidden struct{ secret int }
	type holder struct{ In []map[string]hidden }
	type fine = context.Context
	late := "Init was called before, so a worker would not know the function; register it in a package-level variable"
	for _, c := range []struct {
		name     string
		register func(name string)
		want     string
	}{
		{"", reg(func(fine, int) (int, error) { return 0, nil }), "the name must have 1 to 255 bytes"},
		{strings.Repeat("x", 256), reg(func(fine, int) (int, error) { return 0, nil }), "the name must have 1 to 255 bytes"},
		{"nil", reg[int, int](nil), "the function is nil"},
		{"func", reg(func(fine, func()) (int, error) { return 0, nil }), "argument: func(): a func() means nothing in another process; leave it out of the type or tag the field `cbor:\"-\"`"},
		{"chan", reg(func(fine, int) (withChan, error) { return withChan{}, nil }), "result: multiproc_test.withChan.Jobs: a chan int means nothing in another process; leave it out of the type or tag the field `cbor:\"-\"`"},
		{"unexported", reg(func(fine, holder) (int, error) { return hidden{}.secret, nil }), "argument: multiproc_test.holder.In.secret: an unexported field would be lost on the way; export it, tag it `cbor:\"-\"`, or give multiproc_test.hidden MarshalBinary and UnmarshalBinary methods"},
		{"interface", reg(func(fine, error) (int, error) { return 0, nil }), "argument: error: the receiver cannot know which type to make of error; use a concrete type"},
		{"complex", reg(func(fine, complex128) (int, error) { return 0, nil }), "argument: complex128: CBOR has no complex numbers; send two floats"},
		{"square", reg(func(fine, int) (int, error) { return 0, nil }), "the name is taken by the function at ROLES"},
		{"late", reg(func(fine, int) (int, error) { return 0, nil }), late},
	} {
		func() {
			defer func() {
				got := fmt.Sprint(recover())
				if place := strings.Index(got, "the function at "); place >= 0 && strings.Contains(got, "roles.go:") {
					got = got[:place] + "the function at ROLES"
				}
				if want := fmt.Sprintf("multiproc: Register(%q): %s", c.name, c.want); got != want {
					t.Errorf("%s:\n got %s\nwant %s", c.name, got, want)
				}
			}()
			c.register(c.name)
		}()
	}
}

func reg[In, Out any](fn func(context.Context, In) (Out, error)) func(name string) {
	return func(name string) { multiproc.Register(name, fn) }
}

// TestRegisterErrorPanics has RegisterError refuse what would make two errors one.
func TestRegisterErrorPanics(t *testing.T) {
	t.Parallel()
	for want, register := range map[string]func(){
		"multiproc: RegisterError needs a code and an error": func() { multiproc.RegisterError("", errors.New("x")) },
		`multiproc: RegisterError("io.EOF", "x"): the code is taken by "EOF"`: func() {
			multiproc.RegisterError("io.EOF", errors.New("x"))
		},
	} {
		func() {
			defer func() { proctest.Want(t, "panic", fmt.Sprint(recover()), want) }()
			register()
		}()
	}
	defer func() {
		proctest.Want(t, "panic", fmt.Sprint(recover()), "multiproc: RegisterError needs a code and an error")
	}()
	multiproc.RegisterError("nil", nil)
}

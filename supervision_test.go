//go:build unix

package multiproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// chore is the argument of doChore.
type chore struct {
	X      int
	File   string
	Takes  time.Duration
	Exit   bool
	Fail   bool
	Size   int
	Blocks time.Duration // the decoding of the result
	Alloc  int
	Child  bool
}

// choreDone is its result, which may take long to decode.
type choreDone struct {
	X      int
	Blocks time.Duration
	Size   int
}

func (o choreDone) MarshalText() ([]byte, error) {
	return []byte(fmt.Sprintf("%d %d %s", o.X, o.Blocks, strings.Repeat("x", o.Size))), nil
}

func (o *choreDone) UnmarshalText(b []byte) error {
	fmt.Sscanf(string(b[:min(len(b), 100)]), "%d %d", &o.X, &o.Blocks)
	if o.Blocks > 0 {
		<-time.After(o.Blocks)
	}
	return nil
}

// hoard keeps the memory that chores have taken.
var hoard []byte

var doChore = Register("chore", func(ctx context.Context, t chore) (choreDone, error) {
	if t.File != "" {
		f, _ := os.OpenFile(t.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		fmt.Fprintf(f, "%d ", t.X)
		f.Close()
	}
	if t.Child {
		cmd := exec.Command("sh", "-c", `trap '' TERM; echo; while :; do sleep 0.01; done`)
		ready, _ := cmd.StdoutPipe()
		cmd.Start()
		ready.Read(make([]byte, 1))
	}
	if t.Alloc > 0 {
		hoard = make([]byte, t.Alloc)
		for i := range hoard {
			hoard[i] = 1
		}
	}
	if t.Takes > 0 {
		select {
		case <-time.After(t.Takes):
		case <-ctx.Done():
			return choreDone{}, ctx.Err()
		}
	}
	if t.Alloc > 0 {
		runtime.KeepAlive(hoard)
	}
	if t.Exit {
		os.Exit(3)
	}
	if t.Fail {
		return choreDone{}, errors.New("ordinary error")
	}
	return choreDone{t.X, t.Blocks, t.Size}, nil
})

// TestMaxRSSWithMaxAge has MaxAge be due much later.
func TestMaxRSSWithMaxAge(t *testing.T) {
	t.Parallel()
	for _, age := range []time.Duration{0, time.Hour} {
		p := NewPool(PoolConfig{Workers: 1, MaxRSS: 1, MaxAge: age})
		for range 10 {
			if _, err := doChore.Call(t.Context(), p, chore{Takes: 200 * time.Millisecond}); err != nil {
				t.Fatal(err)
			}
		}
		if n := p.Snapshot().Started; n < 2 {
			t.Errorf("MaxRSS 1, MaxAge %v: %d workers after 2 s of calls", age, n)
		}
		p.Close()
	}
}

// TestSlowParentOfTheDead has a worker die whose answers the parent takes much later: they count, and no
// call runs twice.
func TestSlowParentOfTheDead(t *testing.T) {
	t.Parallel()
	p := NewPool(PoolConfig{Workers: 1})
	defer p.Close()
	file := filepath.Join(t.TempDir(), "ran")
	tasks := make([]chore, 6)
	for i := range tasks {
		tasks[i] = chore{X: i, File: file, Takes: 100 * time.Millisecond}
	}
	tasks[0].Blocks = 3 * time.Second
	tasks[4].Exit = true
	_, err := doChore.Map(t.Context(), p, tasks, WithBatch(6), CollectErrors())
	ran, _ := os.ReadFile(file)
	if string(ran) != "0 1 2 3 4 5 " {
		t.Errorf("ran: %s\n%v", ran, err)
	}
}

// TestLimitsOfSlowParentOfProcess is TestLimitsOfSlowParent with a process.
func TestLimitsOfSlowParentOfProcess(t *testing.T) {
	t.Parallel()
	p := NewPool(PoolConfig{Workers: 1, CallTimeout: 300 * time.Millisecond, KillGrace: 100 * time.Millisecond})
	defer p.Close()
	tasks := make([]chore, 40)
	for i := range tasks {
		tasks[i] = chore{X: i, Takes: 100 * time.Millisecond}
	}
	tasks[0].Blocks = 2 * time.Second
	_, err := doChore.Map(t.Context(), p, tasks, WithBatch(40), CollectErrors())
	if err != nil {
		t.Errorf("%v", err)
	}
}

// TestMemoryLimitBlames has what the guilty call has started take its time to end: the call
// behind it does not begin meanwhile.
func TestMemoryLimitBlames(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector takes memory of its own")
	}
	p := NewPool(PoolConfig{Workers: 1, MemoryLimit: 32 << 20})
	defer p.Close()
	tasks := make([]chore, 10)
	for i := range tasks {
		tasks[i] = chore{X: i, Takes: 50 * time.Millisecond}
	}
	tasks[0].Alloc, tasks[0].Child = 60<<20, true
	_, err := doChore.Map(t.Context(), p, tasks, WithBatch(10), CollectErrors())
	if c, ok := errors.AsType[*CrashError](err); !ok || c.Index != 0 || !c.OutOfMemory || len(err.(interface{ Unwrap() []error }).Unwrap()) != 1 {
		t.Errorf("got %v, want the first call be out of memory", err)
	}
}

// slowStopper takes as long as it is given.
type slowStopper struct{ stopping, ended chan struct{} }

func (s slowStopper) Stop(ctx context.Context) error {
	close(s.stopping)
	<-ctx.Done()
	close(s.ended)
	return nil
}

// TestSignalsWhileStopping sends a second signal when the function that StopOnSignal returned waits.
func TestSignalsWhileStopping(t *testing.T) {
	s := slowStopper{make(chan struct{}), make(chan struct{})}
	ctx, stop := StopOnSignal(context.Background(), s)
	syscall.Kill(os.Getpid(), syscall.SIGTERM)
	<-s.stopping
	over := make(chan struct{})
	go func() { // ends when stop does; waited for below
		defer close(over)
		stop()
	}()
	syscall.Kill(os.Getpid(), syscall.SIGTERM)
	for what, c := range map[string]<-chan struct{}{"Stop": s.ended, "stop": over, "the context": ctx.Done()} {
		select {
		case <-c:
		case <-time.After(20 * time.Second):
			t.Errorf("a second signal does not end %s", what)
		}
	}
}

// TestSendingIsNotRunning has calls wait for room for their answers, which is not time that they
// take.
func TestSendingIsNotRunning(t *testing.T) {
	t.Parallel()
	for _, c := range []int{1, 2} {
		p := NewPool(PoolConfig{Workers: 1, Concurrency: c, CallTimeout: time.Second, KillGrace: time.Minute})
		tasks := make([]chore, 20)
		for i := range tasks {
			tasks[i] = chore{X: i, Size: 50 << 10, Fail: i > 1 && i%2 == 0}
		}
		tasks[0] = chore{Blocks: 3 * time.Second}
		tasks[1].Takes = 100 * time.Millisecond
		_, err := doChore.Map(t.Context(), p, tasks, WithBatch(20), CollectErrors())
		for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
			if to, ok := errors.AsType[*TimeoutError](e); ok {
				t.Errorf("Concurrency %d: %v: %v", c, to, to.Unwrap())
			}
		}
		p.Close()
	}
}

// leaveGroup leaves the worker's process group, and stops.
var leaveGroup = Register("supervision.leave", func(ctx context.Context, x int) (int, error) {
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	if err := syscall.Setpgid(0, cmd.Process.Pid); err != nil {
		return 0, err
	}
	syscall.Kill(syscall.Getpid(), syscall.SIGSTOP)
	<-time.After(time.Minute)
	return 1, nil
})

// TestLeavesGroup has a worker leave its process group: it is killed all the same, and Kill does not wait
// for it.
func TestLeavesGroup(t *testing.T) {
	p := NewPool(PoolConfig{Workers: 1, CallTimeout: 500 * time.Millisecond, KillGrace: 500 * time.Millisecond})
	f := leaveGroup.Go(t.Context(), p, 1)
	pgid := 0
	for tick := time.Tick(time.Millisecond); pgid == 0; <-tick { // until it has left
		for _, w := range p.Snapshot().Workers {
			if g, err := syscall.Getpgid(w.PID); w.PID != 0 && err == nil && g != w.PID {
				pgid = g
			}
		}
	}
	defer syscall.Kill(-pgid, syscall.SIGKILL)
	select {
	case <-f.Done():
		if _, err := f.Wait(t.Context()); err == nil {
			t.Error("the call has a result")
		}
	case <-time.After(20 * time.Second):
		t.Error("the call with a CallTimeout of 0.5 s has no answer")
	}
	done := make(chan struct{})
	go func() { // ends when Kill does; waited for below
		p.Kill()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("Kill does not return")
	}
	syscall.Kill(-pgid, syscall.SIGKILL)
	<-done
}

// slowHandler takes a while for a record.
type slowHandler struct {
	slog.Handler
	takes time.Duration
}

func (h slowHandler) Handle(ctx context.Context, r slog.Record) error {
	<-time.After(h.takes)
	return nil
}

var logOnce = Register("supervision.logs", func(ctx context.Context, n int) (string, error) {
	slog.Info("hello")
	return strings.Repeat("x", n), nil
})

// TestLimitsOfSlowHandler has the handling of a log record take longer than the call may.
func TestLimitsOfSlowHandler(t *testing.T) {
	t.Parallel()
	log := slog.New(slowHandler{slog.NewTextHandler(io.Discard, nil), 3 * time.Second})
	p, err := logOnce.Start(t.Context(), 1<<20, ProcessConfig{CallTimeout: time.Second, KillGrace: 100 * time.Millisecond, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := p.Wait(t.Context()); err != nil {
		t.Errorf("got %d bytes, %v", len(out), err)
	}
	pool := NewPool(PoolConfig{Workers: 1, CallTimeout: time.Second, KillGrace: 100 * time.Millisecond, Logger: log})
	defer pool.Close()
	if out, err := logOnce.Call(t.Context(), pool, 1<<20); err != nil {
		t.Errorf("pool: got %d bytes, %v", len(out), err)
	}
}

// filling is the argument of logAndFill.
type filling struct {
	Log  bool
	Size int
}

var logAndFill = Register("supervision.out", func(ctx context.Context, a filling) (string, error) {
	if a.Log {
		slog.Info("hello")
	}
	return strings.Repeat("x", a.Size), nil
})

var waitFor = Register("supervision.wait", func(ctx context.Context, d time.Duration) (int, error) {
	<-time.After(d)
	return 0, nil
})

// TestCancelBehind cancels a call that has not begun, as the answer to the one before it, which
// its parent is slow to take, is on its way: that one does not pay for it.
func TestCancelBehind(t *testing.T) {
	t.Parallel()
	log := slog.New(slowHandler{slog.NewTextHandler(io.Discard, nil), 2 * time.Second})
	p := NewPool(PoolConfig{Workers: 1, KillGrace: 200 * time.Millisecond, Logger: log})
	defer p.Close()
	for range 100 {
		if _, err := logAndFill.Call(t.Context(), p, filling{}); err != nil {
			t.Fatal(err)
		}
	}
	c := waitFor.Go(t.Context(), p, 200*time.Millisecond)
	<-time.After(50 * time.Millisecond)
	a := logAndFill.Go(t.Context(), p, filling{Log: true, Size: 1 << 20})
	ctx, cancel := context.WithCancel(t.Context())
	b := logAndFill.Go(ctx, p, filling{})
	<-time.After(time.Second)
	cancel()
	_, err := a.Wait(t.Context())
	if err != nil {
		t.Errorf("A: %v", err)
	}
	if _, err = b.Wait(t.Context()); !errors.Is(err, context.Canceled) {
		t.Errorf("B: %v", err)
	}
	c.Wait(t.Context())
}

// TestCancelBeside is TestCancelBehind for calls side by side.
func TestCancelBeside(t *testing.T) {
	t.Parallel()
	log := slog.New(slowHandler{slog.NewTextHandler(io.Discard, nil), 2 * time.Second})
	p := NewPool(PoolConfig{Workers: 1, Concurrency: 2, KillGrace: 200 * time.Millisecond, Logger: log})
	defer p.Close()
	for range 100 {
		if _, err := logAndFill.Call(t.Context(), p, filling{}); err != nil {
			t.Fatal(err)
		}
	}
	a := logAndFill.Go(t.Context(), p, filling{Log: true, Size: 1 << 20})
	<-time.After(300 * time.Millisecond) // its answer is on its way
	ctx, cancel := context.WithCancel(t.Context())
	b := logAndFill.Go(ctx, p, filling{})
	<-time.After(300 * time.Millisecond)
	cancel()
	if _, err := a.Wait(t.Context()); err != nil {
		t.Errorf("A: %v", err)
	}
	if _, err := b.Wait(t.Context()); !errors.Is(err, context.Canceled) {
		t.Errorf("B: %v", err)
	}
}

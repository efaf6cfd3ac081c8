//go:build linux

package multiproc_test

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestStopOnSignal sends signals to this process: the first has the pool drop what waits and
// wait for what runs, the second has that killed. It is not parallel, as the signals are for
// whoever listens.
func TestStopOnSignal(t *testing.T) {
	gate := proctest.NewGate(t)
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, KillGrace: grace})
	defer pool.Close()
	ctx, stop := multiproc.StopOnSignal(context.Background(), pool)
	defer stop()
	runs := proctest.Do.Go(ctx, pool, proctest.Task{X: 3, Gate: gate.Path, Deaf: true})
	v := gate.Next()
	waits := proctest.Do.Go(ctx, pool, proctest.Task{X: 4})
	signalSelf(t, syscall.SIGTERM)
	_, err := waits.Wait(proctest.Within(t))
	proctest.WantErr(t, err, multiproc.ErrClosed)
	if _, err := proctest.Square.Call(context.Background(), pool, 3); !errors.Is(err, multiproc.ErrClosed) {
		t.Errorf("a new call: got %v", err)
	}
	if ctx.Err() != nil {
		t.Error("the first signal ends the context")
	}
	select {
	case <-runs.Done():
		t.Error("the first signal ends what runs")
	default:
	}
	signalSelf(t, syscall.SIGINT)
	_, err = runs.Wait(proctest.Within(t))
	if err == nil {
		t.Error("the second signal does not end what runs")
	}
	<-ctx.Done()
	if e, ok := errors.AsType[*multiproc.SignalError](context.Cause(ctx)); !ok || e.Signal != syscall.SIGINT {
		t.Errorf("the cause is %v", context.Cause(ctx))
	}
	v.AwaitEnd(t)
}

// TestStopOnSignalTakenBack has nothing happen after stop.
func TestStopOnSignalTakenBack(t *testing.T) {
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
	defer pool.Close()
	ctx, stop := multiproc.StopOnSignal(context.Background(), pool)
	stop()
	stop()
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("got %v", ctx.Err())
	}
	if out, err := proctest.Square.Call(proctest.Within(t), pool, 3); out != 9 || err != nil {
		t.Errorf("got %d, %v", out, err)
	}
}

func signalSelf(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), sig); err != nil {
		t.Fatal(err)
	}
}

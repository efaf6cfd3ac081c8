package proctest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
)

var closeCases = []behaviour{
	{"19 shutdown with 10,000 calls waiting and 3 running returns promptly", needs{}, shutdownBacklog},
	{"28 close with calls outstanding: all results are right", needs{}, closeDrains},
	{"35 use after close is refused", needs{}, useAfterClose},
	{"35 close twice, and at once from many goroutines", needs{}, closeTwice},
	{"35 close of an executor that was never used", needs{}, closeUnused},
	{"36 shutdown without time: what waits is given up, what has ended stays", needs{}, shutdownGivesUp},
	{"36 shutdown with time for all", needs{}, shutdownDrains},
	{"25 calls are refused while close waits", needs{}, refusedWhileClosing},
}

// Ended returns a context that has ended.
func Ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func shutdownBacklog(t *testing.T, s Subject) {
	ex, gate := s.Open(Options{Workers: 3}), NewGate(t)
	failed := make(chan error, 1)
	go func() {
		_, err := Do.Map(Within(t), ex, Tasks(10_000, Task{Gate: gate.Path}))
		failed <- err
	}()
	at := gate.Visitors(3)
	Promptly(t, "Shutdown", func() { WantErr(t, ex.Shutdown(Ended()), context.Canceled) })
	WantErr(t, <-failed, multiproc.ErrClosed)
	for _, v := range at {
		v.AwaitEnd(t)
	}
	if n := gate.Waiting(); n > 0 {
		t.Errorf("%d more calls were started", n)
	}
}

func closeDrains(t *testing.T, s Subject) {
	n := s.some(40)
	ex, gate := s.Open(Options{Workers: 2}), NewGate(t)
	tasks := Tasks(n, Task{Log: LogFile(t)})
	tasks[0].Gate = gate.Path
	type outcome struct {
		out []int
		err error
	}
	mapped := make(chan outcome, 1)
	go func() {
		out, err := Do.Map(Within(t), ex, tasks)
		mapped <- outcome{out, err}
	}()
	v := gate.Next()
	closed := make(chan error, 1)
	go func() { closed <- ex.Close() }()
	AwaitClosing(t, ex)
	v.Release()
	o := <-mapped
	if o.err != nil {
		t.Error(o.err)
	}
	Want(t, "results", o.out, Squares(n))
	if err := <-closed; err != nil {
		t.Error(err)
	}
	Want(t, "log", Runs(t, tasks[0].Log), Once(n))
}

func useAfterClose(t *testing.T, s Subject) {
	ex, ctx := s.Open(Options{Workers: 2}), Within(t)
	if _, err := Square.Call(ctx, ex, 1); err != nil {
		t.Error(err)
	}
	if err := ex.Close(); err != nil {
		t.Error(err)
	}
	_, err := Square.Call(ctx, ex, 1)
	WantErr(t, err, multiproc.ErrClosed)
	_, err = Square.Go(ctx, ex, 1).Wait(ctx)
	WantErr(t, err, multiproc.ErrClosed)
	_, err = Square.Map(ctx, ex, Numbers(3))
	WantErr(t, err, multiproc.ErrClosed)
	_, err = Square.Map(ctx, ex, nil)
	WantErr(t, err, multiproc.ErrClosed)
	n := 0
	for _, err := range Square.Stream(ctx, ex, slices.Values(Numbers(3))) {
		n++
		WantErr(t, err, multiproc.ErrClosed)
	}
	for r := range Square.StreamUnordered(ctx, ex, slices.Values(Numbers(3))) {
		n++
		WantErr(t, r.Err, multiproc.ErrClosed)
		Want(t, "index of an error of the stream", r.Index, -1)
	}
	Want(t, "errors of two streams", n, 2)
}

func closeTwice(t *testing.T, s Subject) {
	ex, gate := s.Open(Options{Workers: 2}), NewGate(t)
	fut := Do.Go(Within(t), ex, Task{X: 4, Gate: gate.Path})
	v := gate.Next()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if i%2 == 0 {
				if err := ex.Close(); err != nil {
					t.Error(err)
				}
			} else if err := ex.Shutdown(Within(t)); err != nil {
				t.Error(err)
			}
			select {
			case <-fut.Done():
			default:
				t.Error("closed, and a call is not done")
			}
		})
	}
	AwaitClosing(t, ex)
	v.Release()
	wg.Wait()
	for range 2 {
		if err := ex.Close(); err != nil {
			t.Error(err)
		}
	}
	if out, err := fut.Wait(Within(t)); out != 16 || err != nil {
		t.Errorf("got %d, %v", out, err)
	}
}

func closeUnused(t *testing.T, s Subject) {
	for range 2 {
		ex := s.Open(Options{})
		if err := ex.Close(); err != nil {
			t.Error(err)
		}
		if err := ex.Shutdown(Ended()); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

func shutdownGivesUp(t *testing.T, s Subject) {
	const n = 50
	ex, gate := s.Open(Options{Workers: 2, Grace: time.Second}), NewGate(t)
	tasks := Tasks(n, Task{Gate: gate.Path, Log: LogFile(t)})
	tasks[0].Gate, tasks[1].Gate = "", ""
	var futures []*multiproc.Future[int]
	for _, task := range tasks {
		futures = append(futures, Do.Go(Within(t), ex, task))
	}
	gate.Visitors(2)
	for i := range 2 {
		<-futures[i].Done()
	}
	Promptly(t, "Shutdown", func() { WantErr(t, ex.Shutdown(Ended()), context.Canceled) })
	given := 0
	for i, fut := range futures {
		select {
		case <-fut.Done():
		case <-time.After(Patience):
			t.Fatalf("call %d is not done after Shutdown", i)
		}
		out, err := fut.Wait(Within(t))
		switch {
		case err == nil:
			Want(t, "result", out, i*i)
		case errors.Is(err, multiproc.ErrClosed):
			given++
		default:
			t.Errorf("call %d: %v", i, err)
		}
	}
	if given < 20 || given > n-2 {
		t.Errorf("%d of %d calls were given up", given, n)
	}
	if ran := len(ReadLog(t, tasks[0].Log)); ran < 4 || ran > 8 { // some may have been on their way to a worker
		t.Errorf("%d calls ran", ran)
	}
}

func shutdownDrains(t *testing.T, s Subject) {
	ex := s.Open(Options{Workers: 2})
	var futures []*multiproc.Future[int]
	for i := range 20 {
		futures = append(futures, Square.Go(Within(t), ex, i))
	}
	if err := ex.Shutdown(Within(t)); err != nil {
		t.Error(err)
	}
	for i, fut := range futures {
		select {
		case <-fut.Done():
		default:
			t.Error("a call is not done after Shutdown")
		}
		if out, err := fut.Wait(Within(t)); out != i*i || err != nil {
			t.Errorf("call %d: got %d, %v", i, out, err)
		}
	}
}

func refusedWhileClosing(t *testing.T, s Subject) {
	ex, gate := s.Open(Options{Workers: 1}), NewGate(t)
	fut := Do.Go(Within(t), ex, Task{X: 2, Gate: gate.Path})
	v := gate.Next()
	closed := make(chan error, 1)
	go func() { closed <- ex.Close() }()
	AwaitClosing(t, ex)
	_, err := Square.Call(Within(t), ex, 3)
	WantErr(t, err, multiproc.ErrClosed)
	// A shutdown that has no time comes after another that has, and does not wait.
	Promptly(t, "Shutdown", func() { WantErr(t, ex.Shutdown(Ended()), context.Canceled) })
	v.Release()
	if out, err := fut.Wait(Within(t)); out != 4 || err != nil {
		t.Errorf("got %d, %v", out, err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

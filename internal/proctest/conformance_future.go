package proctest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
)

var futureCases = []behaviour{
	{"13 every waiter is told once, of success and of failure", needs{}, waiters},
	{"14 a consumer that panics harms nobody else", needs{}, consumerPanics},
	{"15 a future that is done stays so, at once", needs{}, doneFuture},
	{"16 wait with a limit ends in time, and the call goes on", needs{}, waitLimit},
	{"37 call cancelled right before Close: nobody hangs", needs{}, cancelThenClose},
	{"39 wait for the first, for the first failure, for all", needs{}, selectFutures},
	{"P07 the time of one call is up: the others do not notice", needs{}, limitOfOne},
	{"P08 cancelled future: its call ends, the executor goes on", needs{}, cancelFuture},
	{"P08 cancelled future in the queue never runs", needs{}, cancelQueued},
	{"P08 a call whose context has ended never runs", needs{}, endedContext},
}

func waiters(t *testing.T, s Subject) {
	ex, gate := s.start(t, Options{Workers: 2}), NewGate(t)
	for _, end := range []string{"", "error"} {
		fut := Do.Go(Within(t), ex, Task{X: 6, Gate: gate.Path, End: end})
		select {
		case <-fut.Done():
			t.Error("done before the call has ended")
		default:
		}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				<-fut.Done()
				check := func(out int, err error) {
					if end == "" && (out != 36 || err != nil) || end == "error" && (out != 0 || !errors.Is(err, ErrTask)) {
						t.Errorf("got %d, %v", out, err)
					}
				}
				check(fut.Wait(Within(t)))
				ended, cancel := context.WithCancel(context.Background())
				cancel()
				check(fut.Wait(ended)) // there is nothing to wait for
			})
		}
		gate.Next().Release()
		wg.Wait()
	}
}

func consumerPanics(t *testing.T, s Subject) {
	ex := s.start(t, Options{Workers: 2})
	other := Square.Go(Within(t), ex, 7)
	r := recovered(func() {
		for r := range Square.StreamUnordered(Within(t), ex, slices.Values(Numbers(20))) {
			panic(r.Err)
		}
	})
	if r == nil {
		t.Error("the panic is lost")
	}
	if out, err := other.Wait(Within(t)); out != 49 || err != nil {
		t.Errorf("another call: got %d, %v", out, err)
	}
	if out, err := Square.Call(Within(t), ex, 8); out != 64 || err != nil {
		t.Errorf("afterwards: got %d, %v", out, err)
	}
}

func doneFuture(t *testing.T, s Subject) {
	ex := s.start(t, Options{Workers: 1})
	fut := Square.Go(Within(t), ex, 3)
	for range 3 {
		if out, err := fut.Wait(Within(t)); out != 9 || err != nil {
			t.Errorf("got %d, %v", out, err)
		}
		select {
		case <-fut.Done():
		default:
			t.Error("not done after Wait")
		}
		fut.Cancel() // comes too late
	}
}

func waitLimit(t *testing.T, s Subject) {
	ex, gate := s.start(t, Options{Workers: 1}), NewGate(t)
	fut := Do.Go(Within(t), ex, Task{X: 5, Gate: gate.Path})
	v := gate.Next()
	const limit = 20 * time.Millisecond
	ctx, cancel := context.WithTimeout(Within(t), limit)
	defer cancel()
	began := time.Now()
	_, err := fut.Wait(ctx)
	WantErr(t, err, context.DeadlineExceeded)
	if took := time.Since(began); took < limit/2 || took > Patience/2 {
		t.Errorf("Wait took %v, the limit is %v", took, limit)
	}
	v.Release()
	if out, err := fut.Wait(Within(t)); out != 25 || err != nil {
		t.Errorf("got %d, %v", out, err)
	}
}

func cancelThenClose(t *testing.T, s Subject) {
	for range 10 {
		ex, gate := s.Open(Options{Workers: 2}), NewGate(t)
		var futures []*multiproc.Future[int]
		for i := range 6 {
			futures = append(futures, Do.Go(Within(t), ex, Task{X: i, Gate: gate.Path}))
		}
		gate.Next()
		for _, fut := range futures {
			fut.Cancel()
		}
		Promptly(t, "Close", func() {
			if err := ex.Close(); err != nil {
				t.Error(err)
			}
		})
		for _, fut := range futures {
			_, err := fut.Wait(Within(t))
			WantErr(t, err, context.Canceled)
		}
		if !s.Reuses {
			return
		}
	}
}

func selectFutures(t *testing.T, s Subject) {
	ex, gate := s.start(t, Options{Workers: 3}), NewGate(t)
	tasks := Tasks(3, Task{Gate: gate.Path})
	tasks[1].End = "error"
	var futures []*multiproc.Future[int]
	for _, task := range tasks {
		futures = append(futures, Do.Go(Within(t), ex, task))
	}
	at := gate.Visitors(3)
	first := func() int {
		select {
		case <-futures[0].Done():
			return 0
		case <-futures[1].Done():
			return 1
		case <-futures[2].Done():
			return 2
		case <-time.After(10 * time.Millisecond):
			return -1
		}
	}
	Want(t, "first of those that wait", first(), -1)
	at[1].Release()
	<-futures[1].Done()
	Want(t, "first", first(), 1)
	_, err := futures[1].Wait(Within(t))
	WantErr(t, err, ErrTask)
	at[0].Release()
	at[2].Release()
	for _, fut := range futures {
		<-fut.Done()
	}
}

// limitOfOne gives every call a context of its own.
func limitOfOne(t *testing.T, s Subject) {
	const n, k = 10, 3
	ex, gate := s.start(t, Options{Workers: 2}), NewGate(t)
	tasks := Tasks(n, Task{})
	tasks[k].Gate = gate.Path
	var futures []*multiproc.Future[int]
	for i, task := range tasks {
		ctx := Within(t)
		if i == k {
			limited, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			go func() {
				gate.Next() // it runs
				cancel(context.DeadlineExceeded)
			}()
			ctx = limited
		}
		futures = append(futures, Do.Go(ctx, ex, task))
	}
	for i, fut := range futures {
		out, err := fut.Wait(Within(t))
		if i == k {
			WantErr(t, err, context.DeadlineExceeded)
		} else if out != i*i || err != nil {
			t.Errorf("call %d: got %d, %v", i, out, err)
		}
	}
}

func cancelFuture(t *testing.T, s Subject) {
	ex, gate := s.start(t, Options{Workers: 1}), NewGate(t)
	fut := Do.Go(Within(t), ex, Task{Gate: gate.Path})
	v := gate.Next()
	fut.Cancel()
	_, err := fut.Wait(Within(t))
	WantErr(t, err, context.Canceled)
	v.AwaitEnd(t)
	if s.Reuses {
		Want(t, "process afterwards", pidOf(t, ex), v.PID)
	}
}

func cancelQueued(t *testing.T, s Subject) {
	ex, gate, log := s.start(t, Options{Workers: 1}), NewGate(t), LogFile(t)
	blocked := Do.Go(Within(t), ex, Task{Gate: gate.Path, Log: log})
	v := gate.Next()
	var queued []*multiproc.Future[int]
	for i := range 20 {
		queued = append(queued, Do.Go(Within(t), ex, Task{X: i + 1, Log: log}))
	}
	for _, fut := range queued[:10] {
		fut.Cancel()
		_, err := fut.Wait(Within(t))
		WantErr(t, err, context.Canceled)
	}
	v.Release()
	for _, fut := range append(queued[10:], blocked) {
		if _, err := fut.Wait(Within(t)); err != nil {
			t.Error(err)
		}
	}
	runs := map[int]int{0: 1}
	for i := range 10 {
		runs[11+i] = 1
	}
	ran := Runs(t, log)
	if s.Far { // those that were next may have begun before the news came
		maps.DeleteFunc(ran, func(x, n int) bool { return x > 0 && x <= 10 && n == 1 })
	}
	Want(t, "log", ran, runs)
}

func endedContext(t *testing.T, s Subject) {
	ex, log := s.start(t, Options{Workers: 1}), LogFile(t)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	_, err := Do.Call(ctx, ex, Task{Log: log})
	WantErr(t, err, cause)
	WantErr(t, err, context.Canceled)
	_, err = Do.Map(ctx, ex, Tasks(9, Task{Log: log}))
	WantErr(t, err, cause)
	for _, err := range Do.Stream(ctx, ex, slices.Values(Tasks(9, Task{Log: log}))) {
		WantErr(t, err, cause)
	}
	if out, err := Square.Call(Within(t), ex, 3); out != 9 || err != nil {
		t.Errorf("afterwards: got %d, %v", out, err)
	}
	Want(t, "log", len(ReadLog(t, log)), 0)
}

package proctest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
)

var mapCases = []behaviour{
	{"01 map in batches of 1, 6, 40, 50", needs{}, mapBatches},
	{"02 empty input is empty at once", needs{}, emptyInput},
	{"07 error in item k of map comes with the results before", needs{}, mapError},
	{"08 map with a failing item returns after the others ended", needs{}, mapWaits},
	{"17 map whose time is up returns what it has", needs{}, mapTimeout},
	{"18 map whose time is up drops what waits", needs{}, mapTimeoutDrops},
	{"34 blocked calls use as many workers as there are", needs{}, saturation},
}

func mapBatches(t *testing.T, s Subject) {
	n := s.some(40)
	ex := s.start(t, Options{Workers: 2})
	for _, batch := range []int{1, 6, 40, 50} {
		out, err := Square.Map(Within(t), ex, Numbers(n), multiproc.WithBatch(batch))
		if err != nil {
			t.Fatal(err)
		}
		Want(t, fmt.Sprintf("result in batches of %d", batch), out, Squares(n))
	}
}

func emptyInput(t *testing.T, s Subject) {
	ex, ctx := s.start(t, Options{Workers: 2}), Within(t)
	for _, in := range [][]int{nil, {}} {
		for _, opts := range [][]multiproc.MapOption{nil, {multiproc.WithBatch(6)}, {multiproc.CollectErrors()}} {
			out, err := Square.Map(ctx, ex, in, opts...)
			if err != nil || out == nil || len(out) != 0 {
				t.Errorf("Map: got %v, %v, want an empty slice", out, err)
			}
		}
	}
	none := func(func(int) bool) {}
	for out, err := range Square.Stream(ctx, ex, none, multiproc.WithBatch(6)) {
		t.Errorf("Stream yields %v, %v", out, err)
	}
	for r := range Square.StreamUnordered(ctx, ex, none, multiproc.WithWindow(3)) {
		t.Errorf("StreamUnordered yields %v", r)
	}
}

func mapError(t *testing.T, s Subject) {
	ex, ctx := s.start(t, Options{Workers: 2}), Within(t)
	n := s.some(12)
	for _, k := range []int{0, 1, n - 1} {
		tasks := Tasks(n, Task{})
		tasks[k].End = "error"
		tasks[n-1].End = "error" // a later failure does not hide the first one
		for _, opts := range [][]multiproc.MapOption{nil, {multiproc.WithBatch(3)}} {
			out, err := Do.Map(ctx, ex, tasks, opts...)
			WantErr(t, err, ErrTask)
			Want(t, "results before the failure", out, Squares(k))
			if e, ok := errors.AsType[*multiproc.RemoteError](err); !ok || e.Index != k || e.Func != "do" {
				t.Errorf("got error %v, want one of item %d", err, k)
			}
		}
	}
	tasks := Tasks(n, Task{})
	tasks[3].End, tasks[5].End = "error", "panic"
	out, err := Do.Map(ctx, ex, tasks, multiproc.CollectErrors())
	right := Squares(n)
	right[3], right[5] = 0, 0
	Want(t, "results with CollectErrors", out, right)
	WantErr(t, err, ErrTask)
	if e, ok := errors.AsType[*multiproc.PanicError](err); !ok || e.Index != 5 {
		t.Errorf("got error %v, want the panic of item 5 in it", err)
	}
}

func mapWaits(t *testing.T, s Subject) {
	ex, gate := s.start(t, Options{Workers: 2}), NewGate(t)
	tasks := Tasks(2, Task{Gate: gate.Path, Log: LogFile(t), End: "late"})
	tasks[0].End = "large error"
	failed := make(chan error, 1)
	go func() {
		_, err := Do.Map(Within(t), ex, tasks, multiproc.WithBatch(1))
		failed <- err
	}()
	at := gate.Visitors(2)
	at[0].Release() // fails; item 1 sees the end of its context and logs that
	err := <-failed
	if e, ok := errors.AsType[*multiproc.RemoteError](err); !ok || e.Index != 0 || len(e.Message) != 1<<20 {
		t.Errorf("got error %s, want one of 1 MiB", clip(fmt.Sprint(err)))
	}
	Want(t, "log when Map returns", Runs(t, tasks[0].Log), map[int]int{0: 1, 1: 2})
	Promptly(t, "Close", func() {
		if err := ex.Close(); err != nil {
			t.Error(err)
		}
	})
}

func mapTimeout(t *testing.T, s Subject) {
	ex, gate := s.start(t, Options{Workers: 1}), NewGate(t)
	tasks := Tasks(4, Task{})
	tasks[2].Gate = gate.Path
	for _, opts := range [][]multiproc.MapOption{nil, {multiproc.CollectErrors()}} {
		ctx, cancel := context.WithCancelCause(Within(t))
		defer cancel(nil)
		go func() {
			gate.Next()
			// The results before are on their way, and nobody is told when they are there.
			time.AfterFunc(300*time.Millisecond, func() { cancel(context.DeadlineExceeded) })
		}()
		out, err := Do.Map(ctx, ex, tasks, opts...)
		WantErr(t, err, context.DeadlineExceeded)
		if len(opts) == 0 {
			Want(t, "results", out, Squares(2))
		} else {
			Want(t, "results with CollectErrors", out, append(Squares(2), 0, 0))
		}
	}
}

func mapTimeoutDrops(t *testing.T, s Subject) {
	ex, gate := s.start(t, Options{Workers: 1}), NewGate(t)
	tasks := Tasks(50, Task{Log: LogFile(t), Gate: gate.Path})
	ctx, cancel := context.WithTimeout(Within(t), time.Hour)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := Do.Map(ctx, ex, tasks, multiproc.WithBatch(10))
		ended <- err
	}()
	v := gate.Next()
	cancel()
	WantErr(t, <-ended, context.Canceled)
	v.AwaitEnd(t)
	if out, err := Square.Call(Within(t), ex, 3); out != 9 || err != nil {
		t.Errorf("afterwards: got %d, %v", out, err)
	}
	Want(t, "log", Runs(t, tasks[0].Log), map[int]int{v.X: 1})
}

func saturation(t *testing.T, s Subject) {
	const workers = 3
	calls := s.some(15 * workers)
	ex, gate := s.start(t, Options{Workers: workers}), NewGate(t)
	ended := make(chan error, 1)
	go func() {
		_, err := Do.Map(Within(t), ex, Tasks(calls, Task{Gate: gate.Path}))
		ended <- err
	}()
	var inside []*Visitor
	pids := map[int]bool{}
	for range workers {
		inside = append(inside, gate.Next())
		pids[inside[len(inside)-1].PID] = true
	}
	for range calls - workers {
		if n := gate.Waiting(); n > 0 {
			t.Fatalf("%d calls run at once on %d workers", workers+n, workers)
		}
		inside[0].Release()
		inside = append(inside[1:], gate.Next())
	}
	if s.Reuses && s.Crashes && len(pids) != workers {
		t.Errorf("%d processes are used, want %d", len(pids), workers)
	}
	for _, v := range inside {
		v.Release()
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

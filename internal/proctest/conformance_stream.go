package proctest

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/seed84f35039/multiproc"
)

var streamCases = []behaviour{
	{"03 stream keeps the order when item 0 ends last; unordered yields as they end", needs{}, streamOrder},
	{"04 exhausted stream stays exhausted, and can be run again", needs{}, streamExhausted},
	{"05 input sequence that panics: the results before, then the panic", needs{}, inputPanics},
	{"06 input sequence that panics at once, twice: the executor is usable", needs{}, inputPanicsAtOnce},
	{"07 error in item k of a stream comes in its place", needs{}, streamError},
	{"P10 leaving a stream cancels what is under way", needs{}, streamLeft},
	{"P10 leaving a stream of a sequence without an end, again and again", needs{}, streamLeftOften},
	{"P09 a stream pulls no more than its window ahead", needs{}, streamWindow},
	{"17 stream whose time is up ends with that", needs{}, streamTimeout},
}

func streamOrder(t *testing.T, s Subject) {
	const n = 6
	ex := s.start(t, Options{Workers: 2})
	t.Run("ordered", func(t *testing.T) {
		gate, tasks := NewGate(t), Tasks(n, Task{Log: LogFile(t)})
		tasks[0].Gate, tasks[n-1].Gate = gate.Path, gate.Path
		go func() {
			for range 2 { // the last is there when all between have ended
				defer gate.Next().Release()
			}
		}()
		var got []int
		for out, err := range Do.Stream(Within(t), ex, slices.Values(tasks), multiproc.WithWindow(n)) {
			if err != nil {
				t.Error(err)
			}
			got = append(got, out)
		}
		Want(t, "stream", got, Squares(n))
	})
	t.Run("unordered", func(t *testing.T) {
		gate, tasks := NewGate(t), Tasks(n, Task{})
		tasks[0].Gate = gate.Path
		var got []multiproc.Result[int]
		for r := range Do.StreamUnordered(Within(t), ex, slices.Values(tasks), multiproc.WithWindow(n)) {
			if got = append(got, r); len(got) == n-1 {
				gate.Open()
			}
		}
		if last := got[len(got)-1]; last.Index != 0 {
			t.Errorf("the last result is that of item %d, want item 0", last.Index)
		}
		slices.SortFunc(got, func(a, b multiproc.Result[int]) int { return a.Index - b.Index })
		for i, r := range got {
			Want(t, fmt.Sprint("result ", i), r, multiproc.Result[int]{Index: i, Value: i * i})
		}
	})
}

func streamExhausted(t *testing.T, s Subject) {
	ex := s.start(t, Options{Workers: 2})
	stream := Square.Stream(Within(t), ex, slices.Values(Numbers(3)))
	for range 2 {
		next, stop := iter.Pull2(stream)
		for i := range 3 {
			if out, err, ok := next(); out != i*i || err != nil || !ok {
				t.Errorf("item %d: got %d, %v, %t", i, out, err, ok)
			}
		}
		for range 3 {
			if out, err, ok := next(); ok {
				t.Errorf("after the end: got %d, %v", out, err)
			}
		}
		stop()
	}
}

// broken yields n numbers and panics.
func broken(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
		panic("input is broken")
	}
}

// recovered calls f and returns what it panics with.
func recovered(f func()) (r any) {
	defer func() { r = recover() }()
	f()
	return nil
}

func inputPanics(t *testing.T, s Subject) {
	ex := s.start(t, Options{Workers: 2})
	for n, opts := range map[int][]multiproc.StreamOption{
		3: {multiproc.WithBatch(1)},
		7: {multiproc.WithBatch(4)}, // results of a batch that is not full come too
		9: nil,
	} {
		var got []int
		r := recovered(func() {
			for out, err := range Square.Stream(Within(t), ex, broken(n), opts...) {
				if err != nil {
					t.Error(err)
				}
				got = append(got, out)
			}
		})
		Want(t, "panic", r, "input is broken")
		Want(t, "results before the panic", got, Squares(n))
	}
}

func inputPanicsAtOnce(t *testing.T, s Subject) {
	ex := s.start(t, Options{Workers: 2})
	for range 2 {
		r := recovered(func() {
			for r := range Square.StreamUnordered(Within(t), ex, broken(0)) {
				t.Errorf("got %v", r)
			}
		})
		Want(t, "panic", r, "input is broken")
	}
	if out, err := Square.Call(Within(t), ex, 5); out != 25 || err != nil {
		t.Errorf("afterwards: got %d, %v", out, err)
	}
}

func streamError(t *testing.T, s Subject) {
	const n, k = 8, 3
	ex, tasks := s.start(t, Options{Workers: 2}), Tasks(n, Task{})
	tasks[k].End = "error"
	i := 0
	for out, err := range Do.Stream(Within(t), ex, slices.Values(tasks)) {
		switch {
		case i == k:
			WantErr(t, err, ErrTask)
		case err != nil || out != i*i:
			t.Errorf("item %d: got %d, %v", i, out, err)
		}
		i++
	}
	Want(t, "number of results", i, n)
	for r := range Do.StreamUnordered(Within(t), ex, slices.Values(tasks)) {
		if (r.Err != nil) != (r.Index == k) {
			t.Errorf("item %d: error %v", r.Index, r.Err)
		}
	}
}

func streamLeft(t *testing.T, s Subject) {
	ex, gate := s.start(t, Options{Workers: 2}), NewGate(t)
	tasks := Tasks(6, Task{Gate: gate.Path})
	tasks[0].Gate = ""
	var at map[int]*Visitor
	for _, err := range Do.Stream(Within(t), ex, slices.Values(tasks)) {
		if err != nil {
			t.Error(err)
		}
		at = gate.Visitors(1)
		break
	}
	for _, v := range at {
		v.AwaitEnd(t) // saw the end of its context: nobody released it
	}
	if out, err := Square.Map(Within(t), ex, Numbers(6)); err != nil {
		t.Errorf("afterwards: %v", err)
	} else {
		Want(t, "results afterwards", out, Squares(6))
	}
}

func streamLeftOften(t *testing.T, s Subject) {
	ex := s.start(t, Options{Workers: 2})
	for round := range s.some(12) {
		n, left := 0, false
		forever := func(yield func(int) bool) {
			defer func() { left = true }()
			for i := 0; yield(i); i++ {
			}
		}
		for out, err := range Square.Stream(Within(t), ex, forever) {
			if err != nil || out != n*n {
				t.Fatalf("item %d: got %d, %v", n, out, err)
			}
			if n++; n > round%7 {
				break
			}
		}
		if !left {
			t.Fatal("the stream has ended, and its input has not")
		}
	}
}

func streamWindow(t *testing.T, s Subject) {
	ex := s.start(t, Options{Workers: 2})
	for _, window := range []int{1, 2, 5} {
		var taken atomic.Int64
		in := func(yield func(int) bool) {
			for i := 0; yield(i); i++ {
				// The consumer has one in hand that it has not counted.
				if ahead := i + 1 - int(taken.Load()); ahead > window+1 {
					t.Errorf("%d inputs are pulled ahead, the window has %d", ahead, window)
				}
			}
		}
		for _, err := range Square.Stream(Within(t), ex, in, multiproc.WithWindow(window)) {
			if err != nil {
				t.Fatal(err)
			}
			if int(taken.Add(1)) == s.some(20) {
				break
			}
		}
	}
}

func streamTimeout(t *testing.T, s Subject) {
	ex, gate := s.start(t, Options{Workers: 1}), NewGate(t)
	tasks := Tasks(9, Task{})
	tasks[2].Gate = gate.Path
	ctx, cancel := context.WithCancel(Within(t))
	defer cancel()
	var got []int
	var last error
	for out, err := range Do.Stream(ctx, ex, slices.Values(tasks)) {
		if last = err; err != nil {
			continue // and that is the end
		}
		if got = append(got, out); len(got) == 2 {
			go func() {
				gate.Next()
				cancel()
			}()
		}
	}
	WantErr(t, last, context.Canceled)
	Want(t, "results before", got, Squares(2))
}

package proctest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
)

// Ordeal is a random history of calls over connections with faults.
type Ordeal struct {
	Faults   *Faults
	Workers  int           // of the executor, which has to be able to replace each of them once more
	Deadline time.Duration // of the context of each step
	Exact    bool          // the clock is that of synctest: no step takes longer than that
}

// Run has the executor run the history, and then checks that it is usable, once there are
// no faults any more. Each call ends within the deadline: with the right result, or with an
// error that the function has returned or that tells of the connection or its worker. There
// is no checksum on frames, as no system flips bits in a pipe: with faults of the kind
// corrupt a result may be wrong, and so may an argument; all else holds.
func (o Ordeal) Run(t *testing.T, ex multiproc.Executor) {
	t.Helper()
	rng := rand.New(rand.NewPCG(o.Faults.seed, 0))
	for range 3 {
		s := randomStep(rng)
		o.within(t, fmt.Sprintf("%+v", s), func(ctx context.Context) { o.check(t, s, s.suffer(ctx, ex)) })
	}
	o.Faults.Off()
	// What was lost before may be noticed now, once for each worker.
	var err error
	for range 2*o.Workers + 1 {
		if !o.Exact {
			o.Deadline *= 2 // now it is for what should work, on a machine that may be busy
		}
		var out []int
		o.within(t, "without faults", func(ctx context.Context) { out, err = Square.Map(ctx, ex, Numbers(20)) })
		if err == nil {
			Want(t, "results afterwards, "+o.Faults.String(), out, Squares(20))
			return
		}
	}
	t.Errorf("%v: the executor is not usable afterwards: %v", o.Faults, err)
}

// RunEach is Run for calls that are started one by one.
func (o Ordeal) RunEach(t *testing.T, call func(context.Context, Task) (int, error)) {
	t.Helper()
	rng := rand.New(rand.NewPCG(o.Faults.seed, 0))
	for range 6 {
		s := step{How: "call", Ends: []string{[]string{"", "", "", "error", "panic"}[rng.IntN(5)]}}
		o.within(t, fmt.Sprintf("%+v", s), func(ctx context.Context) {
			out, err := call(ctx, Task{X: 1, End: s.Ends[0]})
			o.check(t, s, []answer{{0, out, err}})
		})
	}
	o.Faults.Off()
	o.Deadline *= 10 // on a machine that may be busy
	o.within(t, "without faults", func(ctx context.Context) {
		if out, err := call(ctx, Task{X: 5}); out != 25 || err != nil {
			t.Errorf("%v: afterwards: got %d, %v", o.Faults, out, err)
		}
	})
}

// within has f end within the deadline.
func (o Ordeal) within(t *testing.T, what string, f func(context.Context)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), o.Deadline)
	defer cancel()
	began := time.Now()
	Promptly(t, fmt.Sprintf("%v: %s", o.Faults, what), func() { f(ctx) })
	if took := time.Since(began); o.Exact && took > o.Deadline {
		t.Errorf("%v: %s took %v, want at most %v", o.Faults, what, took, o.Deadline)
	}
}

// randomStep draws a step of a history.
func randomStep(rng *rand.Rand) (s step) {
	hows := []string{"map", "collect", "call", "go", "stream", "unordered", "large"}
	s.How = hows[rng.IntN(len(hows))]
	s.Batch = []int{0, 0, 1, 3, 50}[rng.IntN(5)]
	s.Window = []int{0, 0, 1, 2, 20}[rng.IntN(5)]
	most := 40
	if s.How == "large" {
		most = 5
	}
	for range 1 + rng.IntN(most) {
		end := ""
		if rng.IntN(8) == 0 && s.How != "map" && s.How != "large" {
			end = []string{"error", "panic", "goexit"}[rng.IntN(3)]
		}
		s.Ends = append(s.Ends, end)
	}
	return s
}

// answer is what a call has come to.
type answer struct {
	i   int // -1: of the step as a whole
	out int // the square of i+1, so that it is never 0
	err error
}

// suffer runs the step and returns what came, in the order in which it came.
func (s step) suffer(ctx context.Context, ex multiproc.Executor) (answers []answer) {
	tasks := Tasks(len(s.Ends), Task{})
	for i, end := range s.Ends {
		tasks[i].X, tasks[i].End = i+1, end
	}
	var mapOpts []multiproc.MapOption
	var streamOpts []multiproc.StreamOption
	if s.Batch > 0 {
		mapOpts, streamOpts = append(mapOpts, multiproc.WithBatch(s.Batch)), append(streamOpts, multiproc.WithBatch(s.Batch))
	}
	if s.Window > 0 {
		streamOpts = append(streamOpts, multiproc.WithWindow(s.Window))
	}
	add := func(i, out int, err error) { answers = append(answers, answer{i, out, err}) }
	switch s.How {
	case "map", "collect":
		if s.How == "collect" {
			mapOpts = append(mapOpts, multiproc.CollectErrors())
		}
		out, err := Do.Map(ctx, ex, tasks, mapOpts...)
		for i, x := range out {
			add(i, x, nil)
		}
		if err != nil {
			add(-1, 0, err)
		}
	case "call":
		for i, task := range tasks {
			out, err := Do.Call(ctx, ex, task)
			add(i, out, err)
		}
	case "go":
		var futures []*multiproc.Future[int]
		for _, task := range tasks {
			futures = append(futures, Do.Go(ctx, ex, task))
		}
		for i, fut := range futures {
			out, err := fut.Wait(ctx)
			add(i, out, err)
		}
	case "stream":
		i := 0
		for out, err := range Do.Stream(ctx, ex, slices.Values(tasks), streamOpts...) {
			add(i, out, err)
			i++
		}
	case "unordered":
		for r := range Do.StreamUnordered(ctx, ex, slices.Values(tasks), streamOpts...) {
			add(r.Index, r.Value, r.Err)
		}
	case "large":
		for i, task := range tasks {
			text := bytes.Repeat([]byte{byte(task.X)}, 300_000)
			out, err := Echo.Call(ctx, ex, text)
			if err == nil && !bytes.Equal(out, text) {
				add(i, -1, nil)
			} else if err == nil {
				add(i, task.X*task.X, nil)
			} else {
				add(i, 0, err)
			}
		}
	}
	return answers
}

// check holds the answers to what they may be.
func (o Ordeal) check(t *testing.T, s step, answers []answer) {
	wrong := func(format string, args ...any) {
		t.Errorf("%v: %s: %s", o.Faults, s.How, fmt.Sprintf(format, args...))
	}
	failed := 0 // of the step as a whole
	answered := map[int]bool{}
	missing := 0
	for _, a := range answers {
		if a.err != nil {
			errs := []error{a.err}
			if joined, ok := a.err.(interface{ Unwrap() []error }); ok && s.How == "collect" {
				errs = joined.Unwrap()
			}
			for _, err := range errs {
				failed++
				end := ""
				if a.i >= 0 {
					end = s.Ends[a.i]
				} else if slices.Contains(s.Ends, "error") || slices.Contains(s.Ends, "panic") || slices.Contains(s.Ends, "goexit") {
					end = "any"
				}
				if !o.mayBe(err, end) {
					wrong("item %d ends with %T: %v", a.i, err, err)
				}
			}
		}
		if a.i < 0 {
			continue
		}
		if answered[a.i] {
			wrong("item %d is answered twice", a.i)
		}
		answered[a.i] = true
		switch right := (a.i + 1) * (a.i + 1); {
		case a.err != nil:
		case a.out == 0 && (s.How == "map" || s.How == "collect") && !o.Faults.Has("corrupt"):
			missing++
		case (a.out != right || s.Ends[a.i] != "") && !o.Faults.Has("corrupt"):
			wrong("item %d, which ends with %q, is %d", a.i, s.Ends[a.i], a.out)
		}
	}
	missing += len(s.Ends) - len(answered)
	switch {
	case s.How == "collect" && failed != missing && !o.Faults.Has("corrupt"):
		wrong("%d results are missing, with %d errors", missing, failed)
	case missing > 0 && failed == 0:
		wrong("%d results are missing, and there is no error", missing)
	}
}

// mayBe reports whether a task that ends in this way may end with such an error.
func (o Ordeal) mayBe(err error, end string) bool {
	if o.Faults.Has("corrupt") {
		return true // the error may have been encoded by a function that was never called
	}
	var remote *multiproc.RemoteError
	var panicked *multiproc.PanicError
	switch {
	case errors.As(err, &remote):
		return (end == "error" || end == "any") && errors.Is(err, ErrTask)
	case errors.As(err, &panicked):
		return end != "" && end != "error"
	}
	return true
}

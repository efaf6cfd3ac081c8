package proctest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/seed84f35039/multiproc"
)

// Histories checks that the same random history of calls, with failures and options,
// has the same outcome on all executors, and the one that it should have.
func Histories(t *testing.T, subjects ...Subject) {
	executors := make([]multiproc.Executor, len(subjects))
	for i, s := range subjects {
		executors[i] = s.start(t, Options{Workers: 2})
	}
	ctx := context.Background()
	checks := 0
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(drawStep), 1, 6).Draw(rt, "steps")
		checks++
		for i, s := range subjects {
			if !s.Reuses && checks%20 != 1 {
				continue // a process for each call takes its time
			}
			for n, step := range steps {
				if diff := cmp.Diff(step.expected(), step.run(ctx, executors[i])); diff != "" {
					rt.Fatalf("step %d on %s differs from what it should be (-want +got):\n%s", n, s.Name, diff)
				}
			}
		}
	})
}

// step is one use of an executor.
type step struct {
	How    string
	Ends   []string // how the tasks end
	Batch  int
	Window int
}

func drawStep(t *rapid.T) step {
	return step{
		How:    rapid.SampledFrom([]string{"map", "collect", "call", "go", "stream", "unordered"}).Draw(t, "how"),
		Ends:   rapid.SliceOfN(rapid.SampledFrom([]string{"", "", "", "", "", "error", "panic", "panic error", "goexit"}), 0, 9).Draw(t, "ends"),
		Batch:  rapid.SampledFrom([]int{0, 0, 1, 3, 50}).Draw(t, "batch"),
		Window: rapid.SampledFrom([]int{0, 0, 1, 2, 20}).Draw(t, "window"),
	}
}

// outcome is what came of a step.
type outcome struct {
	Values   []int
	Failures []failure
}

type failure struct {
	Kind  string
	Func  string
	Index int
	Text  string
	Known bool // wraps ErrTask
}

// expected returns the outcome that the step should have.
func (s step) expected() (o outcome) {
	for i, end := range s.Ends {
		f := failure{Kind: "error", Func: "do", Index: i, Text: Task{X: i}.text(), Known: true}
		switch end {
		case "":
			o.Values = append(o.Values, i*i)
			continue
		case "panic":
			f.Kind, f.Text, f.Known = "panic", "panic of "+f.Text[:len("item 0")], false
		case "panic error":
			f.Kind = "panic"
		case "goexit":
			f.Kind, f.Text, f.Known = "panic", "runtime.Goexit was called", false
		}
		if s.How == "call" || s.How == "go" {
			f.Index = -1
		}
		o.Failures = append(o.Failures, f)
		if s.How == "map" {
			return o
		}
		o.Values = append(o.Values, 0)
	}
	return o
}

// text is the text of the task's error.
func (task Task) text() string {
	task.End = "error"
	return task.end().Error()
}

// run runs the step and returns its outcome.
func (s step) run(ctx context.Context, ex multiproc.Executor) (o outcome) {
	tasks := Tasks(len(s.Ends), Task{})
	for i, end := range s.Ends {
		tasks[i].End = end
	}
	var mapOpts []multiproc.MapOption
	var streamOpts []multiproc.StreamOption
	if s.Batch > 0 {
		mapOpts, streamOpts = append(mapOpts, multiproc.WithBatch(s.Batch)), append(streamOpts, multiproc.WithBatch(s.Batch))
	}
	if s.Window > 0 {
		streamOpts = append(streamOpts, multiproc.WithWindow(s.Window))
	}
	add := func(out int, err error) {
		o.Values = append(o.Values, out)
		o.fail(err)
	}
	switch s.How {
	case "map", "collect":
		if s.How == "collect" {
			mapOpts = append(mapOpts, multiproc.CollectErrors())
		}
		out, err := Do.Map(ctx, ex, tasks, mapOpts...)
		o.Values = append(o.Values, out...)
		o.fail(err)
	case "call":
		for _, task := range tasks {
			add(Do.Call(ctx, ex, task))
		}
	case "go":
		var futures []*multiproc.Future[int]
		for _, task := range tasks {
			futures = append(futures, Do.Go(ctx, ex, task))
		}
		for _, fut := range futures {
			add(fut.Wait(ctx))
		}
	case "stream":
		for out, err := range Do.Stream(ctx, ex, slices.Values(tasks), streamOpts...) {
			add(out, err)
		}
	case "unordered":
		var results []multiproc.Result[int]
		for r := range Do.StreamUnordered(ctx, ex, slices.Values(tasks), streamOpts...) {
			results = append(results, r)
		}
		slices.SortFunc(results, func(a, b multiproc.Result[int]) int { return a.Index - b.Index })
		for _, r := range results {
			add(r.Value, r.Err)
		}
	}
	return o
}

// fail adds what err consists of.
func (o *outcome) fail(err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok && !isCall(err) {
		for _, err := range joined.Unwrap() {
			o.fail(err)
		}
		return
	}
	if err == nil {
		return
	}
	f := failure{Kind: "other", Text: err.Error(), Known: errors.Is(err, ErrTask)}
	if e, ok := errors.AsType[*multiproc.RemoteError](err); ok {
		f.Kind, f.Func, f.Index, f.Text = "error", e.Func, e.Index, e.Message
	}
	if e, ok := errors.AsType[*multiproc.PanicError](err); ok {
		f.Kind, f.Func, f.Index, f.Text = "panic", e.Func, e.Index, e.Value
	}
	o.Failures = append(o.Failures, f)
}

// isCall reports whether err is that of a call, and not several joined.
func isCall(err error) bool {
	switch err.(type) {
	case *multiproc.RemoteError, *multiproc.PanicError:
		return true
	}
	return false
}

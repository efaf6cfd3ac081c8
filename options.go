package multiproc

import "fmt"

// MapOption changes how [Func.Map] goes about its work.
type MapOption interface{ applyMap(*options) }

// StreamOption changes how [Func.Stream] and [Func.StreamUnordered] go about their
// work.
type StreamOption interface{ applyStream(*options) }

type options struct {
	collect bool
	batch   int
	window  int
	err     error
}

// CollectErrors makes Map run every call whatever becomes of the others, and return
// all the errors in the order of the inputs, joined as by errors.Join: errors.Is and
// errors.As look at each, and they can be had one by one through the method
// Unwrap() []error. Each names the index of its input. When the executor refuses the calls as
// a whole there are no results, and the error is a single one without that method.
func CollectErrors() MapOption { return collectErrors{} }

type collectErrors struct{}

func (collectErrors) applyMap(o *options) { o.collect = true }

// WithBatch fixes how many calls a worker is handed at a time. Without it the
// executor measures how long the calls of a function take and hands out about ten
// milliseconds' worth. Threads and Processes hand out one at a time all the same. The
// window of a stream becomes at least 2n, unless WithWindow fixes it. n below 1 is an
// error.
func WithBatch(n int) BatchOption { return BatchOption(n) }

// BatchOption is the result of [WithBatch].
type BatchOption int

func (n BatchOption) applyMap(o *options) {
	if o.batch = int(n); n < 1 {
		o.err = fmt.Errorf("WithBatch(%d): a batch has at least 1 call", int(n))
	}
}

func (n BatchOption) applyStream(o *options) { n.applyMap(o) }

// WithWindow fixes how many inputs a stream may have pulled whose results have not
// been taken by the consumer. Without it the executor's [Executor.Window] decides.
// A larger one helps when single calls take much longer than the rest: the others
// can go on for longer while the results wait for their turn. n below 1 is an
// error.
func WithWindow(n int) StreamOption { return window(n) }

type window int

func (n window) applyStream(o *options) {
	if o.window = int(n); n < 1 {
		o.err = fmt.Errorf("WithWindow(%d): a window has at least 1 call", int(n))
	}
}

package handover

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"sync"
)

// Handle is one of the handles that this process has on some memory. A nil handle is on
// none.
type Handle struct{ ref *ref }

// ref is what a handle refers to. It is apart for the sake of forget.
type ref struct {
	mu    sync.Mutex
	named named    // what a decoded handle is waiting to be bound to
	m     *mapping // nil before it is bound and after it is closed
	size  int      // bytes
	shown bool     // somebody has had the bytes
}

// Carrier is implemented by Handle and by whatever embeds it, and by nothing else.
type Carrier interface{ carried() *Handle }

func (h *Handle) carried() *Handle { return h }

var (
	errClosed  = fmt.Errorf("the shared memory is not open any more: %w", fs.ErrClosed)
	errUnbound = errors.New("the shared memory did not come along: it has to be a part of the argument or result that any program can see, not hidden in the encoding of another type")
	errAlone   = errors.New("shared memory can travel only in a call between processes of this machine, as an argument, a result or a part of them; a type with an encoding of its own must have it in an exported field")
)

// New makes zeroed memory of that many bytes.
func New(size int) (*Handle, error) {
	m, err := create(size)
	if err != nil {
		return nil, err
	}
	return newHandle(m, size), nil
}

// newHandle returns a handle with the caller's reference to m.
func newHandle(m *mapping, size int) *Handle {
	h := &Handle{&ref{m: m, size: size}}
	h.watch()
	return h
}

// watch sees to it that a handle which nobody has used is closed with the last pointer
// to it. One that was used is not: slices of the memory may be in use, which the garbage
// collector does not see.
func (h *Handle) watch() { runtime.AddCleanup(h, (*ref).forget, h.ref) }

func (r *ref) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.shown {
		r.close()
	}
}

// Pass makes handles those of somebody who has not used them yet, but for some.
func Pass(handles, except []*Handle) {
	for _, h := range handles {
		if !slices.Contains(except, h) {
			h.ref.mu.Lock()
			h.ref.shown = false
			h.ref.mu.Unlock()
		}
	}
}

// close gives the reference back. r.mu is held.
func (r *ref) close() error {
	m := r.m
	if r.m = nil; m == nil {
		return nil
	}
	return m.release()
}

// Bytes returns the memory, or nil if the handle is closed.
func Bytes(h *Handle) []byte {
	if h == nil {
		return nil
	}
	h.ref.mu.Lock()
	defer h.ref.mu.Unlock()
	if h.ref.m == nil {
		return nil
	}
	h.ref.shown = true
	return h.ref.m.mem.Bytes()[:h.ref.size:h.ref.size]
}

// Size returns how many bytes the memory has, also when the handle is closed.
func Size(h *Handle) int {
	if h == nil {
		return 0
	}
	h.ref.mu.Lock()
	defer h.ref.mu.Unlock()
	return h.ref.size
}

// Keep returns another handle on the memory.
func Keep(h *Handle) (*Handle, error) {
	if h == nil {
		return nil, nil
	}
	m, err := h.retain()
	if err != nil {
		return nil, err
	}
	return newHandle(m, Size(h)), nil
}

// retain returns the mapping with a reference of its own.
func (h *Handle) retain() (*mapping, error) {
	h.ref.mu.Lock()
	defer h.ref.mu.Unlock()
	if h.ref.m == nil {
		if h.ref.named != (named{}) {
			return nil, errUnbound
		}
		return nil, errClosed
	}
	return h.ref.m.retain(), nil
}

// Close closes the handle. Only the first time does anything.
func Close(h *Handle) error {
	if h == nil {
		return nil
	}
	h.ref.mu.Lock()
	defer h.ref.mu.Unlock()
	return h.ref.close()
}

package handover

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"sync"

	"github.com/seed84f35039/multiproc/internal/shm"
)

// Arrival is memory that has come beside a frame. A nil one is empty.
type Arrival struct {
	mu    sync.Mutex
	calls int // that may bind from it
	came  []arrived
	err   error // why some of it is not there
}

// arrived is memory whose handles have not all been bound.
type arrived struct {
	id   shm.ID
	size int      // whole pages
	file *os.File // nil once it is mapped
	own  *Handle  // then; it is closed by itself where nobody calls Done
}

// Take takes what has come for a frame of one call; see Share. It never waits, as what a
// frame announces was sent before it. What is wrong with it is the error of the calls
// that need it.
func Take(from Files) *Arrival {
	if from == nil {
		return &Arrival{err: errAlone}
	}
	files, err := from.Take()
	a := &Arrival{calls: 1, err: err}
	for _, file := range files {
		id, size, err := shm.Identify(file)
		if err != nil {
			a.err = errors.Join(a.err, err)
			file.Close()
			continue
		}
		a.came = append(a.came, arrived{id: id, size: size, file: file})
	}
	return a
}

// Bind binds the handles in *v, which was decoded from a call of the frame, to the
// memory that has come with it. It returns them; if it fails, they are closed.
func (a *Arrival) Bind(f Finder, v any) (bound []*Handle, err error) {
	err = f.each(reflect.ValueOf(v).Elem(), func(h *Handle) error {
		m, err := a.get(h.ref.named)
		if err != nil {
			return err
		}
		h.ref.mu.Lock()
		defer h.ref.mu.Unlock()
		h.ref.m, h.ref.size, h.ref.named = m, int(h.ref.named.size), named{}
		h.watch()
		bound = append(bound, h)
		return nil
	})
	if err != nil {
		for _, h := range bound {
			Close(h)
		}
		return nil, err
	}
	return bound, nil
}

// get returns the memory of that name, with a reference for the caller.
func (a *Arrival) get(n named) (*mapping, error) {
	if a == nil {
		return nil, errUnbound
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.came {
		c := &a.came[i]
		if c.id.Inode != n.inode {
			continue
		}
		if n.size > uint64(c.size) {
			return nil, fmt.Errorf("shared memory of %d bytes is said to have %d", c.size, n.size)
		}
		if c.file != nil {
			m, err := adopt(c.file, c.id, c.size)
			c.file = nil
			if err != nil {
				a.err = errors.Join(a.err, err)
				break
			}
			c.own = newHandle(m, c.size)
		}
		if c.own == nil {
			break
		}
		return c.own.retain()
	}
	if a.err != nil {
		return nil, fmt.Errorf("shared memory: %w", a.err)
	}
	return nil, errUnbound
}

// Share tells that it is for n calls, before any of them has it.
func (a *Arrival) Share(n int) {
	if a != nil {
		a.calls = n
	}
}

// Done tells that n of the calls need nothing more. After the last one, what nobody has
// bound is closed.
func (a *Arrival) Done(n int) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.calls -= n; a.calls > 0 {
		return
	}
	for _, c := range a.came {
		if c.file != nil {
			c.file.Close()
		}
		Close(c.own)
	}
	a.came = nil
}

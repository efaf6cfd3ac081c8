package handover

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
)

// MaxMemories is how much different memory may go along with a call, and with what
// answers it: as many descriptors as the kernel takes at a time.
const MaxMemories = 253

// ErrFull is returned when a Parcel has no room for the memory of a value.
var ErrFull = fmt.Errorf("more than %d pieces of shared memory", MaxMemories)

// Files is a way for descriptors between two processes; see the transport.
type Files interface {
	Send(files []*os.File) error
	Take() ([]*os.File, error)
}

// Parcel is memory that is going to leave beside a frame. It has references of its own,
// so that closing a handle does not take anything out of it. A nil parcel is empty.
type Parcel struct{ in []*mapping }

// Add adds the memory of all handles in *v. If that fails, it adds nothing.
func (p *Parcel) Add(f Finder, v any) error {
	before := len(p.in)
	err := f.each(reflect.ValueOf(v).Elem(), func(h *Handle) error {
		m, err := h.retain()
		if err != nil {
			return err
		}
		if slices.Contains(p.in, m) {
			return m.release()
		}
		if len(p.in) == MaxMemories {
			return errors.Join(ErrFull, m.release())
		}
		m.parcels.Add(1)
		p.in = append(p.in, m)
		return nil
	})
	if err != nil {
		p.cut(before)
	}
	return err
}

// Empty reports whether there is nothing to send.
func (p *Parcel) Empty() bool { return p == nil || len(p.in) == 0 }

// Send sends what is in the parcel. It never waits. The frame that announces it has to
// follow.
func (p *Parcel) Send(to Files) error {
	if to == nil {
		return errAlone
	}
	files := make([]*os.File, len(p.in))
	for i, m := range p.in {
		files[i] = m.mem.File()
	}
	return to.Send(files)
}

// Release gives back what the parcel has.
func (p *Parcel) Release() {
	if p != nil {
		p.cut(0)
	}
}

// cut takes out what was added after the first n.
func (p *Parcel) cut(n int) {
	for _, m := range p.in[n:] {
		m.parcels.Add(-1)
		m.release()
	}
	clear(p.in[n:])
	p.in = p.in[:n]
}

package handover

import (
	"os"
	"sync"
	"sync/atomic"

	"github.com/seed84f35039/multiproc/internal/shm"
)

// mapping is memory that this process has mapped.
type mapping struct {
	id      shm.ID
	size    int // whole pages
	mem     *shm.Memory
	refs    int          // guarded by mapped.mu; at 0 it is unmapped
	parcels atomic.Int32 // that it is in
}

// mapped holds the mappings of this process.
var mapped = struct {
	mu   sync.Mutex
	byID map[shm.ID]*mapping
}{byID: map[shm.ID]*mapping{}}

// create makes new memory, with one reference.
func create(size int) (*mapping, error) {
	mem, err := shm.New("multiproc shared", size)
	if err != nil {
		return nil, err
	}
	id, n, err := shm.Identify(mem.File())
	if err != nil {
		mem.Close()
		return nil, err
	}
	m := &mapping{id: id, size: n, mem: mem, refs: 1}
	mapped.mu.Lock()
	defer mapped.mu.Unlock()
	mapped.byID[id] = m
	return m, nil
}

// adopt returns the mapping of the memory that file is of, which was identified as that,
// with one more reference. It takes the file over.
func adopt(file *os.File, id shm.ID, size int) (*mapping, error) {
	mapped.mu.Lock()
	defer mapped.mu.Unlock()
	if m := mapped.byID[id]; m != nil {
		m.refs++
		file.Close()
		return m, nil
	}
	mem, err := shm.Map(file, size)
	if err != nil {
		return nil, err
	}
	m := &mapping{id: id, size: size, mem: mem, refs: 1}
	mapped.byID[id] = m
	return m, nil
}

// retain adds a reference to those that the caller knows of.
func (m *mapping) retain() *mapping {
	mapped.mu.Lock()
	defer mapped.mu.Unlock()
	m.refs++
	return m
}

// release takes a reference back.
func (m *mapping) release() error {
	mapped.mu.Lock()
	m.refs--
	last := m.refs == 0
	if last {
		delete(mapped.byID, m.id)
	}
	mapped.mu.Unlock()
	if !last {
		return nil
	}
	return m.mem.Close() // takes long where many pages were touched
}

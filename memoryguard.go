package multiproc

import (
	"fmt"
	"os"
	"time"

	"github.com/seed84f35039/multiproc/internal/child"
)

// outOfMemory begins what a worker says that has exceeded its MemoryLimit.
const outOfMemory = workerSays + "out of memory: "

// memoryGuard ends a worker that exceeds its MemoryLimit. What the system enforces for it
// may be up to an arena of the Go heap more. It looks while there are calls. Guarded by s.mu.
type memoryGuard struct {
	s      *server
	limit  int64 // bytes
	timer  *time.Timer
	asleep bool
}

// guardEvery is how often it looks. A look takes some microseconds.
const guardEvery = 20 * time.Millisecond

// newMemoryGuard returns nil where there is no limit.
func newMemoryGuard(s *server) *memoryGuard {
	if s.cfg.limits.Memory == 0 {
		return nil
	}
	g := &memoryGuard{s: s, limit: child.PrivateMemory() + s.cfg.limits.Memory, asleep: true}
	g.timer = time.AfterFunc(time.Hour, g.look)
	g.timer.Stop()
	return g
}

// wake has it look. s.mu is held.
func (g *memoryGuard) wake() {
	if g != nil && g.asleep {
		g.asleep = false
		g.timer.Reset(guardEvery)
	}
}

func (g *memoryGuard) look() {
	s := g.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil && len(s.running) == 0 && len(s.queue) == 0 {
		g.asleep = true
		return
	}
	if has := child.PrivateMemory(); has > g.limit {
		if w := s.now; w != nil { // no other call is to begin and be taken for the one that has it
			if next, _ := w.span(); next == 0 || !w.hold(next) {
				g.timer.Reset(time.Millisecond) // that call has just ended
				return
			}
		}
		fmt.Fprintf(os.Stderr, "%sit has %d MiB, and %d are its MemoryLimit\n", outOfMemory, has>>20, g.limit>>20)
		s.kill()
		return
	}
	g.timer.Reset(guardEvery)
}

// stop ends it.
func (g *memoryGuard) stop() {
	if g != nil {
		g.timer.Stop()
	}
}

package child

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxLine is the longest line that is passed on in one piece, in bytes.
const maxLine = 64 << 10

// pump copies what a child writes, line by line, and remembers the end of it.
type pump struct {
	r    *os.File
	w    io.Writer // may be nil
	done chan struct{}

	copied atomic.Int64 // bytes so far

	mu     sync.Mutex
	tail   tail
	reason string // the last line that looks as if the Go runtime gave up
}

func newPump(r *os.File, w io.Writer, keep int) *pump {
	return &pump{r: r, w: w, done: make(chan struct{}), tail: tail{max: keep}}
}

// run copies until the pipe ends. What the child could not get rid of would block
// it, so that run goes on reading even when the writer fails.
func (p *pump) run() {
	defer close(p.done)
	defer p.r.Close()
	lines := bufio.NewReaderSize(p.r, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 {
			p.copied.Add(int64(len(line)))
			p.remember(line)
			if err == io.EOF {
				line = append(bytes.Clone(line), '\n') // the next writer begins a line
			}
			if p.w != nil {
				if _, werr := p.w.Write(line); werr != nil {
					p.w = nil
				}
			}
		}
		if err != nil && err != bufio.ErrBufferFull {
			return
		}
	}
}

func (p *pump) remember(line []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tail.add(line)
	if p.tail.max > 0 && gaveUp(line) && !(bytes.HasPrefix(line, []byte("SIGABRT: ")) && strings.HasPrefix(p.reason, "runtime/cgo: ")) { // which has just said more
		p.reason = strings.TrimSpace(string(line[:min(len(line), 200)]))
	}
}

// last returns the last lines that were copied, and the reason.
func (p *pump) last() (tail, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tail.String(), p.reason
}

// stop waits until everything has been copied by all of them, as long as something is
// copied: a process that left the group may hold a pipe open, and a writer may be stuck.
func stop(pumps ...*pump) {
	tick := time.NewTicker(pumpTimeout)
	defer tick.Stop()
	before := int64(-1)
	for _, p := range pumps {
		for stopped := false; !stopped; {
			select {
			case <-p.done:
				stopped = true
			case <-tick.C:
				now := int64(0)
				for _, p := range pumps {
					now += p.copied.Load()
				}
				if now == before {
					for _, p := range pumps {
						p.r.SetReadDeadline(time.Now()) // run ends, unless its writer is stuck
					}
					return
				}
				before = now
			}
		}
	}
}

// pumpTimeout is how long the output of a child that has ended is waited for without
// any coming.
const pumpTimeout = 500 * time.Millisecond

// reasons are how the Go runtime, or a worker, begins the line that says why it ends the
// process. Besides these there are the names of signals.
var reasons = [...]string{"fatal error: ", "panic: ", "runtime: out of memory", "runtime/cgo: ", "unexpected fault address", "multiproc: worker: "}

// gaveUp reports whether the line is such a line. (A regexp would take each worker 0.1 ms
// of its start.)
func gaveUp(line []byte) bool {
	for _, r := range reasons {
		if bytes.HasPrefix(line, []byte(r)) {
			return true
		}
	}
	name, _, colon := bytes.Cut(line, []byte(": "))
	return colon && len(name) > 3 && bytes.HasPrefix(name, []byte("SIG")) && len(bytes.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")) == 0
}

// tail keeps the last bytes that were added, from the beginning of a line on.
type tail struct {
	buf []byte
	max int
}

func (t *tail) add(b []byte) {
	t.buf = append(t.buf, b...)
	if len(t.buf) > 2*t.max {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-t.max:]...)
	}
}

// String returns at most max bytes, and whole lines where there is more than one.
func (t *tail) String() string {
	b := t.buf
	if len(b) > t.max {
		b = b[len(b)-t.max:]
		if i := bytes.IndexByte(b, '\n'); i >= 0 && i+1 < len(b) {
			b = b[i+1:]
		}
	}
	return string(b)
}

package proctest

import (
	"bytes"
	"io"
	"os"
	"sync"
	"sync/atomic"
)

// raced is set when a worker has told of a data race. See Run.
var raced atomic.Bool

// Quiet is for the standard error of workers that crash on purpose. It drops what
// they write, but for the report of a data race, which fails the tests.
var Quiet io.Writer = new(quiet)

type quiet struct {
	mu   sync.Mutex
	loud bool // in the middle of a report
}

func (q *quiet) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if bytes.HasPrefix(line, []byte("WARNING: DATA RACE")) {
		raced.Store(true)
		q.loud = true
	}
	if q.loud {
		os.Stderr.Write(line)
	}
	q.loud = q.loud && !bytes.HasPrefix(line, []byte("====="))
	return len(line), nil
}

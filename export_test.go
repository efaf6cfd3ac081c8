package multiproc

import (
	"syscall"

	"github.com/seed84f35039/multiproc/internal/child"
	"github.com/seed84f35039/multiproc/internal/transport"
)

// NewSocketPool is NewPool on a system without memory for rings.
func NewSocketPool(cfg PoolConfig) *Pool {
	p := NewPool(cfg)
	p.launch = launch{
		env: p.cfg.Env, dir: p.cfg.Dir, stdout: p.cfg.Stdout, stderr: p.cfg.Stderr, gomaxprocs: p.cfg.GOMAXPROCS, worker: p.cfg.worker(),
		connect: transport.NewSocket,
	}.start
	return p
}

// NewPipePool is a pool whose workers are goroutines of this process. They cannot be
// killed.
func NewPipePool(cfg PoolConfig) *Pool {
	p := NewPool(cfg)
	p.launch = func() (link, error) {
		ours, theirs := transport.Pipe()
		l := &pipeLink{Conn: ours, theirs: theirs, ended: make(chan struct{})}
		go func() { // ends when the connection does, or the parent says stop; waited for by Reap
			defer close(l.ended)
			defer theirs.Close()
			if sayHello(theirs) == nil {
				serve(theirs, p.cfg.worker(), func() { theirs.Close() })
			}
		}()
		return l, nil
	}
	return p
}

// pipeLink is the link to a worker in this process.
type pipeLink struct {
	transport.Conn
	theirs transport.Conn
	ended  chan struct{}
}

func (l *pipeLink) PID() int                    { return 0 } // none of its own
func (l *pipeLink) Exited() bool                { return false }
func (l *pipeLink) Files() transport.Files      { return transport.FilesOf(l.Conn) }
func (l *pipeLink) Signal(syscall.Signal) error { return l.theirs.Close() }

func (l *pipeLink) Reap() child.Ended {
	l.theirs.Close()
	<-l.ended // bounded: serve ends with its connection
	return child.Ended{}
}

// SignalAny sends a signal to one of the workers that have calls, and reports whether there
// was one. Unlike with a process id from a Snapshot, it cannot be another process meanwhile.
func SignalAny(p *Pool, sig syscall.Signal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.workers { // in a random order
		if w.state == stateReady && w.open > 0 {
			return w.link.Signal(sig) == nil
		}
	}
	return false
}

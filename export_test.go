package multiproc

import (
	"syscall"

	"github.com/seed84f35039/multiproc/internal/child"
	"github.com/seed84f35039/multiproc/internal/transport"
)

// Via says how tests have workers connected. The zero value is as everybody has it.
type Via struct {
	Sockets bool // as on a system without memory for rings
	Pipes   bool // workers are goroutines of this process. They cannot be killed

	// Wrap puts something between the parent and a connection; kill kills the worker and
	// does not wait. nil: nothing.
	Wrap func(conn transport.Conn, kill func()) transport.Conn
}

// NewPool is the function of that name.
func (v Via) NewPool(cfg PoolConfig) *Pool {
	p := NewPool(cfg)
	v.connect(p)
	return p
}

// NewProcesses is the function of that name.
func (v Via) NewProcesses(cfg PoolConfig) *Processes {
	p := NewProcesses(cfg)
	v.connect(&p.pool)
	return p
}

func (v Via) connect(p *Pool) {
	p.launch = v.launcher(launch{
		env: p.cfg.Env, dir: p.cfg.Dir, stdout: p.cfg.Stdout, stderr: p.cfg.Stderr, gomaxprocs: p.cfg.GOMAXPROCS, worker: p.cfg.worker(),
	})
}

// NewSpares is the function of that name.
func (v Via) NewSpares(n int, cfg ProcessConfig) *Spares {
	s := NewSpares(n, cfg)
	s.start = v.launcher(s.cfg.launch())
	return s
}

func (v Via) launcher(l launch) launcher {
	start := func() (link, error) { return l.start() }
	switch {
	case v.Pipes:
		start = func() (link, error) { return startPipe(l.worker), nil }
	case v.Sockets:
		l.connect = transport.NewSocket
	}
	if v.Wrap == nil {
		return start
	}
	return func() (link, error) {
		l, err := start()
		if err != nil {
			return nil, err
		}
		return &wrappedLink{v.Wrap(l, func() { l.Signal(syscall.SIGKILL) }), l}, nil
	}
}

// NewSocketPool is NewPool on a system without memory for rings.
func NewSocketPool(cfg PoolConfig) *Pool { return Via{Sockets: true}.NewPool(cfg) }

// NewPipePool is a pool whose workers are goroutines of this process.
func NewPipePool(cfg PoolConfig) *Pool { return Via{Pipes: true}.NewPool(cfg) }

// startPipe starts a worker in this process.
func startPipe(cfg workerConfig) link {
	ours, theirs := transport.Pipe()
	l := &pipeLink{Conn: ours, theirs: theirs, ended: make(chan struct{})}
	go func() { // ends when the connection does, or the parent says stop; waited for by Reap
		defer close(l.ended)
		defer theirs.Close()
		if sayHello(theirs) == nil {
			serve(theirs, cfg, func() { theirs.Close() })
		}
	}()
	return l
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

// wrappedLink is a link whose connection is another's.
type wrappedLink struct {
	transport.Conn
	process interface {
		PID() int
		Signal(syscall.Signal) error
		Exited() bool
		Reap() child.Ended
	}
}

func (l *wrappedLink) PID() int                        { return l.process.PID() }
func (l *wrappedLink) Exited() bool                    { return l.process.Exited() }
func (l *wrappedLink) Files() transport.Files          { return transport.FilesOf(l.Conn) }
func (l *wrappedLink) Signal(sig syscall.Signal) error { return l.process.Signal(sig) }
func (l *wrappedLink) Reap() child.Ended               { return l.process.Reap() }

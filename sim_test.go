package multiproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed84f35039/multiproc/internal/child"
	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// sim is a pool whose workers are goroutines that speak to it over the in-memory
// transport. It lives in a bubble of synctest, whose clock moves when everybody waits.
type sim struct {
	pool *Pool

	mu       sync.Mutex
	starts   []time.Duration // when workers were started, since the beginning
	notes    []note          // what calls have said, in order
	launch   func(n int) error
	worker   func(n int, conn transport.Conn) // what worker n does; nil: serve
	parent   func(n int, conn transport.Conn) transport.Conn
	began    time.Time
	last     *simLink      // of the worker started last
	released chan struct{} // closed at the end, for calls that do not look at their contexts
}

// note says that a call began or ended.
type note struct {
	x    int
	what string
	at   time.Duration
}

// simulate runs a test on a pool of simulated workers. The bubble has to be empty at
// its end: no goroutine is left.
func simulate(t *testing.T, cfg PoolConfig, test func(t *testing.T, s *sim)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &sim{pool: NewPool(cfg), began: time.Now(), released: make(chan struct{})}
		s.pool.ready = func() error { return nil }
		s.pool.launch = s.start
		name := fmt.Sprintf("%p", s)
		sims.Store(name, s)
		defer sims.Delete(name)
		test(t, s)
		close(s.released)
		if err := s.pool.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		synctest.Wait()
	})
}

// sims are the simulations that run, by name.
var sims sync.Map

// simTask is the argument of calls in a simulation.
type simTask struct {
	Sim  string
	X    int
	Time time.Duration // how long it takes
	Deaf bool          // whether it goes on when its context ends
	Fail int           // how often calls of X fail
	Die  bool          // whether it kills its worker after that time
}

// simCall takes its time and returns X squared.
var simCall = Register("sim.call", func(ctx context.Context, task simTask) (int, error) {
	v, ok := sims.Load(task.Sim)
	if !ok {
		return 0, errors.New("the simulation is over")
	}
	s := v.(*sim)
	s.note(task.X, "begins")
	defer s.note(task.X, "ends")
	if task.Die {
		<-time.After(task.Time)
		s.mu.Lock()
		last := s.last
		s.mu.Unlock()
		last.theirs.Close()
		<-ctx.Done()
	}
	if begun := len(s.notesOf("begins")); begun <= task.Fail {
		return 0, errors.New("it fails")
	}
	if task.Time > 0 {
		timer := time.NewTimer(task.Time)
		defer timer.Stop()
		done := ctx.Done()
		if task.Deaf {
			done = nil
		}
		select {
		case <-timer.C:
		case <-s.released:
		case <-done:
			return 0, ctx.Err()
		}
	}
	return task.X * task.X, nil
})

// task returns the argument of a call of this simulation.
func (s *sim) task(x int, takes time.Duration) simTask {
	return simTask{Sim: fmt.Sprintf("%p", s), X: x, Time: takes}
}

func (s *sim) tasks(n int, takes time.Duration) []simTask {
	tasks := make([]simTask, n)
	for i := range tasks {
		tasks[i] = s.task(i, takes)
	}
	return tasks
}

func (s *sim) note(x int, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, note{x, what, time.Since(s.began)})
}

// begun returns the calls that have begun, in order.
func (s *sim) begun() (xs []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.notes {
		if n.what == "begins" {
			xs = append(xs, n.x)
		}
	}
	return xs
}

// started returns when workers were started.
// notesOf returns when something was noted.
func (s *sim) notesOf(what string) (times []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.notes {
		if n.what == what {
			times = append(times, n.at)
		}
	}
	return times
}

func (s *sim) started() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.starts[:len(s.starts):len(s.starts)]
}

// start is the pool's launcher.
func (s *sim) start() (link, error) {
	s.mu.Lock()
	s.starts = append(s.starts, time.Since(s.began))
	n := len(s.starts)
	s.mu.Unlock()
	if s.launch != nil {
		if err := s.launch(n); err != nil {
			return nil, err
		}
	}
	ours, theirs := transport.Pipe()
	if s.parent != nil {
		ours = s.parent(n, ours)
	}
	go func() { // ends when its connection does, or serve does; the bubble waits for it
		defer theirs.Close()
		if s.worker != nil {
			s.worker(n, theirs)
			return
		}
		if sayHello(theirs) == nil {
			serve(theirs, s.pool.cfg.worker(), func() { theirs.Close() })
		}
	}()
	l := &simLink{Conn: ours, theirs: theirs, pid: 1000 + n}
	s.mu.Lock()
	s.last = l
	s.mu.Unlock()
	return l, nil
}

// serveSim serves until the worker is told to end, or kills itself.
func serveSim(conn transport.Conn) (code int, ok bool) {
	return serve(conn, workerConfig{concurrency: 1}, func() { conn.Close() })
}

// sayHello does what Init does before it serves.
func sayHello(conn transport.Conn) error {
	hello, err := wire.Encode(wire.Begin(nil, wire.Hello, 0), &wire.Greeting{Version: wire.Version, Build: build(), PID: os.Getpid()})
	if err != nil {
		return err
	}
	if err := wire.End(hello, 0); err != nil {
		return err
	}
	return conn.Send(hello, nil, transport.Now)
}

// simLink is the link to a simulated worker.
type simLink struct {
	transport.Conn
	theirs transport.Conn
	pid    int
}

func (l *simLink) PID() int { return l.pid }

// Signal ends the worker, whatever the signal.
func (l *simLink) Signal(syscall.Signal) error {
	return l.theirs.Close()
}

// Exited is told by the connection alone.
func (l *simLink) Exited() bool { return false }

// Reap tells that the worker has ended.
func (l *simLink) Reap() child.Ended {
	l.theirs.Close()
	return child.Ended{Err: errors.New("simulated death")}
}

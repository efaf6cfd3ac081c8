package proctest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
)

// Patience is how long a test waits for what should come at once. It only matters
// when something is broken.
const Patience = 30 * time.Second

// A Gate stops calls, in whatever process they run, until the test lets them go on.
// A call enters it by way of its [Task].
type Gate struct {
	Path string // for Task.Gate

	t        testing.TB
	listener net.Listener
	arrivals chan *Visitor

	mu       sync.Mutex
	open     bool
	visitors []*Visitor
}

// A Visitor is a call at a gate. It stays connected until the call ends or its
// process does.
type Visitor struct {
	PID int // process of the call
	X   int // its number

	conn net.Conn
}

// NewGate returns a closed gate. At the end of the test it opens.
func NewGate(t testing.TB) *Gate {
	t.Helper()
	dir, err := os.MkdirTemp("", "gate") // not t.TempDir, whose long path is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	g := &Gate{Path: filepath.Join(dir, "s"), t: t, arrivals: make(chan *Visitor, 100_000)}
	if g.listener, err = net.Listen("unix", g.Path); err != nil {
		t.Fatal(err)
	}
	accepted := make(chan struct{})
	go func() { // ends when the listener is closed; waited for in the cleanup
		defer close(accepted)
		g.accept()
	}()
	t.Cleanup(func() {
		g.listener.Close()
		<-accepted
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, v := range g.visitors {
			v.conn.Close()
		}
	})
	return g
}

func (g *Gate) accept() {
	for {
		conn, err := g.listener.Accept()
		if err != nil {
			return
		}
		v := &Visitor{conn: conn}
		if _, err := fmt.Fscanf(bufio.NewReader(conn), "%d %d\n", &v.PID, &v.X); err != nil {
			conn.Close() // it died on the way
			continue
		}
		g.mu.Lock()
		g.visitors = append(g.visitors, v)
		if g.open {
			v.Release()
		}
		g.mu.Unlock()
		g.arrivals <- v
	}
}

// Next waits for the next call to arrive. It may be called from any goroutine.
func (g *Gate) Next() *Visitor {
	g.t.Helper()
	select {
	case v := <-g.arrivals:
		return v
	case <-time.After(Patience):
		stacks := make([]byte, 1<<20)
		g.t.Errorf("no call came to the gate; the goroutines are:\n%s", stacks[:runtime.Stack(stacks, true)])
		return &Visitor{}
	}
}

// Visitors waits for n calls to arrive and returns them by their numbers. It ends the
// test if they do not come.
func (g *Gate) Visitors(n int) map[int]*Visitor {
	g.t.Helper()
	at := map[int]*Visitor{}
	for range n {
		v := g.Next()
		if v.conn == nil {
			g.t.FailNow()
		}
		at[v.X] = v
	}
	return at
}

// Waiting returns how many calls have arrived that Next has not returned.
func (g *Gate) Waiting() int { return len(g.arrivals) }

// Open lets everybody through, now and later.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = true
	for _, v := range g.visitors {
		v.Release()
	}
}

// Release lets the call go on.
func (v *Visitor) Release() {
	if v.conn != nil {
		v.conn.Write([]byte{1}) // if it fails the call has ended
	}
}

// AwaitEnd waits until the call has ended, or its process has.
func (v *Visitor) AwaitEnd(t testing.TB) {
	t.Helper()
	if v.conn == nil {
		return
	}
	v.conn.SetReadDeadline(time.Now().Add(Patience))
	var buf [1]byte
	if _, err := v.conn.Read(buf[:]); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("call %d in process %d did not end", v.X, v.PID)
	}
}

// enter announces call x at the gate and waits to be let through, or for the end of
// ctx. The connection is to be closed at the end of the call.
func enter(ctx context.Context, path string, x int) (net.Conn, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(conn, "%d %d\n", os.Getpid(), x); err != nil {
		return conn, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var buf [1]byte
	if _, err := conn.Read(buf[:]); errors.Is(err, os.ErrDeadlineExceeded) {
		return conn, context.Cause(ctx)
	}
	return conn, nil // let through, or the test is over
}

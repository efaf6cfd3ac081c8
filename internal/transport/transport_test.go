package transport

import (
	"bytes"
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/seed84f35039/multiproc/internal/wire"
)

// pairs are the ways to make two connected ends.
var pairs = map[string]func(t testing.TB) (parent, worker Conn){
	"pipe":   func(testing.TB) (Conn, Conn) { return Pipe() },
	"socket": socketPair,
	"rings":  ringPair,
}

func forEachPair(t *testing.T, test func(t *testing.T, parent, worker Conn)) {
	for name, pair := range pairs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent, worker := pair(t)
			defer parent.Close()
			defer worker.Close()
			test(t, parent, worker)
		})
	}
}

// Both ends send more than any buffer holds while both read.
func TestBothWays(t *testing.T) {
	forEachPair(t, func(t *testing.T, parent, worker Conn) {
		const frames, size = 50, 100_000
		send := func(c Conn, seed byte) error {
			for i := range frames {
				body := bytes.Repeat([]byte{seed + byte(i)}, size)
				if err := c.Send(wire.Append(nil, wire.Calls, uint64(i), body), nil, Now); err != nil {
					return err
				}
			}
			return nil
		}
		receive := func(c Conn, seed byte) {
			for i := range frames {
				f, err := Recv(c)
				if err != nil || f.ID != uint64(i) || !bytes.Equal(f.Body, bytes.Repeat([]byte{seed + byte(i)}, size)) {
					t.Errorf("frame %d: got id %d, %d bytes, error %v", i, f.ID, len(f.Body), err)
					return
				}
			}
		}
		var wg sync.WaitGroup
		for _, f := range []func(){
			func() { receive(parent, 100) },
			func() { receive(worker, 1) },
			func() {
				if err := send(parent, 1); err != nil {
					t.Error(err)
				}
			},
			func() {
				if err := send(worker, 100); err != nil {
					t.Error(err)
				}
			},
		} {
			wg.Go(f)
		}
		wg.Wait()
	})
}

// Frames of several senders do not mix.
func TestConcurrentSend(t *testing.T) {
	forEachPair(t, func(t *testing.T, parent, worker Conn) {
		const senders, each = 8, 200
		var wg sync.WaitGroup
		for s := range senders {
			wg.Go(func() {
				for range each {
					body := bytes.Repeat([]byte{byte(s)}, 1000*s)
					if err := worker.Send(wire.Append(nil, wire.Result, uint64(s), body), nil, Soon); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for range senders * each {
			f, err := Recv(parent)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(f.Body, bytes.Repeat([]byte{byte(f.ID)}, 1000*int(f.ID))) {
				t.Fatalf("sender %d: frame is mixed with another", f.ID)
			}
		}
		wg.Wait()
	})
}

func TestPeerCloses(t *testing.T) {
	forEachPair(t, func(t *testing.T, parent, worker Conn) {
		sent := make(chan error, 1)
		go func() {
			sent <- worker.Send(wire.Append(nil, wire.Started, 3, nil), nil, Soon)
			worker.Close()
		}()
		if f, err := Recv(parent); err != nil || f.ID != 3 {
			t.Fatalf("got id %d, error %v, want the frame sent before the end", f.ID, err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := Recv(parent); err != io.EOF {
				t.Errorf("after the peer closed: %v, want EOF", err)
			}
		}
	})
}

func TestCloseWakesRecv(t *testing.T) {
	forEachPair(t, func(t *testing.T, parent, worker Conn) {
		got := make(chan error, 1)
		go func() { // ends when the connection is closed, here or by forEachPair
			_, err := Recv(parent)
			got <- err
		}()
		parent.Close()
		if err := <-got; err == nil {
			t.Error("Recv returned no error")
		}
	})
}

// A Send that waits for the peer to read is ended by Close.
func TestCloseWakesSend(t *testing.T) {
	forEachPair(t, func(t *testing.T, parent, worker Conn) {
		got := make(chan error, 1)
		go func() { // ends when the connection is closed, here or by forEachPair
			got <- parent.Send(wire.Append(nil, wire.Calls, 1, make([]byte, 8<<20)), nil, Now)
		}()
		for more := false; !more; { // it has begun
			var err error
			if more, err = worker.Poll(0, 1); err == nil && !more {
				err = worker.Wait(0)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		parent.Close()
		if err := <-got; err == nil {
			t.Error("Send returned no error")
		}
	})
}

// A Send that must not wait does not, and sends nothing then.
func TestTry(t *testing.T) {
	forEachPair(t, func(t *testing.T, parent, worker Conn) {
		frame := wire.Append(nil, wire.Calls, 1, make([]byte, 1000))
		sent := 0
		for ; ; sent++ {
			err := parent.Send(frame, nil, Try)
			if errors.Is(err, ErrFull) {
				break
			}
			if err != nil || sent > 1<<20 {
				t.Fatalf("after %d frames: %v", sent, err)
			}
		}
		go worker.Close()
		parent.Close()
	})
}

func TestOpenRefuses(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("this system has no inherited sockets")
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(f.Fd(), 1); err == nil {
		t.Error("Open took a plain file for a socket")
	}
	f.Close()
	if _, err := Open(1<<20, 1); err == nil {
		t.Error("Open took a descriptor that is not open")
	}
}

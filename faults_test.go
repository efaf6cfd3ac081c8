package multiproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// silent reads and says nothing.
func silent(_ int, conn transport.Conn) {
	for {
		if _, err := transport.Recv(conn); err != nil {
			return
		}
	}
}

// dying is a worker's end of a connection that breaks after so many frames, but not
// before the worker has started a call.
type dying struct {
	transport.Conn
	mu   sync.Mutex
	sent int
	left int // frames to be sent or received before that
}

// breaks counts frames and reports whether the end has come.
func (d *dying) breaks(sent int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left--
	if d.sent += sent; d.sent <= 2 || d.left > 0 { // two: hello and the first start
		return false
	}
	d.Conn.Close()
	return true
}

func (d *dying) Send(frames []byte, tail wire.Tail, how transport.How) error {
	if d.breaks(1) {
		return io.ErrClosedPipe
	}
	return d.Conn.Send(frames, tail, how)
}

func (d *dying) Next(f *wire.Frame) (bool, error) {
	ok, err := d.Conn.Next(f)
	if ok && d.breaks(0) {
		return false, io.EOF
	}
	return ok, err
}

// started is the word that the call has begun.
func started(id uint64) []byte { return wire.Append(nil, wire.Started, id, nil) }

// script is a worker that answers the first call that it is sent with these frames.
func script(frames ...[]byte) func(n int, conn transport.Conn) {
	return func(n int, conn transport.Conn) {
		if sayHello(conn) != nil {
			return
		}
		if n > 1 {
			serveSim(conn)
			return
		}
		for {
			f, err := transport.Recv(conn)
			if err != nil {
				return
			}
			if f.Kind == wire.Calls {
				if conn.Send(slices.Concat(frames...), nil, transport.Now) != nil {
					return
				}
			}
		}
	}
}

// always is a worker that answers each call with what say returns, and pings.
func always(say func(id uint64) []byte) func(n int, conn transport.Conn) {
	return func(_ int, conn transport.Conn) {
		sayHello(conn)
		for {
			f, err := transport.Recv(conn)
			if err != nil {
				return
			}
			switch f.Kind {
			case wire.Calls:
				conn.Send(say(f.ID), nil, transport.Now)
			case wire.Ping:
				conn.Send(wire.Append(nil, wire.Pong, 0, nil), nil, transport.Now)
			}
		}
	}
}

// exceededNow says of a call that it has begun and exceeded its CPU time.
func exceededNow(id uint64) []byte {
	return append(started(id), wire.Append(nil, wire.Exceeded, id, wire.AppendNumber(nil, exceededCPU))...)
}

// TestHostileWorker has a worker say what it must not: the call that it was running
// fails, others are run by another worker, and nobody hangs.
func TestHostileWorker(t *testing.T) {
	started := wire.Append(nil, wire.Started, 1, nil)
	result := wire.Append(nil, wire.Result, 1, append(wire.AppendRan(nil, 0), 0x05))
	for name, c := range map[string]struct {
		frames [][]byte
		says   string // of the first call; "": it is run by another worker
	}{
		"answer without a start":     {[][]byte{result}, ""},
		"two starts":                 {[][]byte{started, started}, "protocol error: call 1 started while call 1 runs"},
		"two answers":                {[][]byte{started, result, result}, "= 5"},
		"start of an unknown call":   {[][]byte{wire.Append(nil, wire.Started, 77, nil)}, ""},
		"start of no call":           {[][]byte{wire.Append(nil, wire.Started, 0, nil)}, ""},
		"answer to an unknown call":  {[][]byte{started, wire.Append(nil, wire.Result, 1<<63, append(wire.AppendRan(nil, 0), 0x05))}, "protocol error: answer to call 9223372036854775808, which does not run"},
		"result that is cut short":   {[][]byte{started, wire.Append(nil, wire.Result, 1, []byte{1, 2})}, "protocol error"},
		"result of another type":     {[][]byte{started, wire.Append(nil, wire.Result, 1, append(wire.AppendRan(nil, 0), 0x61, 'x'))}, "cannot be carried between processes: decode result"},
		"no failure in a failure":    {[][]byte{started, wire.Append(nil, wire.Failed, 1, append(wire.AppendRan(nil, 0), 0xff))}, "decode failure"},
		"time that is negative":      {[][]byte{started, wire.Append(nil, wire.Result, 1, append(slices.Repeat([]byte{0xff}, 8), 0x05))}, "protocol error"},
		"return of what runs":        {[][]byte{started, wire.Append(nil, wire.Returned, 1, wire.AppendNumber(nil, 1)), result}, "= 5"},
		"return of what is unknown":  {[][]byte{wire.Append(nil, wire.Returned, 500, wire.AppendNumber(nil, 1<<30)), started, result}, "= 5"},
		"return without a number":    {[][]byte{wire.Append(nil, wire.Returned, 1, nil)}, ""},
		"second hello":               {[][]byte{wire.Append(nil, wire.Hello, 0, nil)}, ""},
		"frame for workers":          {[][]byte{started, wire.Append(nil, wire.Stop, 0, wire.AppendNumber(nil, 0))}, "protocol error: unexpected stop frame"},
		"frame of an unknown kind":   {[][]byte{started, []byte("garbage garbage garbage")}, "protocol error: frame of unknown kind"},
		"frame that is far too long": {[][]byte{started, {5, 0}, slices.Repeat([]byte{0xff}, 6), make([]byte, 8)}, "protocol error"},
		"short result of no call":    {[][]byte{{0xff, 1, 5}}, ""},
		"next of no call":            {[][]byte{started, {0xff, 1, 5}}, "= 5"},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, PoolConfig{Workers: 1}, func(t *testing.T, s *sim) {
				s.worker = script(c.frames...)
				first := simCall.Go(t.Context(), s.pool, s.task(3, 0))
				synctest.Wait()
				second := simCall.Go(t.Context(), s.pool, s.task(4, 0))
				out, err := first.Wait(t.Context())
				switch {
				case c.says == "= 5":
					if out != 5 || err != nil {
						t.Errorf("got %d, %v, want what the worker said", out, err)
					}
				case c.says == "":
					if out != 9 || err != nil {
						t.Errorf("got %d, %v, want the result of another worker", out, err)
					}
				case err == nil || !strings.Contains(err.Error(), c.says):
					t.Errorf("got %v, want %q", err, c.says)
				case strings.HasPrefix(c.says, "protocol error"):
					if _, ok := errors.AsType[*CrashError](err); !ok {
						t.Errorf("got %T, want a *CrashError", err)
					}
				}
				synctest.Wait()
				if len(s.started()) == 1 { // the worker has not given itself away, and knows no more frames
					second.Cancel()
					s.pool.Kill()
					s.pool = NewPool(PoolConfig{})
					return
				}
				if out, err := second.Wait(t.Context()); out != 16 || err != nil {
					t.Errorf("the call behind: got %d, %v", out, err)
				}
			})
		})
	}
}

// TestWorkerKeepsCalls has a worker give no call back: it is not asked again and again.
func TestWorkerKeepsCalls(t *testing.T) {
	simulate(t, PoolConfig{Workers: 2, KillGrace: time.Second}, func(t *testing.T, s *sim) {
		recalls := 0
		s.worker = func(n int, conn transport.Conn) {
			if sayHello(conn) != nil {
				return
			}
			if n > 1 {
				serveSim(conn)
				return
			}
			for {
				f, err := transport.Recv(conn)
				if err != nil {
					return
				}
				switch f.Kind {
				case wire.Calls:
					conn.Send(started(f.ID), nil, transport.Now)
				case wire.Ping:
					conn.Send(wire.Append(nil, wire.Pong, 0, nil), nil, transport.Now)
				case wire.Recall:
					if recalls++; recalls == 100 {
						t.Error("the worker was asked 100 times")
						return
					}
					conn.Send(wire.Append(nil, wire.Returned, 0, wire.AppendNumber(nil, 0)), nil, transport.Now)
				}
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := simCall.Map(ctx, s.pool, s.tasks(20, time.Second), WithBatch(20), CollectErrors())
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(s.began) != time.Minute {
			t.Errorf("got %v after %v", err, time.Since(s.began))
		}
		if recalls == 0 {
			t.Error("the worker was not asked")
		}
		time.Sleep(2 * time.Second) // sleep: the clock is that of synctest. The worker is killed as it does not give up the calls
	})
}

// TestHostileParent has a parent say what it must not: the worker ends.
func TestHostileParent(t *testing.T) {
	for name, frame := range map[string][]byte{
		"hello":                   wire.Append(nil, wire.Hello, 0, nil),
		"result":                  wire.Append(nil, wire.Result, 1, nil),
		"recall without a number": wire.Append(nil, wire.Recall, 0, nil),
		"cancel without a number": wire.Append(nil, wire.Cancel, 1, nil),
		"stop without a number":   wire.Append(nil, wire.Stop, 0, nil),
		"call without a name":     wire.Append(nil, wire.Calls, 1, nil),
		"call that is cut short":  wire.Append(nil, wire.Calls, 1, append(wire.AppendHead(nil, "f", "", 0), 9, 0, 0, 0, 0x05)),
		"call without a key":      wire.Append(nil, wire.Calls, 1, []byte("\x01f")),
		"call without a number":   wire.Append(nil, wire.Calls, 1, []byte("\x01f\x01k")),
		"key that is cut short":   wire.Append(nil, wire.Calls, 1, []byte("\x01f\x09k")),
		"key that is too long":    wire.Append(nil, wire.Calls, 1, wire.AppendHead(nil, "f", strings.Repeat("k", wire.MaxKey+1), 0)),
		"large call without head": wire.Append(nil, wire.Call, 1, []byte("\x01f\x01k")),
		"number that is too long": wire.Append(nil, wire.Calls, 1, append([]byte("\x01f\x01k"), slices.Repeat([]byte{0xff}, 11)...)),
		"garbage":                 []byte("garbage garbage garbage"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				parent, worker := transport.Pipe()
				defer parent.Close()
				go parent.Send(frame, nil, transport.Now)
				if code, ok := serveSim(worker); ok {
					t.Errorf("the worker takes it for an order to end with %d", code)
				}
				worker.Close()
			})
		})
	}
}

// TestHarmlessParent has a parent speak of calls that are not there.
func TestHarmlessParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, worker := transport.Pipe()
		go func() {
			parent.Send(slices.Concat(
				wire.Append(nil, wire.Cancel, 5, wire.AppendNumber(wire.AppendNumber(nil, 1000), 0)),
				wire.Append(nil, wire.Recall, 0, wire.AppendNumber(nil, 1000)),
				wire.Append(nil, wire.Calls, 1, wire.AppendHead(nil, "no arguments", "", 0)),
				wire.Append(nil, wire.Calls, 2, append(wire.AppendHead(nil, "no such function", "k", 1), 1, 0, 0, 0, 0x05)),
			), nil, transport.Now)
			var kinds []string
			for len(kinds) < 3 {
				f, err := transport.Recv(parent)
				if err != nil {
					t.Error(err)
					return
				}
				kinds = append(kinds, fmt.Sprint(f.Kind, " ", f.ID))
			}
			if want := []string{"returned 0", "started 2", "failed 2"}; !slices.Equal(kinds, want) {
				t.Errorf("the worker says %v, want %v", kinds, want)
			}
			parent.Send(wire.Append(nil, wire.Stop, 0, wire.AppendNumber(nil, 3)), nil, transport.Now)
		}()
		if code, ok := serveSim(worker); code != 3 || !ok {
			t.Errorf("got %d, %t, want the order to end with 3", code, ok)
		}
		worker.Close()
	})
}

// TestAnswerBeforeCall has a worker answer a call whose argument is being encoded: it has
// not been handed the call, so it is not its to answer.
func TestAnswerBeforeCall(t *testing.T) {
	simulate(t, PoolConfig{Workers: 1}, func(t *testing.T, s *sim) {
		encodes := make(chan struct{})
		s.worker = func(n int, conn transport.Conn) {
			if sayHello(conn) != nil {
				return
			}
			if n > 1 {
				serveSim(conn)
				return
			}
			<-encodes
			conn.Send(slices.Concat(
				wire.Append(nil, wire.Started, 1, nil),
				wire.Append(nil, wire.Result, 1, append(wire.AppendRan(nil, 0), 0x05)),
			), nil, transport.Now)
		}
		f := slowlyEncoded.Go(t.Context(), s.pool, slowArg{&sync.Once{}, encodes, 3})
		if out, err := f.Wait(t.Context()); out != 3 || err != nil {
			t.Errorf("got %d, %v, want the result of another worker", out, err)
		}
		if n := len(s.started()); n != 2 {
			t.Errorf("%d workers were started, want the liar replaced", n)
		}
	})
}

// slowArg is a number whose encoding ends when nobody has anything else to do.
type slowArg struct {
	first   *sync.Once
	encodes chan<- struct{} // gets an element when it begins for the first time
	x       int
}

func (a slowArg) MarshalText() ([]byte, error) {
	a.first.Do(func() {
		a.encodes <- struct{}{}
		synctest.Wait()
	})
	return strconv.AppendInt(nil, int64(a.x), 10), nil
}

func (a *slowArg) UnmarshalText(b []byte) (err error) {
	a.x, err = strconv.Atoi(string(b))
	return err
}

var slowlyEncoded = Register("sim.slowlyEncoded", func(_ context.Context, a slowArg) (int, error) { return a.x, nil })

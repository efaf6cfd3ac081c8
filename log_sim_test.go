package multiproc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"testing/synctest"
	"time"

	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// heard is a handler that keeps what it has handled, as text.
type heard struct {
	mu    sync.Mutex
	lines []string
	level slog.Level
	hook  func(line string) // called for each; or nil
}

func (h *heard) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }
func (h *heard) WithAttrs([]slog.Attr) slog.Handler           { panic("not needed") }
func (h *heard) WithGroup(string) slog.Handler                { panic("not needed") }

func (h *heard) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	h.mu.Lock()
	h.lines = append(h.lines, line)
	h.mu.Unlock()
	if h.hook != nil {
		h.hook(line)
	}
	return nil
}

func (h *heard) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.lines)
}

// record is a Log frame.
func record(id uint64, message string) []byte {
	return wire.Append(nil, wire.Log, id, wire.AppendRecord(nil, wire.Attrs{}, slog.NewRecord(time.Time{}, slog.LevelInfo, message, 0)))
}

// answer is a Result frame.
func answer(id uint64, x byte) []byte {
	return wire.Append(nil, wire.Result, id, append(wire.AppendRan(nil, time.Millisecond), x))
}

// TestHandlerContract has the tests of log/slog look at what a handler gets of what is logged
// at the other end of a connection.
func TestHandlerContract(t *testing.T) {
	parent, worker := transport.Pipe()
	defer parent.Close()
	var buf bytes.Buffer
	to := slog.New(slog.NewJSONHandler(&buf, nil))
	done := make(chan error)
	go func() {
		for {
			m, err := transport.Recv(parent)
			if err == nil {
				err = forward(t.Context(), to, &m, CallInfo{Func: "f", Index: 7, PID: 5})
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	err := slogtest.TestHandler(&logHandler{conn: worker}, func() (results []map[string]any) {
		worker.Close()
		if err := <-done; !hungUp(err) {
			t.Error(err)
		}
		for line := range strings.Lines(buf.String()) {
			m := map[string]any{}
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Error(err)
			}
			if got := fmt.Sprint(m["worker"]); got != "map[func:f index:7 pid:5]" {
				t.Errorf("of the worker: got %s", got)
			}
			results = append(results, m)
		}
		return results
	})
	if err != nil {
		t.Error(err)
	}
}

// TestLowestLevel looks for the lowest level of handlers.
func TestLowestLevel(t *testing.T) {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelError, -1000, 1000} {
		if got := lowest(slog.New(&heard{level: level})).Level(); got != level {
			t.Errorf("got %d, want %d", got, level)
		}
	}
	if got := lowest(slog.New(slog.DiscardHandler)).Level(); got < 1000 {
		t.Errorf("a handler that is never enabled: got %d", got)
	}
	if lowest(nil) != nil {
		t.Error("no logger has a level")
	}
}

// TestLogOrder has a handler block: the result before the record is there, that after it is
// not.
func TestLogOrder(t *testing.T) {
	log := &heard{}
	simulate(t, PoolConfig{Workers: 1, Logger: slog.New(log)}, func(t *testing.T, s *sim) {
		release, blocks := make(chan struct{}), make(chan struct{})
		log.hook = func(string) {
			close(blocks)
			<-release
		}
		s.worker = script(started(1), answer(1, 5), started(2), record(2, "on its way"), answer(2, 6))
		next := 0
		for r := range simCall.StreamUnordered(t.Context(), s.pool, slices.Values(s.tasks(2, 0)), WithBatch(2)) {
			if r.Err != nil || r.Index != next || r.Value != 5+next {
				t.Fatalf("got %+v", r)
			}
			if next == 0 {
				<-blocks
				synctest.Wait()
				close(release)
			}
			next++
		}
		if got, want := fmt.Sprint(log.all()), "[on its way worker=[pid=1001 func=sim.call index=1]]"; got != want || next != 2 {
			t.Errorf("after %d results: got %s, want %s", next, got, want)
		}
	})
}

// TestLogOfWhichCall has records come with and without the id of a call.
func TestLogOfWhichCall(t *testing.T) {
	for name, c := range map[string]struct {
		concurrency int
		frames      [][]byte
		want        string // what follows the pid
	}{
		"that runs":                {1, [][]byte{started(1), record(0, "m")}, " func=sim.call"},
		"that runs, by its id":     {1, [][]byte{started(1), record(1, "m")}, " func=sim.call"},
		"before any runs":          {1, [][]byte{record(0, "m"), started(1)}, ""},
		"that has ended":           {1, [][]byte{started(1), answer(1, 9), record(1, "m")}, ""},
		"after it":                 {1, [][]byte{started(1), answer(1, 9), record(0, "m")}, ""},
		"that is not there":        {1, [][]byte{started(1), record(1<<63, "m")}, ""},
		"one of several, not said": {2, [][]byte{started(1), record(0, "m")}, ""},
		"one of several":           {2, [][]byte{started(1), record(1, "m")}, " func=sim.call"},
	} {
		t.Run(name, func(t *testing.T) {
			log := &heard{}
			simulate(t, PoolConfig{Workers: 1, Concurrency: c.concurrency, Logger: slog.New(log)}, func(t *testing.T, s *sim) {
				s.worker = script(c.frames...)
				fut := simCall.Go(t.Context(), s.pool, s.task(3, 0))
				synctest.Wait()
				if got, want := fmt.Sprint(log.all()), "[m worker=[pid=1001"+c.want+"]]"; got != want {
					t.Errorf("got %s, want %s", got, want)
				}
				fut.Cancel()
				s.pool.Kill()
			})
		})
	}
}

// TestLogLevels has records come that nobody wants: they are not handled, and do no harm.
func TestLogLevels(t *testing.T) {
	log := &heard{level: slog.LevelWarn}
	simulate(t, PoolConfig{Workers: 1, Logger: slog.New(log)}, func(t *testing.T, s *sim) {
		s.worker = script(started(1), record(1, "not wanted"), answer(1, 5))
		if out, err := simCall.Call(t.Context(), s.pool, s.task(3, 0)); out != 5 || err != nil {
			t.Errorf("got %d, %v", out, err)
		}
		if got := log.all(); len(got) > 0 {
			t.Errorf("got %v", got)
		}
		s.pool.Kill() // the script knows no more frames
	})
}

// TestHostileLog has workers log what they must not.
func TestHostileLog(t *testing.T) {
	for name, c := range map[string]struct {
		logger *slog.Logger
		frame  []byte
		says   string
	}{
		"without being told to": {nil, record(1, "m"), "protocol error: unexpected log frame"},
		"garbage":               {slog.New(slog.DiscardHandler), wire.Append(nil, wire.Log, 1, []byte("garbage")), "protocol error: log record: frame body is cut short"},
		"nothing":               {slog.New(slog.DiscardHandler), wire.Append(nil, wire.Log, 1, nil), "protocol error: log record: frame body is cut short"},
		"too much":              {slog.New(slog.DiscardHandler), wire.Append(nil, wire.Log, 1, make([]byte, 1<<20)), "protocol error: log record of 1048576 bytes, over the limit of 65536"},
	} {
		t.Run("pool, "+name, func(t *testing.T) {
			simulate(t, PoolConfig{Workers: 1, Logger: c.logger}, func(t *testing.T, s *sim) {
				s.worker = script(started(1), c.frame)
				_, err := simCall.Call(t.Context(), s.pool, s.task(3, 0))
				if crash, ok := errors.AsType[*CrashError](err); !ok || crash.Reason != c.says {
					t.Errorf("got %v, want %s", err, c.says)
				}
			})
		})
		t.Run("process, "+name, func(t *testing.T) {
			simulate(t, PoolConfig{}, func(t *testing.T, s *sim) {
				s.worker = script(started(1), c.frame)
				spares := NewSpares(0, ProcessConfig{Logger: c.logger})
				spares.start = s.start
				p, err := simCall.Start(t.Context(), s.task(3, 0), ProcessConfig{Spares: spares})
				if err != nil {
					t.Fatal(err)
				}
				_, err = p.Wait(t.Context())
				if crash, ok := errors.AsType[*CrashError](err); !ok || crash.Reason != c.says {
					t.Errorf("got %v, want %s", err, c.says)
				}
			})
		})
		t.Run("setup, "+name, func(t *testing.T) {
			simulate(t, PoolConfig{Workers: 1, Logger: c.logger, Setup: simCall.With(simTask{})}, func(t *testing.T, s *sim) {
				s.worker = script(started(0), c.frame)
				err := s.pool.Start(t.Context())
				if want := strings.TrimPrefix(c.says, "protocol error: "); err == nil || !strings.HasSuffix(err.Error(), want) {
					t.Errorf("got %v, want %s", err, want)
				}
			})
		})
	}
}

// TestSpareLogs has a spare log something while it waits: it is still one, and can be used.
// One that says something else is not.
func TestSpareLogs(t *testing.T) {
	for name, c := range map[string]struct {
		says   []byte
		starts int
	}{
		"record":    {record(0, "I wait"), 1},
		"two":       {slices.Concat(record(0, "I wait"), record(77, "I wait")), 1},
		"garbage":   {wire.Append(nil, wire.Log, 0, nil), 2},
		"something": {started(1), 2},
	} {
		t.Run(name, func(t *testing.T) {
			log := &heard{}
			simulate(t, PoolConfig{Workers: 1, Spares: 1, Logger: slog.New(log)}, func(t *testing.T, s *sim) {
				speak := make(chan struct{})
				s.worker = func(n int, conn transport.Conn) {
					if sayHello(conn) != nil {
						return
					}
					if n == 1 {
						go func() {
							<-speak
							conn.Send(c.says, nil, transport.Now)
						}()
					}
					serveSim(conn)
				}
				if err := s.pool.spares.fill(t.Context()); err != nil {
					t.Fatal(err)
				}
				close(speak)
				time.Sleep(time.Second) // sleep: the clock is that of synctest
				if n := len(s.started()); n != c.starts {
					t.Errorf("%d were started, want %d", n, c.starts)
				}
				got := log.all()
				if want := slices.Repeat([]string{"I wait worker=[pid=1001]"}, bytes.Count(c.says, []byte("I wait"))); !slices.Equal(got, want) {
					t.Errorf("got %v, want %v", got, want)
				}
				if out, err := simCall.Call(t.Context(), s.pool, s.task(3, 0)); out != 9 || err != nil {
					t.Errorf("got %d, %v", out, err)
				}
			})
		})
	}
}

// TestProcessLogs has a process log before, during and after its call.
func TestProcessLogs(t *testing.T) {
	log := &heard{}
	simulate(t, PoolConfig{}, func(t *testing.T, s *sim) {
		s.worker = func(_ int, conn transport.Conn) {
			if sayHello(conn) != nil {
				return
			}
			for {
				m, err := transport.Recv(conn)
				switch {
				case err != nil:
					return
				case m.Kind == wire.Calls:
					conn.Send(slices.Concat(started(1), record(1, "during"), record(0, "during"), answer(1, 5)), nil, transport.Now)
				case m.Kind == wire.Stop:
					conn.Send(record(1, "after"), nil, transport.Now)
					return
				}
			}
		}
		spares := NewSpares(0, ProcessConfig{Logger: slog.New(log)})
		spares.start = s.start
		p, err := simCall.Start(t.Context(), s.task(3, 0), ProcessConfig{Spares: spares})
		if err != nil {
			t.Fatal(err)
		}
		if out, err := p.Wait(t.Context()); out != 5 || err != nil {
			t.Errorf("got %d, %v", out, err)
		}
		want := "[during worker=[pid=1001 func=sim.call] during worker=[pid=1001 func=sim.call] after worker=[pid=1001]]"
		if got := fmt.Sprint(log.all()); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

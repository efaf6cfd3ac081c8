package multiproc

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"sort"

	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// logHandler is the handler of a worker's default logger: it sends records to the parent.
type logHandler struct {
	conn  transport.Conn
	level slog.Level
	attrs wire.Attrs
}

// The methods of slog.Handler.
func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	id := uint64(0)
	if c, ok := ctx.Value(callKey{}).(*callContext); ok {
		id = c.id
	}
	if r.PC != 0 {
		r.PC -= textStart
	}
	frame := wire.AppendRecord(wire.Begin(nil, wire.Log, id), h.attrs, r)
	if err := wire.End(frame, 0); err != nil {
		return err
	}
	return h.conn.Send(frame, nil, transport.Now)
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	return &logHandler{h.conn, h.level, h.attrs.With(attrs)}
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return &logHandler{h.conn, h.level, h.attrs.WithGroup(name)}
}

// textStart is a place in the program. Places that records have are sent relative to it, as
// a worker and its parent are one program, but need not lie at the same addresses.
var textStart = reflect.ValueOf(Init).Pointer()

// lowestLevel is the lowest level that a logger is enabled for. To be told that is a search:
// every level above it is taken to be enabled too.
type lowestLevel struct{ *slog.Logger }

// Level implements [slog.Leveler].
func (l lowestLevel) Level() slog.Level {
	const most = 1 << 15 // levels are small numbers
	return slog.Level(sort.Search(2*most, func(i int) bool {
		return l.Enabled(context.Background(), slog.Level(i-most))
	}) - most)
}

// lowest returns a nil interface where there is no logger.
func lowest(l *slog.Logger) slog.Leveler {
	if l == nil {
		return nil
	}
	return lowestLevel{l}
}

func checkLogger(l *slog.Logger) error {
	if l != nil && l.Handler() == nil {
		return fmt.Errorf("%s: it has no handler; make it with slog.New", "Logger")
	}
	return nil
}

// forward hands the record in a Log frame to the handler of a logger. at says which worker
// logged it and in which call, if at.Func is not empty; ctx is that of the call's caller.
func forward(ctx context.Context, to *slog.Logger, m *wire.Frame, at CallInfo) error {
	if to == nil {
		return fmt.Errorf("unexpected %s frame", m.Kind)
	}
	r, err := wire.DecodeRecord(m.Body)
	if err != nil {
		return err
	}
	h := to.Handler()
	if !h.Enabled(ctx, r.Level) {
		return nil
	}
	if r.PC != 0 {
		r.PC += textStart
	}
	attrs := []slog.Attr{slog.Int("pid", at.PID)}
	if at.Func != "" {
		attrs = append(attrs, slog.String("func", at.Func))
	}
	if at.Index >= 0 {
		attrs = append(attrs, slog.Int("index", at.Index))
	}
	r.AddAttrs(slog.GroupAttrs("worker", attrs...))
	h.Handle(ctx, r) // its error goes where a Logger lets it go
	return nil
}

// forwardAll is forward for all frames that have come from a worker that runs no call and has
// nothing else to say.
func forwardAll(to *slog.Logger, l link) error {
	for {
		var m wire.Frame
		ok, err := l.Next(&m)
		switch {
		case !ok || err != nil:
			return err
		case m.Kind != wire.Log:
			return fmt.Errorf("unexpected %s frame", m.Kind)
		}
		if err := forward(context.Background(), to, &m, CallInfo{Index: -1, PID: l.PID()}); err != nil {
			return err
		}
	}
}

// onLog takes a record. The results that came before it are passed on first. w.in.mu is held.
func (w *worker) onLog(m *wire.Frame) error {
	if err := w.pass(); err != nil {
		return err
	}
	ctx, at := context.Background(), CallInfo{Index: -1, PID: w.link.PID()}
	id := m.ID
	if id == 0 && w.p.cfg.Concurrency == 1 {
		id = w.in.running
	}
	var f flying
	w.p.mu.Lock()
	if i := w.find(id); i >= 0 {
		f = w.flight[i]
	}
	w.p.mu.Unlock()
	if f.n > 0 {
		ctx, at = f.e.ctx, f.e.b.Info(f.i+int(id-f.id), at.PID)
	}
	return forward(ctx, w.p.cfg.Logger, m, at)
}

package cluster

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// oddLease is a link of an agent to a job whose lease makes no sense, unless it is said.
type oddLease struct {
	agentLink
	is   []byte
	said outcome
}

func (o *oddLease) life() context.Context { return context.Background() }

func (o *oddLease) lease(context.Context, string) ([]byte, error) {
	if o.is != nil {
		return o.is, nil
	}
	return []byte("nonsense"), nil
}

func (o *oddLease) answer(_ context.Context, job string, data []byte) (err error) {
	o.said, err = decodeOutcome(job, data)
	return err
}

// oneDelivery is a chunk that came once.
type oneDelivery struct {
	delivery
	chunk   []byte
	acked   bool
	again   bool
	dropped string
}

func (d *oneDelivery) data() []byte                 { return d.chunk }
func (d *oneDelivery) task() (string, uint64, bool) { return "me.job", 7, true }
func (d *oneDelivery) ack()                         { d.acked = true }
func (d *oneDelivery) back(time.Duration)           { d.again = true }
func (d *oneDelivery) drop(reason string)           { d.dropped = reason }

// agentWithChunk returns an agent of a job whose lease makes no sense, and a chunk of it that is to come.
func agentWithChunk(t *testing.T) (a *agent, link *oddLease, d *oneDelivery) {
	t.Helper()
	link = &oddLease{}
	a = newAgent(AgentConfig{Name: "a", Logger: slog.New(slog.DiscardHandler), Pool: multiproc.PoolConfig{Workers: 1}}, false)
	t.Cleanup(a.end)
	a.link = link
	data, err := encodeChunk(&chunk{Job: "me.job", ID: 7, Program: "p", Func: "f", Key: "k", N: 1, Args: make([]byte, minArg)})
	if err != nil {
		t.Fatal(err)
	}
	return a, link, &oneDelivery{chunk: data}
}

// TestOddLease has a job that an agent does not understand, such as one of another version: its calls are refused, and do not
// go round for ever.
func TestOddLease(t *testing.T) {
	a, link, d := agentWithChunk(t)
	a.take(d, a.queueUp())
	if d.again || !d.acked || link.said.Chunk != 7 || !strings.Contains(link.said.Refused, "lease") {
		t.Errorf("acknowledged: %t, said: %+v", d.acked, link.said)
	}
}

// TestTakenAtTheEnd has a chunk come in the moment in which the agent ends: its calls are not refused.
func TestTakenAtTheEnd(t *testing.T) {
	link := &oddLease{}
	a := newAgent(AgentConfig{Name: "a", Logger: slog.New(slog.DiscardHandler), Pool: multiproc.PoolConfig{Workers: 1}}, true)
	defer a.end()
	a.link, a.pools = link, nil
	var err error
	if link.is, err = wire.Encode(nil, &lease{Program: Program{Hash: selfProgram}}); err != nil {
		t.Fatal(err)
	}
	data, err := encodeChunk(&chunk{Job: "me.job", ID: 7, Program: selfProgram, Func: "f", Key: "k", N: 1, Args: make([]byte, minArg)})
	if err != nil {
		t.Fatal(err)
	}
	d := &oneDelivery{chunk: data}
	a.take(d, a.queueUp())
	if !d.acked || d.again || !link.said.Returned || link.said.Refused != "" {
		t.Errorf("acknowledged: %t, again: %t, said: %+v", d.acked, d.again, link.said)
	}
}

// TestForgedChunk has a submitter say that a chunk is of a job, or has a number, of others than NATS lets it submit: its answers
// would go to them.
func TestForgedChunk(t *testing.T) {
	for what, c := range map[string]chunk{"job": {Job: "you.job", ID: 7}, "chunk": {Job: "me.job", ID: 8}} {
		link := &oddLease{}
		a := newAgent(AgentConfig{Name: "a", Logger: slog.New(slog.DiscardHandler), Pool: multiproc.PoolConfig{Workers: 1}}, false)
		defer a.end()
		a.link = link
		c.Program, c.Func, c.Key, c.N, c.Args = "p", "f", "k", 1, make([]byte, minArg)
		data, err := encodeChunk(&c)
		if err != nil {
			t.Fatal(err)
		}
		d := &oneDelivery{chunk: data}
		a.take(d, a.queueUp())
		if d.dropped == "" || d.acked || d.again || link.said.Agent != "" {
			t.Errorf("another %s: dropped: %q, acknowledged: %t, said: %+v", what, d.dropped, d.acked, link.said)
		}
	}
}

// TestMoreCallsThanBytes has a small message that says that it has many calls, each of which would be answered.
func TestMoreCallsThanBytes(t *testing.T) {
	for _, c := range []chunk{{N: maxCalls}, {N: 3, Args: make([]byte, 2*minArg)}, {N: maxCalls, Blob: "me.job.b", BlobLen: 100}} {
		c.Job, c.Program, c.Func, c.Key = "me.job", "p", "f", "k"
		data, err := encodeChunk(&c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeChunk(data); err == nil {
			t.Errorf("%d calls in %d bytes: no error", c.N, max(int64(len(c.Args)), c.BlobLen))
		}
	}
}

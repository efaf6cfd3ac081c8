//go:build unix

package cluster

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// shaky is a link on which the first transfers of blobs fail.
type shaky struct {
	*natsLink
	puts, gets atomic.Int32 // how many are still to fail
}

var errShaky = errors.New("the server is away for a moment")

func (s *shaky) putBlob(ctx context.Context, job, name string, data []byte) error {
	if s.puts.Add(-1) >= 0 {
		return errShaky
	}
	return s.natsLink.putBlob(ctx, job, name, data)
}

func (s *shaky) getBlob(ctx context.Context, job, name string, size int64) ([]byte, error) {
	if s.gets.Add(-1) >= 0 {
		return nil, errShaky
	}
	return s.natsLink.getBlob(ctx, job, name, size)
}

// shakyCluster returns a cluster of this machine, and the links of its two sides.
func shakyCluster(t *testing.T) (c *Cluster, submitter, agent *shaky) {
	t.Helper()
	ctx := proctest.Within(t)
	c = newCluster(Config{User: defaultUser, AgentTimeout: time.Minute, Pool: multiproc.PoolConfig{KillGrace: time.Second}})
	var err error
	if c.server, err = embed(); err != nil {
		t.Fatal(err)
	}
	open := func() *shaky {
		l, err := connect(ctx, access{options: []nats.Option{c.server.option()}}, "test", userInbox+"test")
		if err != nil {
			t.Fatal(err)
		}
		l.replicas, l.storage, l.user = 1, jetstream.MemoryStorage, defaultUser
		return &shaky{natsLink: l}
	}
	submitter, agent = open(), open()
	c.link = submitter
	if err := c.start(ctx, lease{Program: Program{Hash: selfProgram}}); err != nil {
		t.Fatal(err)
	}
	c.agent = newAgent(AgentConfig{
		Name: "here", Grace: time.Second, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Pool: multiproc.PoolConfig{Workers: 1},
	}, true)
	c.agent.link = agent
	c.agent.hire = func(job string, p Program, t *terms) (workers, func(), error) {
		return c.agent.hirePool(agent.natsLink, job, p, t)
	}
	if err := c.agent.start(ctx); err != nil {
		t.Fatal(err)
	}
	return c, submitter, agent
}

// awaitNoBlobs waits until no blobs are left.
func awaitNoBlobs(t *testing.T, s *shaky) {
	t.Helper()
	store, err := s.objects(t.Context(), blobsBucket+defaultUser)
	if err != nil {
		t.Fatal(err)
	}
	proctest.Eventually(t, proctest.Patience, "no blob is left", func() bool {
		_, err := store.List(t.Context())
		return errors.Is(err, jetstream.ErrNoObjectsFound)
	})
}

// TestShakyBlobs has each transfer of a large argument and of a large result fail at first.
func TestShakyBlobs(t *testing.T) {
	t.Parallel()
	c, submitter, agent := shakyCluster(t)
	for _, s := range []*shaky{submitter, agent} {
		s.puts.Store(2)
		s.gets.Store(2)
	}
	in := bytes.Repeat([]byte("x"), 3*maxChunk)
	out, err := proctest.Echo.Call(proctest.Within(t), c, in)
	if err != nil || !bytes.Equal(out, in) {
		t.Errorf("got %d bytes, %v", len(out), err)
	}
	awaitNoBlobs(t, submitter)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestCancelledBehindOthers has a call with a large argument be cancelled that no agent takes, as the only slot is in use: it
// is answered all the same, and its argument does not stay.
func TestCancelledBehindOthers(t *testing.T) {
	t.Parallel()
	c, submitter, _ := shakyCluster(t)
	gate := proctest.NewGate(t)
	first := proctest.Do.Go(proctest.Within(t), c, proctest.Task{X: 3, Gate: gate.Path})
	v := gate.Next()
	ctx, cancel := context.WithCancel(proctest.Within(t))
	second := make(chan error, 1)
	go func() { // ends with the call; waited for below
		_, err := proctest.Echo.Map(ctx, c, [][]byte{bytes.Repeat([]byte("x"), 3*maxChunk)})
		second <- err
	}()
	proctest.Eventually(t, proctest.Patience, "both chunks are with the server", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		stored := 0
		for _, ch := range c.chunks {
			if ch.stored {
				stored++
			}
		}
		return stored == 2
	})
	cancel()
	select {
	case err := <-second:
		proctest.WantErr(t, err, context.Canceled)
	case <-proctest.Within(t).Done():
		t.Error("the caller waits for the other call")
	}
	proctest.Eventually(t, proctest.Patience, "the call is answered", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.open == 1
	})
	awaitNoBlobs(t, submitter)
	v.Release()
	if _, err := first.Wait(proctest.Within(t)); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

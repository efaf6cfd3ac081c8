//go:build unix

package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/cluster"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestRestartUnderPermissions has a server with the ready configuration be started again while calls of two users run: they go
// on, though nobody but the operator may make streams and buckets.
func TestRestartUnderPermissions(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, nil)
	g.setup(t, "alice", "bob")
	startAgent(t, cluster.AgentConfig{URL: g.url, TLS: g.tls, Credentials: g.seed["agents"], AllowUnsigned: true, Pool: multiproc.PoolConfig{Workers: 4}})
	gate, log := proctest.NewGate(t), proctest.LogFile(t)
	var programs []*cluster.Cluster
	var running []*multiproc.Future[int]
	var visits []*proctest.Visitor
	for i, user := range []string{"alice", "bob"} {
		c := dial(t, g.config(user))
		programs = append(programs, c)
		running = append(running, proctest.Do.Go(proctest.Within(t), c, proctest.Task{X: i, Gate: gate.Path, Log: log}))
		visits = append(visits, gate.Next())
	}
	g.restart(t)
	g.written(t, "KV_mp-leases", uint64(2*len(programs)))
	g.written(t, "KV_mp-agents", 2)
	for i, c := range programs {
		if out, err := proctest.Square.Call(proctest.Within(t), c, 3); out != 9 || err != nil {
			t.Errorf("program %d, afterwards: got %d, %v", i, out, err)
		}
	}
	for i, fut := range running {
		visits[i].Release()
		if out, err := fut.Wait(proctest.Within(t)); out != i*i || err != nil {
			t.Errorf("program %d, the call that ran: got %d, %v", i, out, err)
		}
	}
	proctest.Want(t, "calls that ran", proctest.Runs(t, log), proctest.Once(2))
}

// written waits until so many messages more have been written to a stream.
func (g *guarded) written(t *testing.T, stream string, more uint64) {
	t.Helper()
	js, err := jetstream.New(g.connect(t, "operator", "_INBOX.setup"))
	if err != nil {
		t.Fatal(err)
	}
	var from uint64
	proctest.Eventually(t, proctest.Patience, stream+" is written to", func() bool {
		s, err := js.Stream(proctest.Within(t), stream)
		if err != nil {
			t.Fatal(err)
		}
		last := s.CachedInfo().State.LastSeq
		if from == 0 {
			from = last
		}
		return last >= from+more
	})
}

// agentsWithout removes lines that have this from the permissions of agents.
func agentsWithout(text string) func(conf string) string {
	return func(conf string) string {
		agents, others, _ := strings.Cut(conf, "# Submits, under her own name.")
		var kept []string
		for line := range strings.Lines(agents) {
			if !strings.Contains(line, text) {
				kept = append(kept, line)
			}
		}
		return strings.Join(kept, "") + "#" + others
	}
}

// TestAgentsLackObjects has agents that may not use the objects of a user: they run what has no need of any, and refuse the rest.
func TestAgentsLackObjects(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, agentsWithout("-blobs-bob"))
	g.setup(t, "bob")
	for _, name := range []string{"one", "two"} {
		startAgent(t, cluster.AgentConfig{URL: g.url, TLS: g.tls, Credentials: g.seed["agents"], Name: name, AllowUnsigned: true, Pool: multiproc.PoolConfig{Workers: 1}})
	}
	bob := dial(t, g.config("bob"))
	for range 2 {
		if out, err := fill.Call(proctest.Within(t), bob, 10); len(out) != 10 || err != nil {
			t.Errorf("a small result: got %d bytes, %v", len(out), err)
		}
		_, err := fill.Call(proctest.Within(t), bob, 1<<20)
		if refused, ok := errors.AsType[*cluster.RefusedError](err); !ok || !strings.Contains(refused.Reason, "mp-blobs-bob") {
			t.Errorf("a large result: got %v", err)
		}
	}
}

// fill returns so many bytes.
var fill = multiproc.Register("cluster_test.fill", func(_ context.Context, n int) ([]byte, error) { return make([]byte, n), nil })

// TestAgentsLackAUser has agents that may not get the programs of one user: they refuse his calls, and go on with those of the
// others.
func TestAgentsLackAUser(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, agentsWithout("-bob"))
	g.setup(t, "alice", "bob")
	startAgent(t, cluster.AgentConfig{URL: g.url, TLS: g.tls, Credentials: g.seed["agents"], AllowUnsigned: true, Pool: multiproc.PoolConfig{Workers: 2}})
	alice, bob := dial(t, g.config("alice")), dial(t, g.config("bob"))
	gate, log := proctest.NewGate(t), proctest.LogFile(t)
	running := proctest.Do.Go(proctest.Within(t), alice, proctest.Task{X: 3, Gate: gate.Path, Log: log})
	v := gate.Next()
	began := time.Now()
	_, err := proctest.Square.Call(proctest.Within(t), bob, 3)
	if refused, ok := errors.AsType[*cluster.RefusedError](err); !ok || !strings.Contains(refused.Reason, "mp-programs-bob") {
		t.Errorf("bob: %v", err)
	}
	t.Logf("refused after %v", time.Since(began))
	v.Release()
	if out, err := running.Wait(proctest.Within(t)); out != 9 || err != nil {
		t.Errorf("alice: got %d, %v", out, err)
	}
	proctest.Want(t, "runs", proctest.Runs(t, log), map[int]int{3: 1})
	large := bytes.Repeat([]byte("large"), 1<<20)
	if back, err := proctest.Echo.Call(proctest.Within(t), alice, large); err != nil || !bytes.Equal(back, large) {
		t.Errorf("alice: %d bytes came back, %v", len(back), err)
	}
}

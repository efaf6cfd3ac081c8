//go:build unix

package cluster

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// TestRefusalsOfSome has an agent that lacks a key and one that does not: the calls run. When the second one has gone, they fail
// with what the first one says.
func TestRefusalsOfSome(t *testing.T) {
	t.Parallel()
	s, c := dialServer(t, Config{})
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	there := func(n int) {
		t.Helper()
		proctest.Eventually(t, proctest.Patience, "as many agents are there as should be", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return len(c.present) == n
		})
	}
	end := runAgent(t, AgentConfig{URL: s.URL(), Name: "good", AllowUnsigned: true, Pool: multiproc.PoolConfig{Workers: 1}})
	there(1)
	runAgent(t, AgentConfig{URL: s.URL(), Name: "bad", Trust: Trust{key.Public(): ""}, Pool: multiproc.PoolConfig{Workers: 4}})
	there(2)
	for i := range 20 {
		if out, err := proctest.Square.Call(proctest.Within(t), c, i); out != i*i || err != nil {
			t.Errorf("call %d: got %d, %v", i, out, err)
		}
	}
	end()
	there(1)
	_, err = proctest.Square.Call(proctest.Within(t), c, 3)
	if refused, ok := errors.AsType[*RefusedError](err); !ok || refused.Agent != "bad" {
		t.Errorf("got %v", err)
	}
}

// TestRefusedByWhom has agents refuse calls of whose being there the news has come, or not.
func TestRefusedByWhom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(Config{AgentTimeout: time.Minute})
		defer c.end()
		var failed error
		began := time.Now()
		here := presence{Platform: here, Slots: 1, Version: wire.Version}
		refuse := func(by string) (again bool) {
			t.Helper()
			c.mu.Lock()
			c.queue, c.queued, failed = nil, 0, nil
			b := multiproc.NewRawBatch(t.Context(), multiproc.RawCalls{Func: "f", Args: [][]byte{nil}, Fail: func(_ int, err error) { failed = err }})
			e := &entry{b: b, left: 1, stop: func() bool { return true }, since: began}
			c.chunks[1] = &sent{span: span{e: e, n: 1}, answered: make([]bool, 1), left: 1}
			c.refused(1, c.chunks[1], &outcome{Agent: by, From: by, Refused: "no"})
			c.mu.Unlock()
			time.Sleep(pause) // sleep: the clock is that of synctest
			synctest.Wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			return len(c.queue) == 1 && failed == nil
		}
		if !refuse("a") {
			t.Errorf("an agent that is not known to be there: %v", failed)
		}
		c.present["a"], c.present["b"], c.present["other"] = here, here, presence{Platform: "plan9-386", Slots: 1}
		if !refuse("a") {
			t.Errorf("one of two: %v", failed)
		}
		if refuse("b") || failed == nil {
			t.Errorf("both: %v", failed)
		}
		c.agentSays("a", nil)
		c.present["c"] = here
		if !refuse("b") {
			t.Errorf("another has come: %v", failed)
		}
		if refuse("c") || failed == nil {
			t.Errorf("both again: %v", failed)
		}
		time.Sleep(refusalTime) // sleep: the clock is that of synctest
		if !refuse("b") {
			t.Errorf("the refusal of the other one was long ago: %v", failed)
		}
	})
}

// TestRefusedThoughOthersAreNot has agents refuse a chunk whose arguments they may not fetch, and answer small ones of the same
// function meanwhile: it goes to each of them, and no further.
func TestRefusedThoughOthersAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(Config{AgentTimeout: time.Minute})
		defer c.end()
		usable := presence{Platform: here, Slots: 1, Version: wire.Version}
		c.present["a"], c.present["b"] = usable, usable
		var failed error
		b := multiproc.NewRawBatch(t.Context(), multiproc.RawCalls{Func: "f", Args: [][]byte{nil}, Fail: func(_ int, err error) { failed = err }})
		s := span{e: &entry{b: b, left: 1, stop: func() bool { return true }, since: time.Now()}, n: 1}
		for _, agent := range []string{"a", "a", "b"} {
			if failed != nil {
				t.Fatalf("before %s has refused: %v", agent, failed)
			}
			c.mu.Lock()
			ch := &sent{span: s, answered: make([]bool, 1), left: 1}
			c.chunks[1] = ch
			c.refused(1, ch, &outcome{Agent: agent, From: agent, Refused: "no"})
			c.mu.Unlock()
			time.Sleep(time.Minute / 10) // sleep: the clock is that of synctest
			c.mu.Lock()
			clear(c.refusals) // as they answer others
			if len(c.queue) > 0 {
				s = c.queue[0]
			}
			c.queue, c.queued = nil, 0
			c.mu.Unlock()
		}
		if refused, ok := errors.AsType[*RefusedError](failed); !ok || refused.Agent != "b" {
			t.Errorf("got %v", failed)
		}
	})
}

// TestRefusedBesideABusyAgent has a call be refused for as long as the agent that runs it is busy: it is not taken to be lost. Another
// one that is cancelled meanwhile is answered at once.
func TestRefusedBesideABusyAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(Config{AgentTimeout: time.Minute})
		defer c.end()
		c.link = &refusing{c: c}
		c.present["bad"], c.present["busy"] = presence{Platform: here, Slots: 1, Version: wire.Version}, presence{Platform: here, Slots: 1, Version: wire.Version}
		c.slots = 2
		c.cost("f").ran = time.Second
		failed := make(chan error, 2)
		ctx, cancel := context.WithCancel(t.Context())
		for _, ctx := range []context.Context{t.Context(), ctx} {
			b := multiproc.NewRawBatch(ctx, multiproc.RawCalls{Func: "f", Args: [][]byte{nil}, Fail: func(_ int, err error) { failed <- err }})
			if err := c.Submit(b); err != nil {
				t.Fatal(err)
			}
		}
		var going sync.WaitGroup
		going.Go(c.send) // ends with c.ctx
		for range 100 {
			time.Sleep(lookEvery) // sleep: the clock is that of synctest
			c.lookForChunks()
		}
		if len(failed) > 0 {
			t.Fatalf("got %v", <-failed)
		}
		for resting := false; !resting; { // all of them
			time.Sleep(pause / 10) // sleep: the clock is that of synctest
			c.mu.Lock()
			resting = len(c.chunks) == 2
			for _, ch := range c.chunks {
				resting = resting && ch.resting
			}
			c.mu.Unlock()
		}
		cancel()
		synctest.Wait()
		if len(failed) != 1 {
			t.Fatal("the call that was cancelled waits until it would be sent again")
		}
		proctest.WantErr(t, <-failed, context.Canceled)
		c.end()
		going.Wait()
	})
}

// refusing is a link to an engine whose only agent with a free slot is one that refuses all.
type refusing struct {
	goneLink
	c *Cluster
}

func (r *refusing) submit(_ string, id uint64, _ []byte, stored func(error)) error {
	time.AfterFunc(time.Millisecond, func() {
		stored(nil)
		data, _ := encodeOutcome(&outcome{Chunk: id, Agent: "bad", From: "bad", Refused: "no"})
		r.c.onOutcome(data)
	})
	return nil
}

func (r *refusing) pending(context.Context, string) (map[uint64]bool, error) { return nil, nil }

func (r *refusing) tell(string, []byte) {}

func (r *refusing) life() context.Context { return context.Background() }

// TestRunsOnAfterNotAfter has a program be signed until a moment at which a job of it is running.
func TestRunsOnAfterNotAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, err := NewKey()
		if err != nil {
			t.Fatal(err)
		}
		p := Program{Hash: strings.Repeat("1", 64), Size: 1, Name: "p", NotAfter: time.Now().Add(time.Hour)}
		p.GOOS, p.GOARCH, _ = strings.Cut(here, "-")
		l := &lease{Version: wire.Version, Program: p, Signed: Sign(p, key)}
		a := newAgent(AgentConfig{Trust: Trust{key.Public(): ""}, Pool: multiproc.PoolConfig{Workers: 1}}, false)
		defer a.end()
		for _, job := range []string{"early", "late"} {
			a.jobOf(job).lease = l
		}
		admitted := func(job string) error {
			began := a.began(job)
			_, err := a.admit(l, "f", began)
			if err == nil {
				a.begins(job, l, began)
			}
			return err
		}
		if err := admitted("early"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour) // sleep: the clock is that of synctest
		if err := admitted("early"); err != nil {
			t.Errorf("the job that began in time: %v", err)
		}
		for _, job := range []string{"late", "unknown"} {
			if _, expired := errors.AsType[*ExpiredError](admitted(job)); !expired {
				t.Errorf("a job that is %s: %v", job, admitted(job))
			}
		}
		other := *l
		other.Program.Hash = strings.Repeat("2", 64)
		other.Signed = Sign(other.Program, key)
		data, err := wire.Encode(nil, &other)
		if err != nil {
			t.Fatal(err)
		}
		a.onLease("early", data)
		l = a.jobs["early"].lease
		if _, expired := errors.AsType[*ExpiredError](admitted("early")); !expired {
			t.Errorf("another program of a job that began in time: %v", admitted("early"))
		}
	})
}

//go:build unix

package cluster

import (
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestDrainGivesBackWhatWaits has an agent be told to end that runs one call while another waits for its slot: that one runs
// on another agent, and the first call goes on.
func TestDrainGivesBackWhatWaits(t *testing.T) {
	t.Parallel()
	s, c := dialServer(t, Config{})
	first, err := startAgent(proctest.Within(t), AgentConfig{
		URL: s.URL(), Name: "first", AllowUnsigned: true, CacheDir: t.TempDir(), Grace: time.Hour, Pool: multiproc.PoolConfig{Workers: 1},
		Logger: slog.New(slog.DiscardHandler),
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	gate := proctest.NewGate(t)
	if _, err := proctest.Square.Map(proctest.Within(t), c, proctest.Numbers(1000)); err != nil { // so that it asks for more than it has slots
		t.Fatal(err)
	}
	running := proctest.Do.Go(proctest.Within(t), c, proctest.Task{X: 3, Gate: gate.Path})
	v := gate.Next()
	waiting := proctest.Square.Go(proctest.Within(t), c, 4)
	proctest.Eventually(t, proctest.Patience, "the agent has both", func() bool {
		first.mu.Lock()
		defer first.mu.Unlock()
		return first.having == 2
	})
	ended := make(chan error, 1)
	go func() { ended <- first.close() }() // ends with the call; waited for below
	runAgent(t, AgentConfig{URL: s.URL(), Name: "second", AllowUnsigned: true, Pool: multiproc.PoolConfig{Workers: 1}})
	if out, err := waiting.Wait(proctest.Within(t)); out != 16 || err != nil {
		t.Errorf("the call that waited: got %d, %v", out, err)
	}
	v.Release()
	if out, err := running.Wait(proctest.Within(t)); out != 9 || err != nil {
		t.Errorf("the call that ran: got %d, %v", out, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestDrainsAreNoPoison has one agent after the other be ended while it runs a call, as when machines are replaced: the call
// runs on the next one at once, and is not blamed.
func TestDrainsAreNoPoison(t *testing.T) {
	t.Parallel()
	s, c := dialServer(t, Config{})
	gate := proctest.NewGate(t)
	fut := proctest.Do.Go(proctest.Within(t), c, proctest.Task{X: 3, Gate: gate.Path})
	const drains = maxDeliveries + maxBegun + 2
	for i := range drains {
		end := runAgent(t, AgentConfig{URL: s.URL(), AllowUnsigned: true, Grace: time.Millisecond, Pool: multiproc.PoolConfig{Workers: 1}})
		v := gate.Next()
		c.mu.Lock()
		for id, ch := range c.chunks {
			if ch.attempt != 0 || len(ch.begun) != 0 || id != uint64(i+1) {
				t.Errorf("after %d drains: chunk %d, attempt %d, begun %v", i, id, ch.attempt, ch.begun)
			}
		}
		c.mu.Unlock()
		if i == drains-1 {
			v.Release()
			if out, err := fut.Wait(proctest.Within(t)); out != 9 || err != nil {
				t.Errorf("got %d, %v", out, err)
			}
		}
		end()
	}
}

// TestDrainIsTold has an agent end while it runs a call: it takes no more, but is there as long as that takes, so that nobody says
// that there is none.
func TestDrainIsTold(t *testing.T) {
	t.Parallel()
	s, c := dialServer(t, Config{AgentTimeout: time.Millisecond})
	gate := proctest.NewGate(t)
	end := runAgent(t, AgentConfig{URL: s.URL(), Name: "the one", AllowUnsigned: true, Grace: time.Hour, Pool: multiproc.PoolConfig{Workers: 1}})
	proctest.Eventually(t, proctest.Patience, "the agent is there", func() bool { return len(c.Agents()) == 1 })
	fut := proctest.Do.Go(proctest.Within(t), c, proctest.Task{X: 3, Gate: gate.Path})
	v := gate.Next()
	var ending sync.WaitGroup
	ending.Go(end) // ends with the call; waited for below
	proctest.Eventually(t, proctest.Patience, "it is about to end", func() bool {
		list := c.Agents()
		return len(list) == 1 && list[0].Name == "the one" && list[0].Leaving && list[0].Usable && list[0].Chunks == 1
	})
	select {
	case <-fut.Done(): // which is wrong
	case <-time.After(agentTTL + 2*lookEvery): // its key would have expired
	}
	v.Release()
	if out, err := fut.Wait(proctest.Within(t)); out != 9 || err != nil {
		t.Errorf("got %d, %v", out, err)
	}
	ending.Wait()
	proctest.Eventually(t, proctest.Patience, "it is gone", func() bool { return len(c.Agents()) == 0 })
}

//go:build unix

package cluster

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// TestStop has a cluster be stopped while one call runs: those that wait, wherever that is, end at once, and that one goes on.
func TestStop(t *testing.T) {
	t.Parallel()
	for where, dial := range map[string]func(t *testing.T) *Cluster{
		"embedded": func(t *testing.T) *Cluster {
			c, err := Dial(proctest.Within(t), Config{Pool: multiproc.PoolConfig{Workers: 1}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		},
		"over a server": func(t *testing.T) *Cluster {
			s, c := dialServer(t, Config{})
			runAgent(t, AgentConfig{URL: s.URL(), AllowUnsigned: true, Pool: multiproc.PoolConfig{Workers: 1}})
			return c
		},
	} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			c := dial(t)
			if _, err := proctest.Square.Map(proctest.Within(t), c, proctest.Numbers(1000)); err != nil { // so that it asks for more than it has slots
				t.Fatal(err)
			}
			gate := proctest.NewGate(t)
			runs := proctest.Do.Go(proctest.Within(t), c, proctest.Task{X: 3, Gate: gate.Path})
			v := gate.Next()
			log := proctest.LogFile(t)
			var wait []*multiproc.Future[int]
			for i := range 20 { // at the agent, with the server, and here
				wait = append(wait, proctest.Do.Go(proctest.Within(t), c, proctest.Task{X: i, Log: log}))
			}
			allStored(t, c, 4)
			stopped := make(chan error, 1)
			go func() { stopped <- c.Stop(proctest.Within(t)) }() // ends with the call; waited for below
			for i, fut := range wait {
				if _, err := fut.Wait(proctest.Within(t)); !errors.Is(err, multiproc.ErrClosed) {
					t.Errorf("call %d, which waited: got %v", i, err)
				}
			}
			if _, err := proctest.Square.Call(proctest.Within(t), c, 3); !errors.Is(err, multiproc.ErrClosed) {
				t.Errorf("a new call: got %v", err)
			}
			select {
			case err := <-stopped:
				t.Errorf("Stop does not wait for the call that runs: %v", err)
			default:
			}
			v.Release()
			if out, err := runs.Wait(proctest.Within(t)); out != 9 || err != nil {
				t.Errorf("the call that ran: got %d, %v", out, err)
			}
			if err := <-stopped; err != nil {
				t.Error(err)
			}
			if ran := proctest.Runs(t, log); len(ran) > 0 {
				t.Errorf("calls that waited have run: %v", ran)
			}
		})
	}
}

// TestStopInsists has Close wait for a call that hangs, and Stop come after it: Close waits no longer either when there is no
// time left.
func TestStopInsists(t *testing.T) {
	t.Parallel()
	c, err := Dial(proctest.Within(t), Config{Pool: multiproc.PoolConfig{Workers: 1, KillGrace: time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	gate := proctest.NewGate(t)
	runs := proctest.Do.Go(proctest.Within(t), c, proctest.Task{X: 3, Gate: gate.Path, Deaf: true})
	v := gate.Next()
	var closing sync.WaitGroup
	closing.Go(func() { c.Close() }) // ends when Stop does; waited for below
	proctest.Eventually(t, proctest.Patience, "Close waits", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.ending
	})
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errEnough)
	if err := c.Stop(ctx); !errors.Is(err, errEnough) {
		t.Errorf("Stop: got %v", err)
	}
	closing.Wait()
	if _, err := runs.Wait(proctest.Within(t)); !errors.Is(err, multiproc.ErrClosed) {
		t.Errorf("the call that ran: got %v", err)
	}
	v.AwaitEnd(t)
}

var errEnough = errors.New("enough")

// TestStopWithoutAgents has nobody be there who could run, or give back, what the server has.
func TestStopWithoutAgents(t *testing.T) {
	t.Parallel()
	_, c := dialServer(t, Config{AgentTimeout: time.Hour, Pool: multiproc.PoolConfig{KillGrace: time.Millisecond}})
	fut := proctest.Square.Go(proctest.Within(t), c, 3)
	allStored(t, c, 1)
	if err := c.Stop(proctest.Within(t)); err != nil {
		t.Error(err)
	}
	if _, err := fut.Wait(proctest.Within(t)); !errors.Is(err, multiproc.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// TestStopIsSaidAgain has every other control message get lost: agents are told again, and begin nothing any more.
func TestStopIsSaidAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const agents, calls = 3, 100
		s, end := newSimulation(t, &scenario{mean: time.Minute}, 1, calls)
		defer s.e.stop()
		defer end()
		s.e.deafness = 0.5
		c := s.submitter()
		for range agents {
			s.join()
		}
		began := time.Now()
		var futures []*multiproc.Future[int]
		for i := range calls {
			futures = append(futures, simulated.Go(t.Context(), c, i))
		}
		<-time.After(30 * time.Second)
		if err := c.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 70*time.Second {
			t.Errorf("it took %v, though calls take a minute", took)
		}
		ran := 0
		for i, fut := range futures {
			out, err := fut.Wait(t.Context())
			switch begun := s.ran[i].Load(); {
			case begun == 1 && out == i+1 && err == nil:
				ran++
			case begun != 0 || !errors.Is(err, multiproc.ErrClosed):
				t.Errorf("call %d was begun %d times: got %d, %v", i, begun, out, err)
			}
		}
		proctest.Want(t, "calls that ran", ran, agents*slotsOfAgent)
		s.leave(c)
	})
}

// TestStoppedBeforeItComes has a chunk come to an agent that has been told that its job has been stopped.
func TestStoppedBeforeItComes(t *testing.T) {
	a, link, d := agentWithChunk(t)
	data, err1 := wire.Encode(nil, &lease{Version: wire.Version})
	stop, err2 := wire.Encode(nil, &control{Stop: true})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	a.onLease("me.job", data)
	a.onControl("me.job", stop)
	a.take(d, a.queueUp())
	if !d.acked || !link.said.Returned {
		t.Errorf("acknowledged: %t, said: %+v", d.acked, link.said)
	}
}

// TestStopBehindOthers has the only slot be taken by a call of somebody else for longer than who stops waits.
func TestStopBehindOthers(t *testing.T) {
	t.Parallel()
	s, theirs := dialServer(t, Config{})
	runAgent(t, AgentConfig{URL: s.URL(), AllowUnsigned: true, Pool: multiproc.PoolConfig{Workers: 1}})
	c, err := Dial(proctest.Within(t), Config{URL: s.URL(), Pool: multiproc.PoolConfig{KillGrace: time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	gate := proctest.NewGate(t)
	runs := proctest.Do.Go(proctest.Within(t), theirs, proctest.Task{X: 3, Gate: gate.Path})
	v := gate.Next()
	waits := proctest.Square.Go(proctest.Within(t), c, 3)
	allStored(t, c, 1)
	if err := c.Stop(proctest.Within(t)); err != nil {
		t.Error(err)
	}
	if _, err := waits.Wait(proctest.Within(t)); !errors.Is(err, multiproc.ErrClosed) {
		t.Errorf("got %v", err)
	}
	v.Release()
	if out, err := runs.Wait(proctest.Within(t)); out != 9 || err != nil {
		t.Errorf("the call of the other: got %d, %v", out, err)
	}
}

// TestStopWaitsForWhatRuns has a call take longer than it takes until what nobody runs is given up.
func TestStopWaitsForWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, end := newSimulation(t, &scenario{mean: time.Hour}, 1, 1)
		defer s.e.stop()
		defer end()
		c := s.submitter()
		s.join()
		fut := simulated.Go(t.Context(), c, 0)
		<-time.After(time.Second)
		if err := c.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if out, err := fut.Wait(t.Context()); out != 1 || err != nil {
			t.Errorf("got %d, %v", out, err)
		}
		s.leave(c)
	})
}

// TestWithdrawnBeforeTheLease has an agent be told of what is not wanted of a job of which it has a chunk, but not yet the news that
// it has a lease.
func TestWithdrawnBeforeTheLease(t *testing.T) {
	a, link, d := agentWithChunk(t)
	cancel, err := wire.Encode(nil, &control{Cancel: []uint64{7, 7}})
	if err != nil {
		t.Fatal(err)
	}
	a.onControl("other.job", cancel)
	if len(a.jobs) > 0 {
		t.Error("it remembers what is said of jobs that it has nothing of")
	}
	a.held[place{"me.job", 6}] = &held{cancel: func(error) { t.Error("another chunk is cancelled") }}
	a.onControl("me.job", cancel)
	a.take(d, a.queueUp())
	if !d.acked || !link.said.Withdrawn {
		t.Errorf("acknowledged: %t, said: %+v", d.acked, link.said)
	}
}

//go:build linux

package cluster_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/cluster"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// agentKilled has two of three agents be killed at random moments.
func agentKilled(s *scene) {
	server := startServer(s.T, cluster.ServerConfig{})
	c := dial(s.T, cluster.Config{URL: server.URL()})
	s.within(cluster.AgentConfig{URL: server.URL(), Pool: workers(1)})
	victims := []*process{s.agent(server.URL(), "first", 2), s.agent(server.URL(), "second", 2)}
	rng := rand.New(rand.NewPCG(s.round, 1))
	first := 20 + rng.IntN(150)
	second := first + 1 + rng.IntN(150)
	s.allRight(s.labour(c, s.works(400), func(ended int) {
		switch ended {
		case first:
			victims[0].kill()
		case second:
			victims[1].kill()
		}
	}))
}

// workerKilled has a call that kills its worker. The others come while one that was there before still runs.
func workerKilled(s *scene) {
	server := startServer(s.T, cluster.ServerConfig{})
	c := dial(s.T, cluster.Config{URL: server.URL()})
	s.within(cluster.AgentConfig{URL: server.URL(), Pool: workers(2)})
	gate := proctest.NewGate(s)
	all := proctest.Tasks(40, proctest.Task{Log: proctest.LogFile(s)})
	all[0].Gate, all[1].End = gate.Path, "signal 9"
	errs := s.do(c, all, func(ended int) {
		if ended == len(all)-1 {
			gate.Open()
		}
	}, multiproc.WithBatch(1))
	s.only(errs, 1, func(err error) bool {
		crash, ok := errors.AsType[*multiproc.CrashError](err)
		return ok && crash.Signal == syscall.SIGKILL
	})
}

// workerHangs has a call that does not end, nor does the process that it has started.
func workerHangs(s *scene) {
	server := startServer(s.T, cluster.ServerConfig{})
	c := dial(s.T, cluster.Config{URL: server.URL()})
	pool := workers(2)
	pool.CallTimeout = time.Second
	s.within(cluster.AgentConfig{URL: server.URL(), Pool: pool})
	all := proctest.Tasks(40, proctest.Task{Log: proctest.LogFile(s)})
	all[1].End = "child 1"
	pid := 0
	s.only(s.do(c, all, nil), 1, func(err error) bool {
		timeout, ok := errors.AsType[*multiproc.TimeoutError](err)
		if ok {
			pid = timeout.PID
		}
		return ok && timeout.Hard && pid > 0
	})
	proctest.Eventually(s, proctest.Patience, "the group of the worker is gone", func() bool { return len(proctest.Group(pid)) == 0 })
}

// submitterKilled has a program be killed whose calls run: they end, and nothing is left of them.
func submitterKilled(s *scene) {
	server := startServer(s.T, cluster.ServerConfig{})
	js := s.operator(server.URL())
	pool := workers(2)
	pool.IdleTimeout = 100 * time.Millisecond
	s.within(cluster.AgentConfig{URL: server.URL(), Pool: pool})
	gate := proctest.NewGate(s)
	all := s.tasks(20, gate)
	for i := range all {
		all[i].Deaf = i%2 == 0
	}
	submitter := s.start(cluster.Part{Submit: &cluster.Submission{URL: server.URL(), Tasks: all}})
	at := gate.Visitors(2)
	submitter.kill()
	for _, v := range at {
		v.AwaitEnd(s)
	}
	proctest.Eventually(s, proctest.Patience, "there are no chunks", func() bool { return left(s, js) == 0 })
	for _, v := range at {
		proctest.Eventually(s, proctest.Patience, "the worker is gone", func() bool { return !proctest.Running(v.PID) })
	}
	s.note(tally{made: len(all), failed: len(all)})
}

// away has an agent be out of reach until others have done its work. Then it answers, too late, and is of use again.
func (s *scene) away(c *cluster.Cluster, url string, leave, back func()) {
	gate := proctest.NewGate(s)
	all := s.tasks(12, gate)
	stop := func() {}
	released := make(chan struct{})
	go func() { // ends when all calls have been at the gate, or the test has failed; waited for below
		defer close(released)
		s.next(gate) // of the one that leaves
		leave()
		stop = s.within(cluster.AgentConfig{URL: url, Name: "near", Pool: workers(2)})
		for range all {
			s.next(gate).Release()
		}
	}()
	s.allRight(s.do(c, all, nil, multiproc.WithBatch(1)))
	<-released
	back()
	gate.Open()
	stop()
	s.allRight(s.labour(c, s.works(20), nil))
}

// agentStopped has the process of an agent be stopped, as a debugger does or a machine that swaps.
func agentStopped(s *scene) {
	server := startServer(s.T, cluster.ServerConfig{})
	c := dial(s.T, cluster.Config{URL: server.URL()})
	far := s.agent(server.URL(), "far", 1)
	s.away(c, server.URL(), func() { far.signal(s, syscall.SIGSTOP) }, func() { far.signal(s, syscall.SIGCONT) })
}

// agentSlow has an agent whose calls take long. It keeps no more than it runs and as many again.
func agentSlow(s *scene) {
	server := startServer(s.T, cluster.ServerConfig{})
	c := dial(s.T, cluster.Config{URL: server.URL()})
	slow := s.agent(server.URL(), "slow", 1)
	gate := proctest.NewGate(s)
	all := s.tasks(60, gate)
	var held atomic.Int32
	stopped := make(chan struct{})
	go func() { // ends when all calls have been at the gate, or the test has failed; waited for below
		defer close(stopped)
		for i := range all {
			v := s.next(gate)
			if parent(v.PID) == slow.Process.Pid {
				held.Add(1)
			} else {
				v.Release()
			}
			if i == 0 { // that of the slow one, as there is no other
				s.within(cluster.AgentConfig{URL: server.URL(), Name: "fast", Pool: workers(2)})
			}
		}
	}()
	s.allRight(s.do(c, all, func(ended int) {
		if ended == len(all)-2 {
			if held.Load() != 1 {
				s.Errorf("%d calls are with the slow agent, want 1", held.Load())
			}
			gate.Open()
		}
	}, multiproc.WithBatch(1)))
	<-stopped
}

// agentPoisoned has a call that kills every agent which runs it.
func agentPoisoned(s *scene) { s.poisoned(60, 17, 5*time.Millisecond, "one", "two") }

// neighboursPoisoned has a single agent that is killed by a call, again and again, while others run that take longer than it lives.
// They are not taken for what kills it.
func neighboursPoisoned(s *scene) { s.poisoned(4, 3, 1500*time.Millisecond, "one") }

// poisoned makes n calls that take so long, of which one kills all agents. Those are started again.
func (s *scene) poisoned(n, bad int, takes time.Duration, names ...string) {
	s.Helper()
	server := startServer(s.T, cluster.ServerConfig{})
	c := dial(s.T, cluster.Config{URL: server.URL()})
	s.ackWait(s.operator(server.URL()), time.Second)
	all := s.works(n)
	for i := range all {
		all[i].For = takes
	}
	all[bad].End = "agent"
	gone := make(chan int)
	over, end := context.WithCancel(context.Background())
	run := func(i int) {
		agent := s.agent(server.URL(), names[i], 2)
		go func() { // ends with the agent, or the row
			<-agent.gone
			select {
			case gone <- i:
			case <-over.Done():
			}
		}()
	}
	for i := range names {
		run(i)
	}
	ended := make(chan map[int]error, 1)
	go func() { // ends when the calls have; waited for below
		ended <- s.labour(c, all, nil, multiproc.WithBatch(1))
	}()
	defer end()
	for {
		select {
		case errs := <-ended:
			s.only(errs, bad, func(err error) bool { return errors.Is(err, cluster.ErrPoison) })
			return
		case i := <-gone:
			run(i)
		}
	}
}

// ackWait sets how long an agent that holds a chunk may be silent.
func (s *scene) ackWait(js jetstream.JetStream, d time.Duration) {
	s.Helper()
	consumer, err := js.Consumer(proctest.Within(s), tasksStream, consumer)
	if err != nil {
		s.Fatal(err)
	}
	cfg := consumer.CachedInfo().Config
	cfg.AckWait = d
	if _, err := js.UpdateConsumer(proctest.Within(s), tasksStream, cfg); err != nil {
		s.Fatal(err)
	}
}

// next is gate.Next, but ends the goroutine if nobody comes.
func (s *scene) next(gate *proctest.Gate) *proctest.Visitor {
	s.Helper()
	v := gate.Next()
	if v.PID == 0 {
		runtime.Goexit()
	}
	return v
}

package cluster

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// restful are workers that count how many of them have been ended.
type restful struct{ ended *atomic.Int64 }

func (r *restful) Submit(*multiproc.Batch) error { return nil }
func (r *restful) Shutdown(context.Context) error {
	r.ended.Add(1)
	return nil
}

// TestIdlePoolsAreFew has jobs come with terms of their own, one after the other: the workers of the last ones stay, and not
// those of all.
func TestIdlePoolsAreFew(t *testing.T) {
	a := newAgent(AgentConfig{AllowUnsigned: true, Pool: multiproc.PoolConfig{Workers: 1}}, false)
	var hired, ended atomic.Int64
	a.hire = func(string, Program, *terms) (workers, func(), error) {
		hired.Add(1)
		return &restful{&ended}, func() {}, nil
	}
	const jobs = 3 * maxIdlePools
	use := func(n int) {
		t.Helper()
		l := &lease{Version: wire.Version, Program: Program{Hash: fmt.Sprintf("%064x", 1), Size: 1, GOOS: runtime.GOOS, GOARCH: runtime.GOARCH, Name: "p"}, Terms: terms{MaxTasks: n}}
		_, done, err := a.poolOf(proctest.Within(t), &chunk{Job: "user.job", Program: l.Program.Hash, Func: "f"}, l)
		if err != nil {
			t.Fatal(err)
		}
		done()
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, p := range a.pools {
			p.used = p.used.Add(-time.Second) // so that the order is certain
		}
	}
	for n := range jobs {
		use(n + 1)
	}
	for n := range maxIdlePools {
		use(jobs - n) // are there still
	}
	a.going.Wait()
	if hired.Load() != jobs || ended.Load() != jobs-maxIdlePools || len(a.pools) != maxIdlePools {
		t.Errorf("%d hired, %d ended, %d there; want %d, %d, %d", hired.Load(), ended.Load(), len(a.pools), jobs, jobs-maxIdlePools, maxIdlePools)
	}
}

// TestRefusalsAreToldOnce has an agent refuse calls of jobs: of each it says so once, and when the reason is another one.
func TestRefusalsAreToldOnce(t *testing.T) {
	a := newAgent(AgentConfig{Pool: multiproc.PoolConfig{Workers: 1}}, false)
	a.jobOf("a")
	a.jobOf("b")
	for i, said := range []struct {
		job, reason string
		want        bool
	}{{"a", "x", true}, {"a", "x", false}, {"b", "x", true}, {"a", "y", true}, {"a", "x", true}, {"unknown", "x", true}} {
		if got := a.refusesFirst(said.job, said.reason); got != said.want {
			t.Errorf("%d, %s because of %s: %t", i, said.job, said.reason, got)
		}
	}
}

// TestUsersShareNoWorkers has two users run one program: what it leaves in a process of the one is not for the other.
func TestUsersShareNoWorkers(t *testing.T) {
	a := newAgent(AgentConfig{AllowUnsigned: true, Pool: multiproc.PoolConfig{Workers: 1}}, false)
	var ended atomic.Int64
	a.hire = func(string, Program, *terms) (workers, func(), error) { return &restful{&ended}, func() {}, nil }
	l := &lease{Version: wire.Version, Program: Program{Hash: fmt.Sprintf("%064x", 1), Size: 1, GOOS: runtime.GOOS, GOARCH: runtime.GOARCH, Name: "p"}}
	of := map[string]workers{}
	for _, job := range []string{"ann.one", "ann.two", "bob.one"} {
		w, done, err := a.poolOf(proctest.Within(t), &chunk{Job: job, Program: l.Program.Hash, Func: "f"}, l)
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		of[job] = w
	}
	if of["ann.one"] != of["ann.two"] || of["ann.one"] == of["bob.one"] {
		t.Errorf("jobs of one user share workers: %t, users do: %t", of["ann.one"] == of["ann.two"], of["ann.one"] == of["bob.one"])
	}
}

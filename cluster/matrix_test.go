//go:build linux

package cluster_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/cluster"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// rows are the faults that a cluster has to survive, and what makes them.
var rows = []struct {
	fault string
	make  func(*scene)
	long  bool // it is made only if MATRIX is set
}{
	{fault: "agent killed", make: agentKilled},
	{fault: "worker killed by its call", make: workerKilled},
	{fault: "worker hangs", make: workerHangs},
	{fault: "submitter killed", make: submitterKilled},
	{fault: "agent stopped, and continued", make: agentStopped},
	{fault: "agent cut off, and found again", make: agentCutOff},
	{fault: "agent in a network that goes down and up", make: agentUnplugged},
	{fault: "agent slow", make: agentSlow},
	{fault: "agent killed by a call, each that gets it", make: agentPoisoned},
	{fault: "agent killed by a call beside others that take long", make: neighboursPoisoned, long: true},
	{fault: "submitter cut off for a moment", make: submitterCutOff},
	{fault: "submitter cut off for longer than its lease", make: submitterCutOffForLong},
	{fault: "server killed, and started again", make: serverKilled},
	{fault: "server killed, and started with nothing", make: serverLost},
	{fault: "leader of three servers killed", make: leaderKilled},
	{fault: "two of three servers killed, and started again", make: twoKilled, long: true},
	{fault: "arguments and results of 3 MB", make: large},
	{fault: "stream of tasks full", make: tasksFull},
	{fault: "stream of results full", make: resultsFull},
	{fault: "600 agents ask at once", make: manyPulls},
	{fault: "chunks of 100 kB, more than a connection takes at once", make: manyBytes},
}

// TestMatrix runs calls during each fault, and checks that every one of them ends once, with its result or the
// error that belongs to the fault. MATRIX says how often each fault is made; if it is set, the outcome is printed as
// a table ("make matrix").
func TestMatrix(t *testing.T) {
	rounds, _ := strconv.Atoi(os.Getenv("MATRIX"))
	cache := t.TempDir()
	tallies := make([]tally, len(rows))
	if rounds > 0 {
		t.Cleanup(func() { printTable(tallies) })
	}
	for i, r := range rows {
		t.Run(r.fault, func(t *testing.T) {
			if r.long && rounds == 0 {
				t.Skip("takes long; it is made if MATRIX is set, as to 1")
			}
			t.Parallel()
			for round := range max(rounds, 1) {
				t.Run(strconv.Itoa(round), func(t *testing.T) {
					s := &scene{T: t, round: uint64(round), heavy: rounds > 0, cache: cache, tally: &tallies[i]}
					t.Cleanup(s.end)
					r.make(s)
				})
			}
		})
	}
}

// A tally says what has become of calls.
type tally struct {
	made   int
	failed int  // with the error that they were to have
	twice  int  // executed more than once; as far as they keep a log
	lost   int  // without an end in the hands of the caller
	wrong  int  // with another result or error, or more than one
	silent bool // they keep no log
}

func printTable(tallies []tally) {
	fmt.Println("\n| Fault | Calls | Failed as they should | Executed more than once | Lost | Wrong |")
	fmt.Println("|---|---:|---:|---:|---:|---:|")
	for i, r := range rows {
		n := tallies[i]
		twice := strconv.Itoa(n.twice)
		if n.silent {
			twice = "not counted"
		}
		fmt.Printf("| %s | %d | %d | %s | %d | %d |\n", r.fault, n.made, n.failed, twice, n.lost, n.wrong)
	}
	fmt.Println()
}

// A scene is where a fault happens.
type scene struct {
	*testing.T
	round  uint64
	heavy  bool   // it may take longer
	cache  string // for agents
	inside string // the network namespace of the next process, or empty
	tally  *tally // of all rounds

	mu    sync.Mutex
	parts []*process
}

// end kills all parts, after what the row has registered to be closed.
func (s *scene) end() {
	for _, p := range s.parts {
		p.kill()
	}
}

// TempDir returns a directory that is removed at the end, when nobody writes to it any more: a server may still be starting.
func (s *scene) TempDir() string {
	s.Helper()
	dir, err := os.MkdirTemp("", "matrix-")
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		proctest.Eventually(s.T, proctest.Patience, dir+" can be removed", func() bool { return os.RemoveAll(dir) == nil })
	})
	return dir
}

// work is what a call of labour does.
type work struct {
	X   int    // the number of the call; its result is X*X
	Log string // file to which it appends a line; see proctest.ReadLog
	For time.Duration
	End string // "agent": it kills its agent
	Pad []byte // makes it large
}

// labour does some work.
var labour = multiproc.Register("cluster.labour", func(ctx context.Context, w work) (int, error) {
	f, err := os.OpenFile(w.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "%d %d\n", w.X, os.Getpid()); err != nil {
		return 0, err
	}
	if w.End == "agent" {
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", os.Getppid()))
		if bytes.Contains(env, []byte(`part {"Agent":`)) { // otherwise it is gone, and somebody else has adopted this process
			syscall.Kill(os.Getppid(), syscall.SIGKILL)
		}
		<-ctx.Done() // until this process has noticed
	}
	select {
	case <-time.After(w.For):
	case <-ctx.Done():
	}
	return w.X * w.X, ctx.Err()
})

// works returns n works of a few milliseconds, numbered from 0.
func (s *scene) works(n int) []work {
	log := proctest.LogFile(s)
	all := make([]work, n)
	for i := range all {
		all[i] = work{X: i, Log: log, For: 5 * time.Millisecond}
	}
	return all
}

// tasks returns n tasks, numbered from 0, that stop at a gate.
func (s *scene) tasks(n int, gate *proctest.Gate) []proctest.Task {
	return proctest.Tasks(n, proctest.Task{Gate: gate.Path, Log: proctest.LogFile(s)})
}

// labour runs works and counts what becomes of them. at is called with how many have ended, after each.
func (s *scene) labour(c multiproc.Executor, all []work, at func(ended int), opts ...multiproc.StreamOption) map[int]error {
	s.Helper()
	return s.count(len(all), all[0].Log, labour.StreamUnordered(proctest.Within(s), c, slices.Values(all), opts...), at)
}

// do is as labour, for tasks.
func (s *scene) do(c multiproc.Executor, all []proctest.Task, at func(ended int), opts ...multiproc.StreamOption) map[int]error {
	s.Helper()
	return s.count(len(all), all[0].Log, proctest.Do.StreamUnordered(proctest.Within(s), c, slices.Values(all), opts...), at)
}

// count counts results and returns errors by the numbers of their calls.
func (s *scene) count(n int, log string, results func(func(multiproc.Result[int]) bool), at func(ended int)) map[int]error {
	s.Helper()
	var now tally
	now.made = n
	errs, ended := map[int]error{}, map[int]bool{}
	for r := range results {
		switch {
		case r.Index < 0:
			s.Errorf("the stream ended: %v", r.Err)
			continue
		case r.Err != nil && !ended[r.Index]:
			errs[r.Index] = r.Err
		case r.Value != r.Index*r.Index || ended[r.Index]:
			s.Errorf("call %d: got %d, %v; ended before: %v", r.Index, r.Value, r.Err, ended[r.Index])
			now.wrong++
		}
		ended[r.Index] = true
		if at != nil {
			at(len(ended))
		}
	}
	now.lost = n - len(ended)
	for _, runs := range proctest.Runs(s, log) {
		if runs > 1 {
			now.twice++
		}
	}
	if now.lost > 0 {
		s.Errorf("%d of %d calls are lost", now.lost, n)
	}
	s.note(now)
	return errs
}

func (s *scene) note(n tally) {
	s.Logf("%d calls, %d executed more than once, %d lost, %d wrong", n.made, n.twice, n.lost, n.wrong)
	s.tally.made += n.made
	s.tally.failed += n.failed
	s.tally.twice += n.twice
	s.tally.lost += n.lost
	s.tally.wrong += n.wrong
	s.tally.silent = s.tally.silent || n.silent
}

// allRight checks that no call has failed.
func (s *scene) allRight(errs map[int]error) {
	s.Helper()
	s.only(errs, -1, nil)
}

// only checks that one call alone has failed, with such an error.
func (s *scene) only(errs map[int]error, index int, such func(error) bool) {
	s.Helper()
	shown := 0
	for i, err := range errs {
		if i == index && such(err) {
			s.tally.failed++
			continue
		}
		s.tally.wrong++
		if shown++; shown <= 3 {
			s.Errorf("call %d: %v", i, err)
		}
	}
	if shown > 0 {
		s.Errorf("%d calls have failed that should not have", shown)
	}
	if index >= 0 && errs[index] == nil {
		s.tally.wrong++
		s.Errorf("call %d has not failed", index)
	}
}

// process is a part of a cluster.
type process struct {
	*exec.Cmd
	line string        // the first that it has printed
	gone chan struct{} // closed when it has ended
}

// kill kills it, and returns when it has ended.
func (p *process) kill() {
	p.Process.Kill()
	<-p.gone
}

// start starts a part, which is killed at the end of the row.
func (s *scene) start(p cluster.Part) *process {
	s.Helper()
	env, err := p.Env()
	if err != nil {
		s.Fatal(err)
	}
	out, stdout, err := os.Pipe() // not that of exec.Cmd, which ends with Wait
	if err != nil {
		s.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(os.Args[0])
	if s.inside != "" {
		cmd = exec.Command("ip", "netns", "exec", s.inside, os.Args[0])
	}
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env), stdout, proctest.Quiet
	in, err := cmd.StdinPipe() // it ends when this process does, however that does
	if err == nil {
		err = cmd.Start()
	}
	stdout.Close()
	if err != nil {
		s.Fatal(err)
	}
	a := &process{Cmd: cmd, gone: make(chan struct{})}
	go func() { // ends with the process; waited for in kill
		defer close(a.gone)
		cmd.Wait()
		in.Close()
	}()
	s.mu.Lock()
	s.parts = append(s.parts, a)
	s.mu.Unlock()
	r := bufio.NewReader(out)
	line, err := r.ReadString('\n')
	a.line = strings.TrimSpace(line)
	if err != nil || strings.Contains(a.line, " ") {
		s.Fatalf("a part of the cluster says %q, %v", line, err)
	}
	return a
}

// agent starts an agent in a process of its own.
func (s *scene) agent(url, name string, workers int) *process {
	s.Helper()
	return s.start(cluster.Part{Agent: &cluster.AgentPart{URL: url, Name: name, CacheDir: s.cache, Workers: workers}})
}

// within runs an agent in this process.
func (s *scene) within(cfg cluster.AgentConfig) (stop func()) {
	cfg.AllowUnsigned, cfg.CacheDir, cfg.Pool.Stderr, cfg.Grace = true, s.cache, proctest.Quiet, time.Second
	return startAgent(s.T, cfg)
}

// workers is the configuration of an agent with so many.
func workers(n int) multiproc.PoolConfig {
	return multiproc.PoolConfig{Workers: n, KillGrace: 200 * time.Millisecond, IdleTimeout: 5 * time.Second}
}

// operator is a connection to the servers as those who run them have it.
func (s *scene) operator(url string) jetstream.JetStream {
	s.Helper()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		s.Fatal(err)
	}
	return js
}

// alter changes the configuration of a stream.
func (s *scene) alter(js jetstream.JetStream, stream string, change func(*jetstream.StreamConfig)) {
	s.Helper()
	found, err := js.Stream(proctest.Within(s), stream)
	if err != nil {
		s.Fatal(err)
	}
	cfg := found.CachedInfo().Config
	change(&cfg)
	if _, err := js.UpdateStream(proctest.Within(s), cfg); err != nil {
		s.Fatal(err)
	}
}

const (
	tasksStream   = "MP_TASKS"
	resultsStream = "MP_RESULTS_default"
)

// left returns how many chunks a server has, -1 if it does not say.
func left(t testing.TB, js jetstream.JetStream) int {
	stream, err := js.Stream(proctest.Within(t), tasksStream)
	if err != nil {
		return -1
	}
	return int(stream.CachedInfo().State.Msgs)
}

// parent returns the process that has started a process, 0 if it has ended.
func parent(pid int) (ppid int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(text), "\nPPid:")
	fmt.Sscan(rest, &ppid)
	return ppid
}

// signal sends a signal.
func (p *process) signal(s *scene, sig syscall.Signal) {
	s.Helper()
	if err := p.Process.Signal(sig); err != nil {
		s.Error(err)
	}
}

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// hurry makes all that takes its time in a cluster take less, in every process of the tests.
func hurry() {
	if os.Getenv("SIM") == "full" { // TestSimulation alone, whose clock is quick
		return
	}
	ackWait, beatEvery, agentTTL, leaseTTL = 2*time.Second, 300*time.Millisecond, 3*time.Second, 4*time.Second
	lookEvery, lookAfter = 200*time.Millisecond, time.Second
}

// part is the role of a process that is a part of a cluster: what it is follows.
const part = "part"

// A Part is a process of a cluster, which a test can kill.
type Part struct {
	Agent  *AgentPart
	Server *ServerConfig
	Submit *Submission
}

// An AgentPart is what tests have agents in processes of their own differ by.
type AgentPart struct {
	URL, Name, CacheDir string
	Workers             int
}

// A Submission has a process submit calls that stop at a gate.
type Submission struct {
	URL   string
	Tasks []proctest.Task
}

// Env returns what the environment of the process has to hold.
func (p Part) Env() (string, error) {
	text, err := json.Marshal(p)
	return roleEnv + "=" + part + " " + string(text), err
}

// Options are those of a connection that notices soon that it is cut.
func Options(ping time.Duration) []nats.Option {
	return []nats.Option{nats.PingInterval(ping), nats.MaxPingsOutstanding(2), nats.IgnoreDiscoveredServers()}
}

// SlowConsumers returns how many connections the server has closed that did not take what it had for them.
func (s *Server) SlowConsumers() int64 { return s.s.NumSlowConsumers() }

// playPart is a part until standard input ends, and returns the exit code.
func playPart(text string) int {
	os.Unsetenv(roleEnv) // workers have none
	multiproc.Init()
	var p Part
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		fmt.Println(err)
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // ends with the test, or this process
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	var err error
	switch {
	case p.Agent != nil:
		fmt.Println("ready")
		err = RunAgent(ctx, AgentConfig{
			URL: p.Agent.URL, Name: p.Agent.Name, CacheDir: p.Agent.CacheDir, AllowUnsigned: true, Logger: slog.New(slog.DiscardHandler),
			Pool: multiproc.PoolConfig{Workers: p.Agent.Workers, KillGrace: 200 * time.Millisecond, Stderr: proctest.Quiet},
		})
	case p.Server != nil:
		var s *Server
		if s, err = StartServer(*p.Server); err == nil {
			fmt.Println(s.URL())
			<-ctx.Done()
			err = s.Close()
		}
	case p.Submit != nil:
		var c *Cluster
		if c, err = Dial(ctx, Config{URL: p.Submit.URL}); err == nil {
			fmt.Println("ready")
			_, err = proctest.Do.Map(ctx, c, p.Submit.Tasks, multiproc.WithBatch(1))
			c.Close()
		}
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

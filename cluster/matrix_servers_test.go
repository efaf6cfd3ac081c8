//go:build linux

package cluster_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed84f35039/multiproc/cluster"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// serverKilled has the server be killed in the midst of calls, and started again with what it has kept.
func serverKilled(s *scene) {
	dir := s.TempDir()
	s.restarted(dir, dir)
}

// serverLost has the server start without what it has kept: streams, programs, all.
func serverLost(s *scene) { s.restarted(s.TempDir(), s.TempDir()) }

func (s *scene) restarted(before, after string) {
	server := s.start(cluster.Part{Server: &cluster.ServerConfig{Listen: "127.0.0.1:0", Dir: before}})
	url := server.line
	c := dial(s.T, cluster.Config{URL: url})
	s.within(cluster.AgentConfig{URL: url, Pool: workers(2)})
	s.allRight(s.labour(c, s.works(300), func(ended int) {
		if ended == 100 {
			server.kill()
			s.start(cluster.Part{Server: &cluster.ServerConfig{Listen: strings.TrimPrefix(url, "nats://"), Dir: after}})
		}
	}))
}

// trio is three servers that are one cluster.
type trio struct {
	s       *scene
	url     string
	configs map[string]*cluster.ServerConfig // by the names of the servers
	servers map[string]*process
}

// three starts three servers.
func (s *scene) three() *trio {
	s.Helper()
	var routes []string
	for range 3 {
		routes = append(routes, "nats://"+s.vacant())
	}
	t := &trio{s: s, configs: map[string]*cluster.ServerConfig{}, servers: map[string]*process{}}
	var urls []string
	for i, route := range routes {
		name := fmt.Sprint("server", i)
		t.configs[name] = &cluster.ServerConfig{
			Listen: s.vacant(), Dir: s.TempDir(), Name: name, ClusterListen: strings.TrimPrefix(route, "nats://"), Routes: routes,
		}
		urls = append(urls, "nats://"+t.configs[name].Listen)
		t.start(name)
	}
	t.url = strings.Join(urls, ",")
	return t
}

func (t *trio) start(name string) {
	t.s.Helper()
	t.servers[name] = t.s.start(cluster.Part{Server: t.configs[name]})
}

// leader returns the name of the server that leads the stream of tasks.
func (t *trio) leader(js jetstream.JetStream) (name string) {
	t.s.Helper()
	proctest.Eventually(t.s, proctest.Patience, "the stream has a leader", func() bool {
		stream, err := js.Stream(proctest.Within(t.s), tasksStream)
		if err != nil {
			return false
		}
		if info := stream.CachedInfo().Cluster; info != nil {
			name = info.Leader
		}
		return name != ""
	})
	return name
}

// vacant returns an address that nobody listens at.
func (s *scene) vacant() string {
	s.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// dialThree connects to three servers when they have elected a leader.
func (t *trio) dial() *cluster.Cluster {
	t.s.Helper()
	return dial(t.s.T, cluster.Config{URL: t.url, Replicas: 3})
}

// leaderKilled has that of three servers be killed which leads the stream of tasks.
func leaderKilled(s *scene) {
	t := s.three()
	c := t.dial()
	s.within(cluster.AgentConfig{URL: t.url, Pool: workers(2)})
	js := s.operator(t.url)
	s.allRight(s.labour(c, s.works(300), func(ended int) {
		if ended == 100 {
			t.servers[t.leader(js)].kill()
		}
	}))
}

// twoKilled has two of three servers be killed. Nothing goes on until they are there again.
func twoKilled(s *scene) {
	t := s.three()
	c := t.dial()
	s.within(cluster.AgentConfig{URL: t.url, Pool: workers(2)})
	js := s.operator(t.url)
	s.allRight(s.labour(c, s.works(300), func(ended int) {
		if ended != 100 {
			return
		}
		t.servers["server0"].kill()
		t.servers["server1"].kill()
		proctest.Eventually(s, proctest.Patience, "nothing is stored any more", func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_, err := js.Publish(ctx, "mp.result.default.nobody", nil)
			return err != nil
		})
		t.start("server0")
		t.start("server1")
	}))
}

//go:build linux

package cluster_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/cluster"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// A proxy is a network between a client and a server that can be cut: then nothing passes any more, and nobody is
// told.
type proxy struct {
	url    string
	server string

	mu   sync.Mutex
	gate sync.Cond // is told when whole or over changes
	cut  bool
	over bool
	ends []net.Conn
}

// proxy returns one to the server of that URL.
func (s *scene) proxy(url string) *proxy {
	s.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.Fatal(err)
	}
	p := &proxy{url: "nats://" + listener.Addr().String(), server: strings.TrimPrefix(url, "nats://")}
	p.gate.L = &p.mu
	var conns sync.WaitGroup
	conns.Go(func() { // ends when the listener is closed; waited for in the cleanup
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { p.serve(client) }) // ends when either end is closed
		}
	})
	s.Cleanup(func() {
		listener.Close()
		p.mu.Lock()
		p.over = true
		for _, conn := range p.ends {
			conn.Close()
		}
		p.mu.Unlock()
		p.gate.Broadcast()
		conns.Wait()
	})
	return p
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	if !p.pass(client) {
		return
	}
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.pass(server) {
		return
	}
	var ways sync.WaitGroup
	ways.Go(func() { p.forward(client, server) })
	ways.Go(func() { p.forward(server, client) })
	ways.Wait() // bounded: both end when one end is closed
}

// pass waits while the network is cut. It reports whether it goes on then, and remembers conn, if it is not nil.
func (p *proxy) pass(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if conn != nil {
		p.ends = append(p.ends, conn)
	}
	for p.cut && !p.over {
		p.gate.Wait()
	}
	return !p.over
}

// forward passes on what comes, and in the end that there is no more.
func (p *proxy) forward(from, to net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if !p.pass(nil) {
			return
		}
		if _, errWrite := to.Write(buf[:n]); err != nil || errWrite != nil {
			from.Close()
			to.Close()
			return
		}
	}
}

// set cuts the network, or heals it.
func (p *proxy) set(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	p.gate.Broadcast()
}

// soon is how often connections look whether they are cut. Less gets into the way of those that connect.
const soon = time.Second

// attentive is the file of a server that notices soon that a client is cut off.
func (s *scene) attentive() string {
	s.Helper()
	return s.config(fmt.Sprintf("ping_interval: %q\nping_max: 2\n", soon))
}

// config writes the configuration of a server into a file and returns its name.
func (s *scene) config(text string) string {
	s.Helper()
	path := s.TempDir() + "/nats.conf"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
	return path
}

// agentCutOff has the network between an agent and the server be cut.
func agentCutOff(s *scene) {
	server := startServer(s.T, cluster.ServerConfig{File: s.attentive()})
	c := dial(s.T, cluster.Config{URL: server.URL()})
	p := s.proxy(server.URL())
	s.within(cluster.AgentConfig{URL: p.url, Name: "far", Pool: workers(1), Options: cluster.Options(soon)})
	s.away(c, server.URL(), func() { p.set(true) }, func() { p.set(false) })
}

// agentUnplugged is agentCutOff with a network of the kernel's.
func agentUnplugged(s *scene) {
	pid := os.Getpid() // so that another run of the tests has other names and addresses
	id := fmt.Sprintf("mp%x", pid&0xffffff)
	address := func(host int) string { return fmt.Sprintf("10.213.%d.%d", pid>>6&0xff, pid&0x3f<<2+host) }
	near, far := address(1), address(2)
	ip := func(args string) error {
		out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
		return nil
	}
	if err := ip("netns add " + id); err != nil {
		s.Log(err)
		s.Skip("needs ip, and the permission to make a network namespace")
	}
	s.Cleanup(func() {
		ip(fmt.Sprintf("link del %sa", id)) // with the namespace it would go some time later
		if err := ip("netns del " + id); err != nil {
			s.Error(err)
		}
	})
	for _, args := range []string{
		"link add %sa type veth peer name %[1]sb netns %[1]s",
		"addr add " + near + "/30 dev %sa",
		"link set %sa up",
		"-n %s addr add " + far + "/30 dev %[1]sb",
		"-n %s link set %[1]sb up",
	} {
		if err := ip(fmt.Sprintf(args, id)); err != nil {
			s.Log(err)
			s.Skip("needs ip, and the permission to make a pair of interfaces")
		}
	}
	server, err := cluster.StartServer(cluster.ServerConfig{Listen: near + ":0", Dir: s.TempDir(), File: s.attentive()})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { server.Close() })
	c := dial(s.T, cluster.Config{URL: server.URL()})
	s.inside = id
	s.agent(server.URL(), "far", 1)
	s.inside = ""
	link := func(state string) {
		if err := ip(fmt.Sprintf("link set %sa %s", id, state)); err != nil {
			s.Error(err)
		}
	}
	s.away(c, server.URL(), func() { link("down") }, func() { link("up") })
}

// submitterCutOff has the network between the submitter and the server be cut while agents run all that they were sent.
func submitterCutOff(s *scene) {
	server := startServer(s.T, cluster.ServerConfig{File: s.attentive()})
	js := s.operator(server.URL())
	p := s.proxy(server.URL())
	c := dial(s.T, cluster.Config{URL: p.url, Options: cluster.Options(soon)})
	s.within(cluster.AgentConfig{URL: server.URL(), Pool: workers(2)})
	s.allRight(s.labour(c, s.works(300), func(ended int) {
		if ended == 100 {
			p.set(true)
			proctest.Eventually(s, proctest.Patience, "the agent has run all that it was sent", func() bool { return left(s, js) == 0 })
			p.set(false)
		}
	}))
}

// submitterCutOffForLong has agents end the calls, as they have to take the submitter for dead.
func submitterCutOffForLong(s *scene) {
	server := startServer(s.T, cluster.ServerConfig{File: s.attentive()})
	p := s.proxy(server.URL())
	c := dial(s.T, cluster.Config{URL: p.url, Options: cluster.Options(soon)})
	s.within(cluster.AgentConfig{URL: server.URL(), Pool: workers(2)})
	gate := proctest.NewGate(s)
	healed := make(chan struct{})
	go func() { // ends when the calls have been ended, or the test has failed; waited for below
		defer close(healed)
		at := []*proctest.Visitor{s.next(gate), s.next(gate)}
		p.set(true)
		for _, v := range at {
			v.AwaitEnd(s)
		}
		gate.Open()
		p.set(false)
	}()
	s.allRight(s.do(c, s.tasks(30, gate), nil, multiproc.WithBatch(1)))
	<-healed
}

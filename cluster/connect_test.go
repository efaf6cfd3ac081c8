//go:build unix

package cluster

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestSilentServers has servers that accept connections and say nothing: who is told to end does not wait for one after the other.
func TestSilentServers(t *testing.T) {
	t.Parallel()
	var urls []string
	accepted := make(chan net.Conn, 4)
	for range cap(accepted) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		urls = append(urls, "nats://"+listener.Addr().String())
		var accept sync.WaitGroup
		accept.Go(func() { // ends with the listener
			if conn, err := listener.Accept(); err == nil {
				accepted <- conn
			}
		})
		defer accept.Wait()
		defer listener.Close()
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { // ends when ctx does; waited for below
		ended <- RunAgent(ctx, AgentConfig{URL: strings.Join(urls, ","), AllowUnsigned: true, CacheDir: t.TempDir()})
	}()
	conn := <-accepted
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-proctest.Within(t).Done():
		t.Error("it waits for the servers")
	}
	conn.Close()
}

// TestDialWithoutInit has a program use a cluster that has not called Init: agents would run its main.
func TestDialWithoutInit(t *testing.T) {
	t.Parallel()
	act(t, "noInit", "nats://127.0.0.1:1").expect(t, "true")
}

// TestFilesThatAreMissing has an agent be given files that are not there: it does not wait for them.
func TestFilesThatAreMissing(t *testing.T) {
	t.Parallel()
	for what, cfg := range map[string]AgentConfig{"Credentials": {Credentials: "/nowhere/creds"}, "certificate": {TLS: TLS{CA: "/nowhere/ca.pem"}}} {
		cfg.URL, cfg.AllowUnsigned, cfg.CacheDir = "nats://127.0.0.1:1", true, t.TempDir()
		if err := RunAgent(proctest.Within(t), cfg); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestNilContexts has contexts that are nil, which is an error and no panic.
func TestNilContexts(t *testing.T) {
	var none context.Context
	_, err := Dial(none, Config{})
	for what, err := range map[string]error{"Dial": err, "RunAgent": RunAgent(none, AgentConfig{URL: "nats://127.0.0.1:1"}), "Setup": Setup(none, SetupConfig{})} {
		if err == nil || !strings.Contains(err.Error(), what+": the context is nil") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestAgentSaysWhatIsWrong has a directory for programs that others may write to: that is an error, and
// not something to wait for.
func TestAgentSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for what, cfg := range map[string]AgentConfig{
		"no server":   {AllowUnsigned: true},
		"no trust":    {URL: "nats://127.0.0.1:1"},
		"bad limit":   {URL: "nats://127.0.0.1:1", AllowUnsigned: true, CacheDir: t.TempDir(), CacheLimit: -1},
		"bad pool":    {URL: "nats://127.0.0.1:1", AllowUnsigned: true, CacheDir: t.TempDir(), Pool: multiproc.PoolConfig{MaxTasks: -1}},
		"bad workers": {URL: "nats://127.0.0.1:1", AllowUnsigned: true, CacheDir: t.TempDir(), Pool: multiproc.PoolConfig{Workers: -1}},
	} {
		if err := RunAgent(proctest.Within(t), cfg); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

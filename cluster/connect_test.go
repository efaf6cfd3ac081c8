//go:build unix

package cluster

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestSilentServer has a server that accepts a connection and says nothing: who is told to end does not wait for it.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { // ends when ctx does; waited for below
		ended <- RunAgent(ctx, AgentConfig{URL: "nats://" + listener.Addr().String(), AllowUnsigned: true, CacheDir: t.TempDir()})
	}()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-proctest.Within(t).Done():
		t.Error("it waits for the server")
	}
	conn.Close()
	listener.Close()
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

//go:build unix

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/cluster"
)

// In a program it stands where this does, in a package-level variable, so that a worker has it too.
var exampleSquare = multiproc.Register("example.square", func(_ context.Context, x int) (int, error) {
	return x * x, nil
})

// Without a URL this machine is the cluster. With one, the calls go to the agents that are connected to the servers there,
// and nothing else changes.
func ExampleDial() {
	multiproc.Init() // first in main: in a worker process it serves calls and never returns
	ctx := context.Background()

	c, err := cluster.Dial(ctx, cluster.Config{}) // or cluster.Config{URL: "nats://10.0.0.1:4222"}
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	fmt.Println(exampleSquare.Map(ctx, c, []int{1, 2, 3}))
	// Output: [1 4 9] <nil>
}

// An agent within a program of one's own does what "multiproc agent" does, until a signal ends it.
func ExampleRunAgent() {
	multiproc.Init()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	trust, err := cluster.ReadTrust("/etc/multiproc/trusted_keys")
	if err != nil {
		fmt.Println(err)
		return
	}
	err = cluster.RunAgent(ctx, cluster.AgentConfig{
		URL:   "nats://10.0.0.1:4222",
		Trust: trust,
		Pool:  multiproc.PoolConfig{Workers: 8, MemoryLimit: 1 << 30},
	})
	if err != nil {
		fmt.Println(err)
	}
}

// A server for those who have none, as "multiproc server" runs it.
func ExampleStartServer() {
	s, err := cluster.StartServer(cluster.ServerConfig{Listen: "10.0.0.1:4222", Dir: "/var/lib/multiproc"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	fmt.Println(s.URL())
}

// Who trusts a key verifies what it has signed.
func ExampleSign() {
	key, err := cluster.NewKey()
	if err != nil {
		fmt.Println(err)
		return
	}
	exe, err := os.Executable()
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := cluster.ReadProgram(exe)
	if err != nil {
		fmt.Println(err)
		return
	}
	signed := cluster.Sign(p, key)

	trust := cluster.Trust{key.Public(): "Ann"}
	verified, err := trust.Verify(signed)
	fmt.Println(verified.Hash == p.Hash, err)

	_, err = cluster.Trust{}.Verify(signed)
	untrusted, ok := errors.AsType[*cluster.UntrustedError](err)
	fmt.Println(ok && untrusted.Key == key.Public())
	// Output:
	// true <nil>
	// true
}

package cluster

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

func TestMain(m *testing.M) {
	hurry()
	if role := os.Getenv(roleEnv); role != "" {
		os.Exit(play(role))
	}
	multiproc.Init()
	// An object store's Put starts this one, which finds its channel in a field that is cleared when the Put ends. If it gets
	// to run only then, it waits for nil forever. No more than that is excused: while a connection is open there is
	// one for each Put, and each ends with the connection.
	os.Exit(proctest.Run(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect")))
}

//go:build unix

package cluster_test

import (
	"context"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/cluster"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

var embedded = proctest.Subject{
	Name: "cluster of this machine",
	Open: func(o proctest.Options) multiproc.Executor {
		c, err := cluster.Dial(context.Background(), cluster.Config{Pool: multiproc.PoolConfig{
			Workers: o.Workers, KillGrace: o.Grace, Retry: o.Retry, Stderr: proctest.Quiet,
		}})
		if err != nil {
			panic(err)
		}
		return c
	},
	Crashes: true, Reuses: true, NoMemory: true, Far: true,
}

func TestCluster(t *testing.T) { proctest.Conformance(t, embedded) }

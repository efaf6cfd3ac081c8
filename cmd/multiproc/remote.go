package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/cluster"
)

// clusterFlags say on which cluster work is done, if it is.
type clusterFlags struct {
	cfg cluster.Config
	key string
}

func (c *clusterFlags) add(f *pflag.FlagSet) {
	accessFlags(f, &c.cfg.URL, &c.cfg.Credentials, &c.cfg.TLS)
	f.Lookup("nats").Usage = "run on the agents of a cluster: " + f.Lookup("nats").Usage
	f.StringVar(&c.cfg.User, "user", "", "under which name to submit, which NATS permissions go by (default \"default\")")
	f.StringVar(&c.key, "key", "", "file with the private key that signs this program for agents (default: the signature\nbeside the program, see multiproc key)")
	f.DurationVar(&c.cfg.AgentTimeout, "agent-timeout", time.Minute, "how long to wait while there is no agent")
}

// local reports whether the work is done on this machine.
func (c *clusterFlags) local() bool { return c.cfg.URL == "" }

// endingTime is how long it may take, beyond the grace, until everything has ended.
const endingTime = 15 * time.Second

// shutdown ends an executor whose calls have ended, or are about to.
func shutdown(ex multiproc.Executor, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), grace+endingTime)
	defer cancel()
	return ex.Shutdown(ctx)
}

// dial returns the cluster. A command that is to end may take the grace for it.
func (c *clusterFlags) dial(ctx context.Context, grace time.Duration) (multiproc.Executor, error) {
	cfg := c.cfg
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	cfg.Pool.KillGrace = grace + time.Second // it is the command that is to be killed, not the worker that waits for it
	if c.key != "" {
		key, err := cluster.ReadKey(c.key)
		if err != nil {
			return nil, err
		}
		cfg.Key = key
	}
	return cluster.Dial(ctx, cfg)
}

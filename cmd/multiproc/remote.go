package main

import (
	"context"
	"errors"
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

// dial returns the cluster.
func (c *clusterFlags) dial(ctx context.Context) (multiproc.Executor, error) {
	cfg := c.cfg
	if c.key != "" {
		key, err := cluster.ReadKey(c.key)
		if err != nil {
			return nil, err
		}
		cfg.Key = key
	}
	return cluster.Dial(ctx, cfg)
}

// ended makes a failure of an error that has ended everything.
func (c *clusterFlags) ended(err error) error {
	f := &failure{code: codeOwn, err: err}
	if errors.Is(err, cluster.ErrNoAgents) {
		f.hint = "start an agent with: multiproc agent --nats " + c.cfg.URL
	}
	return f
}

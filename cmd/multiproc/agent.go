package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed84f35039/multiproc/cluster"
)

const agentHelp = `Run the calls of a cluster on this machine. The programs that make the calls come from the server. An agent runs those
programs alone that a trusted key has signed: see multiproc key.

On SIGINT or SIGTERM the agent takes no more calls, and waits for those that run. Calls that do not end within --grace
are given back, and other agents run them again.`

const agentExample = `  multiproc agent --nats nats://10.0.0.1:4222
  multiproc agent --nats tls://nats.example.org --creds agent.creds --slots 8`

func agentCommand() *cobra.Command {
	var cfg cluster.AgentConfig
	var trust string
	cmd := &cobra.Command{
		Use:     "agent --nats URL",
		Short:   "Run calls that programs of a cluster make",
		Long:    agentHelp,
		Example: agentExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			file, err := trustFile(trust, "--trust")
			if err != nil {
				return err
			}
			cfg.Trust, err = cluster.ReadTrust(file)
			if err != nil && !(errors.Is(err, fs.ErrNotExist) && trust == "") {
				return &failure{codeFailure, err, ""}
			}
			ctx, release := untilSignal(context.Background(), func() {})
			defer release()
			if err := cluster.RunAgent(ctx, cfg); err != nil {
				return &failure{codeFailure, err, "multiproc agent --help tells what there is"}
			}
			return nil
		},
	}
	f := cmd.Flags()
	accessFlags(f, &cfg.URL, &cfg.Credentials, &cfg.TLS)
	f.StringVar(&cfg.Name, "name", "", "name of this agent (default that of the host)")
	f.IntVar(&cfg.Pool.Workers, "slots", 0, "how many calls run at once (default the number of CPUs)")
	f.StringVar(&trust, "trust", "", "file with the keys that are trusted (default "+trustHelp+")")
	f.BoolVar(&cfg.AllowUnsigned, "allow-unsigned", false, "also run programs that nobody has signed: whoever may send calls can run anything as this user")
	f.StringVar(&cfg.CacheDir, "cache", "", "directory for programs (default multiproc/programs in the user's cache directory)")
	f.DurationVar(&cfg.Grace, "grace", 10*time.Second, "how long calls may go on after SIGTERM")
	if err := cmd.MarkFlagRequired("nats"); err != nil {
		panic(err)
	}
	return cmd
}

const serverHelp = `Run a NATS server with JetStream, for those who have none, until SIGINT or SIGTERM. Without --config everybody who
can connect may do everything; see nats-server for what can be in a configuration. Three servers that know each other by
--cluster and --route survive the loss of one.`

const serverExample = `  multiproc server --dir /var/lib/multiproc
  multiproc server --dir /srv/nats --listen 10.0.0.1:4222 --cluster 10.0.0.1:6222 --route nats://10.0.0.2:6222,nats://10.0.0.3:6222`

func serverCommand() *cobra.Command {
	var cfg cluster.ServerConfig
	cmd := &cobra.Command{
		Use:     "server --dir DIR",
		Short:   "Run a NATS server for clusters",
		Long:    serverHelp,
		Example: serverExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := cluster.StartServer(cfg)
			if err != nil {
				return &failure{codeFailure, err, ""}
			}
			ctx, release := untilSignal(context.Background(), func() {})
			defer release()
			fmt.Fprintln(cmd.OutOrStdout(), s.URL())
			<-ctx.Done()
			return s.Close()
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Listen, "listen", "", "address for clients (default 127.0.0.1:4222)")
	f.StringVar(&cfg.Dir, "dir", "", "directory for what the server keeps")
	f.StringVar(&cfg.Name, "name", "", "name of this server (default that of the host)")
	f.StringVar(&cfg.ClusterListen, "cluster", "", "address for the other servers of a cluster")
	f.StringSliceVar(&cfg.Routes, "route", nil, "where the other servers are")
	f.StringVar(&cfg.File, "config", "", "configuration file of nats-server, with users, their permissions and TLS")
	f.BoolVar(&cfg.Debug, "log", false, "log to standard error")
	return cmd
}

const setupHelp = `Make the streams and buckets of a cluster, for users whose NATS permissions do not allow them to. Where permissions do,
programs make what is missing by themselves. What is there already stays as it is.`

const setupExample = `  multiproc setup --nats nats://10.0.0.1:4222 --creds operator.creds --replicas 3 --user alice,bob
  multiproc setup --nats nats://10.0.0.1:4222 --platform linux-amd64,linux-arm64`

func setupCommand() *cobra.Command {
	var cfg cluster.SetupConfig
	cmd := &cobra.Command{
		Use:     "setup --nats URL",
		Short:   "Make the streams and buckets of a cluster",
		Long:    setupHelp,
		Example: setupExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, release := untilSignal(context.Background(), func() {})
			defer release()
			ctx, cancel := context.WithTimeout(ctx, setupTimeout)
			defer cancel()
			if err := cluster.Setup(ctx, cfg); err != nil {
				return &failure{codeFailure, err, ""}
			}
			return nil
		},
	}
	f := cmd.Flags()
	accessFlags(f, &cfg.URL, &cfg.Credentials, &cfg.TLS)
	f.IntVar(&cfg.Replicas, "replicas", 1, "how many servers keep each message; 3 survive the loss of one")
	f.StringSliceVar(&cfg.Users, "user", nil, `who will submit (default "default")`)
	f.StringSliceVar(&cfg.Platforms, "platform", nil, "what agents will run on, such as linux-arm64 (default that of this machine)")
	if err := cmd.MarkFlagRequired("nats"); err != nil {
		panic(err)
	}
	return cmd
}

// setupTimeout is how long the servers may take for all of it.
const setupTimeout = time.Minute

// accessFlags are the flags of those who connect to the servers of a cluster.
func accessFlags(f *pflag.FlagSet, url, credentials *string, tls *cluster.TLS) {
	f.StringVar(url, "nats", "", "where the NATS servers are, as nats://host:port or tls://host:port, several with commas between them")
	f.StringVar(credentials, "creds", "", "file with the credentials of a NATS user: a JWT with its key, or the seed of an NKey")
	f.StringVar(&tls.CA, "tls-ca", "", "file with the certificates of those who sign the servers' (default those of the system)")
	f.StringVar(&tls.Cert, "tls-cert", "", "file with a certificate for servers that want one")
	f.StringVar(&tls.Key, "tls-key", "", "file with its private key")
}

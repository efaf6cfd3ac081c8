package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// SetupConfig configures [Setup].
type SetupConfig struct {
	// URL is where the NATS servers are, such as "nats://10.0.0.1:4222,nats://10.0.0.2:4222". It has to be given.
	URL string

	// Credentials is a file with the credentials of a NATS user who may make streams, as for [Config]. Empty means none.
	Credentials string

	// TLS are files for encrypted connections. The zero value means what the system knows.
	TLS TLS

	// Options are further options of the connection, such as nats.Secure.
	Options []nats.Option

	// Replicas is how many servers keep each message, 1, 3 or 5: 3 survive the loss of one. 0 means 1.
	Replicas int

	// Users are those who will submit, each with a stream and buckets of its own: [Config].User. Empty means
	// the user "default".
	Users []string

	// Platforms are those of agents, such as "linux-arm64". Empty means that of this process.
	Platforms []string
}

// setupTime is how long Setup may take.
const setupTime = time.Minute

// Setup makes the streams and buckets of a cluster, for users whose permissions do not allow them to: where they
// do, [Dial] makes what is missing. What is there already stays as it is. Servers that have no leader yet are given
// until ctx ends, or a minute.
func Setup(ctx context.Context, cfg SetupConfig) error {
	if ctx == nil {
		return errors.New("cluster: Setup: the context is nil; pass context.Background()")
	}
	if len(cfg.Users) == 0 {
		cfg.Users = []string{defaultUser}
	}
	if len(cfg.Platforms) == 0 {
		cfg.Platforms = []string{here}
	}
	errs := []error{checkReplicas(&cfg.Replicas)}
	if cfg.URL == "" {
		errs = append(errs, errors.New("URL is empty; give that of the NATS servers"))
	}
	for _, user := range cfg.Users {
		errs = append(errs, checkName("a user", user))
	}
	for _, platform := range cfg.Platforms {
		if goos, goarch, ok := strings.Cut(platform, "-"); !ok || goos == "" || goarch == "" {
			errs = append(errs, fmt.Errorf("a platform is %q; give GOOS-GOARCH, such as linux-amd64", platform))
		} else {
			errs = append(errs, checkName("a platform", platform))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cluster: SetupConfig: %w", err)
	}
	l, err := connect(ctx, access{cfg.URL, cfg.Credentials, cfg.TLS, cfg.Options}, "multiproc setup", "_INBOX.setup")
	if err != nil {
		return fmt.Errorf("cluster: set up: %w", err)
	}
	defer l.close()
	l.replicas, l.storage = cfg.Replicas, jetstream.FileStorage
	ctx, stop := context.WithTimeout(ctx, setupTime)
	defer stop()
	ctx, cancel := l.guard(ctx)
	defer cancel()
	for _, user := range cfg.Users {
		for _, platform := range cfg.Platforms {
			if err := l.plant(ctx, platform, user); err != nil {
				err = blame(ctx, err)
				if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
					err = fmt.Errorf("the servers do not answer; if they are a cluster, are all of them there, with different names? %w", err)
				}
				return fmt.Errorf("cluster: set up user %s and platform %s: %w", user, platform, err)
			}
		}
	}
	return nil
}

// checkReplicas sets the default of n.
func checkReplicas(n *int) error {
	if *n == 0 {
		*n = 1
	}
	if *n != 1 && *n != 3 && *n != 5 {
		return fmt.Errorf("%s is %d; give 1, 3 or 5, or 0 for 1", "Replicas", *n)
	}
	return nil
}

// maxConsumers is how many may follow a stream at once: an agent each, or a job. Where it is not said, a server allows
// 1,000.
const maxConsumers = 1 << 20

// plantBucket makes a bucket whose keys expire, as the NATS client would, but for maxConsumers. Where the rest is in files it is
// too: a server alone that is started again has what is in files, and not everybody may make buckets.
func plantBucket(ctx context.Context, js jetstream.JetStream, bucket string, ttl time.Duration, replicas int, storage jetstream.StorageType) error {
	s, err := js.CreateStream(ctx, jetstream.StreamConfig{
		Name: "KV_" + bucket, Subjects: []string{"$KV." + bucket + ".>"}, MaxMsgsPerSubject: 1, MaxAge: ttl, Duplicates: ttl,
		AllowMsgTTL: true, SubjectDeleteMarkerTTL: ttl, AllowRollup: true, DenyDelete: true, AllowDirect: true,
		Discard: jetstream.DiscardNew, Storage: storage, Replicas: replicas, MaxConsumers: maxConsumers,
	})
	if err == nil && s.CachedInfo().Config.SubjectDeleteMarkerTTL == 0 {
		err = jetstream.ErrLimitMarkerTTLNotSupported
	}
	return err
}

// plant makes what there is not of the streams and buckets, and the consumer of the platform.
func plant(ctx context.Context, js jetstream.JetStream, replicas int, storage jetstream.StorageType, platform, user string) error {
	streams := []jetstream.StreamConfig{
		{
			Name: tasksStream, Subjects: []string{taskSubject + ">"}, Retention: jetstream.WorkQueuePolicy,
			MaxBytes: tasksMax, MaxAge: taskAge,
		},
		{
			Name: resultsStream + user, Subjects: []string{resultSubject + user + ".>"}, MaxBytes: resultsMax, MaxAge: resultAge, AllowDirect: true,
			MaxConsumers: maxConsumers,
		},
	}
	for _, cfg := range streams {
		cfg.Discard, cfg.Storage, cfg.Replicas = jetstream.DiscardNew, storage, replicas
		_, err := js.Stream(ctx, cfg.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			_, err = js.CreateStream(ctx, cfg)
		}
		if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return fmt.Errorf("stream %s: %w", cfg.Name, err)
		}
	}
	for bucket, ttl := range map[string]time.Duration{agentsBucket: agentTTL, leasesBucket: leaseTTL} {
		_, err := js.KeyValue(ctx, bucket)
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			err = plantBucket(ctx, js, bucket, ttl, replicas, storage)
		}
		if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return fmt.Errorf("bucket %s: %w", bucket, err)
		}
	}
	for bucket, age := range map[string]time.Duration{programsBucket + user: 0, blobsBucket + user: resultAge} {
		_, err := js.ObjectStore(ctx, bucket)
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			_, err = js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: bucket, TTL: age, Storage: storage, Replicas: replicas})
		}
		if err != nil && !errors.Is(err, jetstream.ErrBucketExists) {
			return fmt.Errorf("bucket %s: %w", bucket, err)
		}
	}
	_, err := js.Consumer(ctx, tasksStream, consumerOf(platform))
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		_, err = js.CreateConsumer(ctx, tasksStream, jetstream.ConsumerConfig{
			Durable: consumerOf(platform), FilterSubject: taskSubject + platform + ".>", AckPolicy: jetstream.AckExplicitPolicy,
			AckWait: ackWait, MaxDeliver: -1, MaxAckPending: -1, MaxWaiting: 1 << 16,
		})
	}
	if err != nil && !errors.Is(err, jetstream.ErrConsumerExists) {
		return fmt.Errorf("consumer %s: %w", consumerOf(platform), err)
	}
	return nil
}

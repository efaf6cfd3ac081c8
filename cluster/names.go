package cluster

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// What a cluster is made of on the server. There is one of each for all programs that share
// agents; who must not see each other have NATS accounts of their own.
const (
	tasksStream   = "MP_TASKS"
	resultsStream = "MP_RESULTS"
	programBucket = "mp-programs"
	blobBucket    = "mp-blobs"
	agentBucket   = "mp-agents"
	leaseBucket   = "mp-leases"

	taskSubject    = "mp.task."    // + platform + "." + job
	resultSubject  = "mp.result."  // + job
	controlSubject = "mp.control." // + job
)

// How long things may be silent.
const (
	ackWait    = 20 * time.Second // an agent that holds a chunk
	beatEvery  = 3 * time.Second  // an agent, and a job
	agentTTL   = 10 * time.Second
	leaseTTL   = 15 * time.Second
	resultsAge = 24 * time.Hour
)

// Sizes in bytes.
const (
	maxChunk   = 256 << 10 // of arguments in a message; more goes through the object store
	maxOutcome = 256 << 10 // likewise of answers
	tasksMax   = 1 << 30   // in the stream of tasks
	resultsMax = 4 << 30
)

// here is the platform of this process.
const here = runtime.GOOS + "-" + runtime.GOARCH

// consumer is the name of the consumer that all agents of a platform share.
func consumerOf(platform string) string { return "agents-" + platform }

// plant makes what there is not of the streams, buckets and the consumer of the platform.
func plant(ctx context.Context, js jetstream.JetStream, replicas int, storage jetstream.StorageType, platform string) error {
	_, errTasks := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: tasksStream, Subjects: []string{taskSubject + ">"}, Retention: jetstream.WorkQueuePolicy,
		Discard: jetstream.DiscardNew, MaxBytes: tasksMax, Storage: storage, Replicas: replicas,
	})
	_, errResults := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: resultsStream, Subjects: []string{resultSubject + ">"}, Discard: jetstream.DiscardNew,
		MaxBytes: resultsMax, MaxAge: resultsAge, Storage: storage, Replicas: replicas, AllowDirect: true,
	})
	if err := errors.Join(errTasks, errResults); err != nil {
		return err
	}
	for _, bucket := range []jetstream.KeyValueConfig{
		{Bucket: agentBucket, TTL: agentTTL, LimitMarkerTTL: agentTTL, Storage: jetstream.MemoryStorage, Replicas: replicas},
		{Bucket: leaseBucket, TTL: leaseTTL, LimitMarkerTTL: leaseTTL, Storage: jetstream.MemoryStorage, Replicas: replicas},
	} {
		if _, err := js.CreateOrUpdateKeyValue(ctx, bucket); err != nil {
			return fmt.Errorf("bucket %s: %w", bucket.Bucket, err)
		}
	}
	for bucket, age := range map[string]time.Duration{programBucket: 0, blobBucket: resultsAge} {
		if _, err := js.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: bucket, TTL: age, Storage: storage, Replicas: replicas}); err != nil {
			return fmt.Errorf("bucket %s: %w", bucket, err)
		}
	}
	_, err := js.CreateOrUpdateConsumer(ctx, tasksStream, jetstream.ConsumerConfig{
		Durable: consumerOf(platform), FilterSubject: taskSubject + platform + ".>", AckPolicy: jetstream.AckExplicitPolicy,
		AckWait: ackWait, MaxDeliver: -1, MaxAckPending: -1, MaxWaiting: 1 << 16,
	})
	return err
}

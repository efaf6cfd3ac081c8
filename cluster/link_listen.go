package cluster

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// purgeEvery is how many results stay on the server at most after they have been taken.
const purgeEvery = 1000

// listener takes the results of a job.
type listener struct {
	l       *natsLink
	job     string
	results jetstream.Stream
	puller  *puller // or nil
	next    uint64  // the number of the message after the last that was taken
	taken   int     // since the last purge
}

func (l *natsLink) outcomes(ctx context.Context, job string, take func(data []byte), end func()) error {
	li := &listener{l: l, job: job, next: 1}
	if err := li.open(ctx); err != nil {
		return err
	}
	l.going.Go(func() { // ends with ctx, or the link
		defer end()
		ctx, cancel := l.guard(ctx)
		defer cancel()
		for ctx.Err() == nil {
			if li.puller == nil && li.open(ctx) != nil {
				sleep(ctx, pause)
				continue
			}
			if li.fetch(ctx, take) != nil {
				li.puller.close(func(*nats.Msg) {})
				li.puller = nil // the consumer may be gone; another goes on behind what has been taken
				sleep(ctx, pause)
			}
		}
	})
	return nil
}

// open makes a consumer.
func (li *listener) open(ctx context.Context) (err error) {
	ctx, cancel := li.l.guard(ctx)
	defer cancel()
	if li.results, err = li.l.js.Stream(ctx, resultsStream+userOf(li.job)); err != nil {
		return blame(ctx, err)
	}
	if li.next > li.results.CachedInfo().State.LastSeq+1 { // it is another stream, as the first one was lost
		li.next = 1
	}
	consumer, err := li.results.CreateConsumer(ctx, jetstream.ConsumerConfig{
		FilterSubject: resultSubject + li.job, AckPolicy: jetstream.AckNonePolicy, DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq: li.next, MemoryStorage: true, Replicas: 1, InactiveThreshold: time.Minute,
	})
	if err == nil {
		li.puller, err = newPuller(li.l.nc, resultsStream+userOf(li.job), consumer.CachedInfo().Name)
	}
	return blame(ctx, err)
}

// fetch takes what comes for a while.
func (li *listener) fetch(ctx context.Context, take func(data []byte)) error {
	for range fetchMost {
		if li.puller.left <= fetchMost/2 { // so that nothing has to wait for a request
			if err := li.puller.ask(fetchMost); err != nil {
				return err
			}
		}
		m, err := li.puller.next(ctx)
		if err != nil {
			return err
		}
		if m == nil {
			return nil
		}
		if meta, err := m.Metadata(); err == nil {
			li.next = meta.Sequence.Stream + 1
		}
		take(m.Data)
		if li.taken++; li.taken >= purgeEvery {
			li.taken = 0
			li.results.Purge(ctx, jetstream.WithPurgeSubject(resultSubject+li.job), jetstream.WithPurgeSequence(li.next))
		}
	}
	return nil
}

// sleep waits, but not for longer than ctx lasts.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (l *natsLink) watchAgents(ctx context.Context, say func(id string, data []byte)) {
	l.watch(ctx, agentsBucket, say)
}

func (l *natsLink) watchLeases(ctx context.Context, say func(job string, data []byte)) {
	l.watch(ctx, leasesBucket, say)
}

// watch has say get the values of all keys of a bucket, and nil when one is gone. After a reconnection it begins anew, as
// it may be another bucket then.
func (l *natsLink) watch(ctx context.Context, bucket string, say func(key string, value []byte)) {
	ctx, cancel := l.guard(ctx)
	defer cancel()
	connected := l.nc.StatusChanged(nats.CONNECTED)
	defer l.nc.RemoveStatusListener(connected)
	known := map[string]bool{}
	for ctx.Err() == nil {
		kv, err := l.js.KeyValue(ctx, bucket)
		var watcher jetstream.KeyWatcher
		if err == nil {
			watcher, err = kv.WatchAll(ctx)
		}
		if err != nil {
			sleep(ctx, pause)
			continue
		}
		l.follow(ctx, watcher, connected, known, say)
		watcher.Stop()
	}
}

// follow passes on what a watcher has to say, until it ends or there was a reconnection.
func (l *natsLink) follow(ctx context.Context, watcher jetstream.KeyWatcher, connected <-chan nats.Status, known map[string]bool, say func(string, []byte)) {
	seen := map[string]bool{}
	for {
		select {
		case entry, ok := <-watcher.Updates():
			switch {
			case !ok:
				return
			case entry == nil: // that was all there is
				for key := range known {
					if !seen[key] {
						delete(known, key)
						say(key, nil)
					}
				}
				seen = nil
			case entry.Operation() == jetstream.KeyValuePut:
				known[entry.Key()] = true
				if seen != nil {
					seen[entry.Key()] = true
				}
				say(entry.Key(), entry.Value())
			default:
				delete(known, entry.Key())
				say(entry.Key(), nil)
			}
		case <-connected:
			return
		case <-ctx.Done():
			return
		}
	}
}

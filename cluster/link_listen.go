package cluster

import (
	"context"
	"errors"
	"sync"
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
	taken   int     // since the last purge

	mu       sync.Mutex
	consumer jetstream.Consumer // or nil
	next     uint64             // the number of the message after the last that was taken
	got      uint64             // how many the consumer has delivered, as far as they were taken
	stuck    uint64             // how many it said it had delivered when last there were more, or 0
}

func (l *natsLink) outcomes(ctx context.Context, job string, take func(data []byte), end func()) error {
	li := &listener{l: l, job: job, next: 1}
	consumer, err := li.open(ctx)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.listener = li
	l.mu.Unlock()
	l.going.Go(func() { // ends with ctx, or the link
		defer end()
		ctx, cancel := l.guard(ctx)
		defer cancel()
		for ctx.Err() == nil {
			if consumer == nil {
				if consumer, err = li.open(ctx); err != nil {
					sleep(ctx, pause)
					continue
				}
			}
			if err := li.fetch(ctx, consumer, take); err != nil {
				li.puller.close(nil)
				li.puller, consumer = nil, nil // it may be gone; another goes on behind what has been taken
				if err != errGap {
					sleep(ctx, pause)
				}
			}
		}
	})
	return nil
}

// open makes a consumer.
func (li *listener) open(ctx context.Context) (consumer jetstream.Consumer, err error) {
	ctx, cancel := li.l.guard(ctx)
	defer cancel()
	if li.results, err = li.l.js.Stream(ctx, resultsStream+userOf(li.job)); err != nil {
		return nil, blame(ctx, err)
	}
	li.mu.Lock()
	if li.next > li.results.CachedInfo().State.LastSeq+1 { // it is another stream, as the first one was lost
		li.next = 1
	}
	next := li.next
	li.mu.Unlock()
	consumer, err = li.results.CreateConsumer(ctx, jetstream.ConsumerConfig{
		FilterSubject: resultSubject + li.job, AckPolicy: jetstream.AckNonePolicy, DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq: next, MemoryStorage: true, Replicas: 1, InactiveThreshold: time.Minute,
	})
	if err == nil {
		li.puller, err = newPuller(li.l.nc, resultsStream+userOf(li.job), consumer.CachedInfo().Name, fetchBytes)
	}
	if err != nil {
		return nil, blame(ctx, err)
	}
	li.mu.Lock()
	defer li.mu.Unlock()
	li.consumer, li.got, li.stuck = consumer, 0, 0
	return consumer, nil
}

// errGap is the error where what a consumer has delivered did not all come.
var errGap = errors.New("results got lost on the way")

// fetch takes what comes for a while.
func (li *listener) fetch(ctx context.Context, consumer jetstream.Consumer, take func(data []byte)) error {
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
		li.mu.Lock()
		gap := li.consumer != consumer
		li.mu.Unlock()
		if gap {
			return errGap
		}
		if m == nil {
			if li.taken > 0 { // that no more come may be for want of room
				li.purge(ctx)
			}
			return nil
		}
		meta, err := m.Metadata()
		if err != nil {
			continue
		}
		if meta.Sequence.Consumer != li.got+1 { // only this goroutine changes it
			return errGap
		}
		take(m.Data)
		li.mu.Lock()
		li.next, li.got, li.stuck = meta.Sequence.Stream+1, meta.Sequence.Consumer, 0
		li.mu.Unlock()
		if li.taken++; li.taken >= purgeEvery {
			li.purge(ctx)
		}
	}
	return nil
}

// errBehind is the error while there are results on the way.
var errBehind = errors.New("not all results have been taken")

// behind returns an error unless all results have been taken that the servers had when it was called. If it finds
// again that what was delivered has not come, another consumer is to deliver it.
func (li *listener) behind(ctx context.Context) error {
	li.mu.Lock()
	consumer := li.consumer
	li.mu.Unlock()
	if consumer == nil {
		return errBehind
	}
	info, err := consumer.Info(ctx)
	if err != nil {
		return err
	}
	li.mu.Lock()
	defer li.mu.Unlock()
	sent := info.Delivered.Consumer
	switch {
	case li.consumer != consumer || info.NumPending > 0:
		return errBehind
	case sent <= li.got:
		return nil
	case sent == li.stuck:
		li.consumer = nil
	}
	li.stuck = sent
	return errBehind
}

// purge removes what has been taken.
func (li *listener) purge(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, fetchWait)
	defer cancel()
	if li.results.Purge(ctx, jetstream.WithPurgeSubject(resultSubject+li.job), jetstream.WithPurgeSequence(li.next)) == nil {
		li.taken = 0
	}
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
	l.watch(ctx, agentsBucket, agentTTL, say)
}

func (l *natsLink) watchLeases(ctx context.Context, say func(job string, data []byte)) {
	l.watch(ctx, leasesBucket, leaseTTL, say)
}

// watch has say get the values of all keys of a bucket, and nil when one is gone. After a reconnection it begins anew, as
// it may be another bucket then: for ttl nothing counts as gone, as whoever says that he is there could not, and may be about to.
func (l *natsLink) watch(ctx context.Context, bucket string, ttl time.Duration, say func(key string, value []byte)) {
	ctx, cancel := l.guard(ctx)
	defer cancel()
	connected := l.nc.StatusChanged(nats.CONNECTED)
	defer l.nc.RemoveStatusListener(connected)
	keys := keysSeen{known: map[string]bool{}, gone: map[string]time.Duration{}}
	for ctx.Err() == nil {
		kv, err := l.js.KeyValue(ctx, bucket)
		var watcher jetstream.KeyWatcher
		turn, end := context.WithCancel(ctx)
		if err == nil {
			watcher, err = kv.WatchAll(turn)
		}
		if err != nil {
			end()
			sleep(ctx, pause)
			continue
		}
		keys.follow(ctx, watcher.Updates(), connected, l.nc.IsConnected, say)
		keys.patience = ttl
		if l.nc.IsConnected() { // or nobody answers, and it goes by itself
			watcher.Stop()
		}
		end()
	}
}

// keysSeen are the keys of a bucket, through all reconnections.
type keysSeen struct {
	known    map[string]bool
	gone     map[string]time.Duration // those that are not there, which does not count yet; for how long they could have been
	patience time.Duration            // how long after a reconnection that is so
}

// follow passes on what a watcher has to say, until it ends or there was a reconnection.
func (k *keysSeen) follow(
	ctx context.Context, updates <-chan jetstream.KeyValueEntry, connected <-chan nats.Status, isConnected func() bool, say func(string, []byte),
) {
	began := time.Now()
	seen := map[string]bool{}
	lose := func(key string) {
		if time.Since(began) >= k.patience {
			k.forget(key, say)
		} else if _, already := k.gone[key]; !already {
			k.gone[key] = 0
		}
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case entry, ok := <-updates:
			switch {
			case !ok:
				return
			case entry == nil: // that was all there is
				for key := range k.known {
					if !seen[key] {
						lose(key)
					}
				}
				seen = nil
			case entry.Operation() == jetstream.KeyValuePut:
				k.known[entry.Key()] = true
				delete(k.gone, entry.Key())
				if seen != nil {
					seen[entry.Key()] = true
				}
				say(entry.Key(), entry.Value())
			default:
				lose(entry.Key())
			}
		case <-tick.C:
			if seen != nil || !isConnected() {
				continue
			}
			for key := range k.gone {
				if k.gone[key] += lookEvery; k.gone[key] >= k.patience {
					k.forget(key, say)
				}
			}
		case <-connected:
			return
		case <-ctx.Done():
			return
		}
	}
}

// forget says that a key is gone.
func (k *keysSeen) forget(key string, say func(string, []byte)) {
	delete(k.known, key)
	delete(k.gone, key)
	say(key, nil)
}

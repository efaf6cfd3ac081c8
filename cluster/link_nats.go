package cluster

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsLink is a connection to NATS JetStream.
type natsLink struct {
	nc *nats.Conn
	js jetstream.JetStream

	ctx   context.Context // ends with the link, or with a *PermissionError
	end   context.CancelCauseFunc
	going sync.WaitGroup
	acks  chan pendingAck

	mu     sync.Mutex
	since  time.Time                        // when it was connected last
	users  map[*user]bool                   // of buckets of objects, at the moment
	stores map[string]jetstream.ObjectStore // by the names of their buckets

	// Of submitters.
	sent     jetstream.Stream
	listener *listener // guarded by mu
	replicas int
	storage  jetstream.StorageType
	user     string
	ship     func(context.Context, *natsLink) error // puts the program there

	// Of agents.
	puller *puller // of pull, or nil
	within bool    // the server is in this process
	leases jetstream.KeyValue
	agents jetstream.KeyValue
}

var (
	_ submitterLink = (*natsLink)(nil)
	_ agentLink     = (*natsLink)(nil)
)

// publishTimeout is how long the acknowledgement of a message may take.
const publishTimeout = 10 * time.Second

// maxUnstored is how many messages may be without an acknowledgement.
const maxUnstored = 1 << 10

// errLinkClosed is why the context of a link has ended that was closed.
var errLinkClosed = errors.New("the connection is closed")

func (l *natsLink) close() {
	l.end(errLinkClosed)
	l.nc.Close()
	l.going.Wait()
}

func (l *natsLink) life() context.Context { return l.ctx }

// guard returns a context that ends with the link: servers do not answer what they do not allow, but say so
// beside.
func (l *natsLink) guard(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(l.ctx, func() { cancel(context.Cause(l.ctx)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// user is somebody who uses a bucket of objects.
type user struct {
	bucket string
	cancel context.CancelCauseFunc
}

// guardObjects is guard for what uses a bucket of objects. An agent that may not do that for one user goes on for the others.
func (l *natsLink) guardObjects(ctx context.Context, bucket string) (context.Context, context.CancelFunc) {
	ctx, end := l.guard(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	u := &user{bucket, cancel}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users[u] = true
	return ctx, func() {
		l.mu.Lock()
		delete(l.users, u)
		l.mu.Unlock()
		cancel(nil)
		end()
	}
}

// bar ends all that uses a bucket at the moment.
func (l *natsLink) bar(bucket string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for u := range l.users {
		if u.bucket == bucket {
			u.cancel(err)
		}
	}
}

// bucketIn returns the bucket of objects that the servers say they do not allow something with, or nothing.
func bucketIn(reason string) string {
	for _, prefix := range []string{".OBJ_", "$O."} {
		if _, rest, ok := strings.Cut(reason, prefix); ok {
			return rest[:max(0, strings.IndexAny(rest+"\"", ".\" "))]
		}
	}
	return ""
}

// denied returns a *PermissionError if there has been one.
func (l *natsLink) denied() error {
	if p, ok := errors.AsType[*PermissionError](context.Cause(l.ctx)); ok {
		return p
	}
	return nil
}

func (l *natsLink) prepare(ctx context.Context) error {
	ctx, cancel := l.guard(ctx)
	defer cancel()
	l.mu.Lock()
	clear(l.stores)
	l.mu.Unlock()
	err := l.plant(ctx, here, l.user)
	if err == nil && l.leases == nil { // both stand for what has that name
		l.leases, err = l.js.KeyValue(ctx, leasesBucket)
	}
	if err == nil && l.sent == nil {
		l.sent, err = l.js.Stream(ctx, tasksStream)
	}
	if err == nil && l.ship != nil {
		err = l.ship(ctx, l)
	}
	return blame(ctx, err)
}

// plantTime is how long servers may take to make what there is not before they are asked again, and plantPatience how long
// that goes on where the context has no deadline.
const (
	plantTime     = 5 * time.Second
	plantPatience = 30 * time.Second
)

// plant makes what there is not. Servers that have no leader, or much to do, do not answer, or say that they are not available: they
// are given until ctx ends, or plantPatience.
func (l *natsLink) plant(ctx context.Context, platform, user string) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, plantPatience)
		defer cancel()
	}
	for {
		try, cancel := context.WithTimeout(ctx, plantTime)
		err := plant(try, l.js, l.replicas, l.storage, platform, user)
		late := try.Err() != nil
		cancel()
		if api, ok := errors.AsType[*jetstream.APIError](err); ok && api.Code == 503 {
			late = true
			sleep(ctx, pause)
		}
		if !late || ctx.Err() != nil {
			return err
		}
	}
}

// pendingAck is a message whose acknowledgement is to come.
type pendingAck struct {
	future jetstream.PubAckFuture
	stored func(error)
}

func (l *natsLink) submit(job string, id uint64, data []byte, stored func(error)) error {
	if err := l.denied(); err != nil {
		return err
	}
	future, err := l.js.PublishAsync(taskSubjectOf(here, job, id), data)
	if err != nil {
		return err
	}
	p := pendingAck{future, stored}
	select {
	case l.acks <- p:
	default: // the line is long, as many large arguments have arrived at once
		l.going.Go(func() { l.awaitAck(p) }) // ends in publishTimeout
	}
	return nil
}

func (l *natsLink) awaitAcks() {
	for {
		select {
		case p := <-l.acks:
			l.awaitAck(p)
		case <-l.ctx.Done():
			for { // none is forgotten
				select {
				case p := <-l.acks:
					p.stored(context.Cause(l.ctx))
				default:
					return
				}
			}
		}
	}
}

func (l *natsLink) awaitAck(p pendingAck) {
	select {
	case <-p.future.Ok():
		p.stored(nil)
	case err := <-p.future.Err(): // no room, or no server
		p.stored(err)
	case <-l.ctx.Done():
		p.stored(context.Cause(l.ctx))
	}
}

func (l *natsLink) pending(ctx context.Context, job string) (map[uint64]bool, error) {
	ctx, cancel := l.guard(ctx)
	defer cancel()
	info, err := l.sent.Info(ctx, jetstream.WithSubjectFilter(taskSubject+here+"."+job+".*"))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, errNotPrepared
	} else if err != nil {
		return nil, blame(ctx, err)
	}
	l.mu.Lock()
	listener := l.listener
	l.mu.Unlock()
	if err := listener.behind(ctx); err != nil {
		return nil, blame(ctx, err)
	}
	live := map[uint64]bool{}
	for subject := range info.State.Subjects {
		if _, id, ok := taskOf(subject); ok {
			live[id] = true
		}
	}
	return live, nil
}

func (l *natsLink) renew(ctx context.Context, job string, data []byte) error {
	ctx, cancel := l.guard(ctx)
	defer cancel()
	_, err := l.leases.Put(ctx, job, data)
	if errors.Is(err, jetstream.ErrNoStreamResponse) {
		err = errNotPrepared
	}
	return blame(ctx, err)
}

func (l *natsLink) finish(ctx context.Context, job string) error {
	if err := l.denied(); err != nil || l.leases == nil {
		return nil // what could be done was not, and there is nothing to be undone
	}
	ctx, cancel := l.guard(ctx)
	defer cancel()
	errLease := l.leases.Purge(ctx, job) // agents end what they still run, and drop its chunks
	results, err := l.js.Stream(ctx, resultsStream+l.user)
	if err == nil {
		err = results.Purge(ctx, jetstream.WithPurgeSubject(resultSubject+job))
	}
	if errors.Is(errLease, jetstream.ErrNoStreamResponse) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return errNotPrepared
	}
	return blame(ctx, errors.Join(errLease, err))
}

func (l *natsLink) tell(job string, data []byte) { l.nc.Publish(controlSubject+job, data) }

func (l *natsLink) watchControl(say func(job string, data []byte)) error {
	_, err := l.nc.Subscribe(controlSubject+">", func(m *nats.Msg) { say(strings.TrimPrefix(m.Subject, controlSubject), m.Data) })
	return err
}

func (l *natsLink) bind(ctx context.Context) (err error) {
	ctx, cancel := l.guard(ctx)
	defer cancel()
	var errs [3]error
	l.leases, errs[0] = l.js.KeyValue(ctx, leasesBucket)
	l.agents, errs[1] = l.js.KeyValue(ctx, agentsBucket)
	_, errs[2] = l.js.Consumer(ctx, tasksStream, consumerOf(here))
	return blame(ctx, errors.Join(errs[:]...))
}

func (l *natsLink) answer(ctx context.Context, job string, data []byte) error {
	if err := l.denied(); err != nil {
		return err
	}
	future, err := l.js.PublishAsync(resultSubject+job, data)
	if err != nil {
		return err
	}
	select {
	case <-future.Ok():
		return nil
	case err := <-future.Err():
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.ctx.Done():
		return context.Cause(l.ctx)
	}
}

func (l *natsLink) beat(ctx context.Context, id string, data []byte) error {
	ctx, cancel := l.guard(ctx)
	defer cancel()
	_, err := l.agents.Put(ctx, id, data)
	return blame(ctx, err)
}

func (l *natsLink) leave(ctx context.Context, id string) error {
	if l.agents == nil {
		return nil
	}
	ctx, cancel := l.guard(ctx)
	defer cancel()
	return l.agents.Purge(ctx, id)
}

func (l *natsLink) lease(ctx context.Context, job string) ([]byte, error) {
	ctx, cancel := l.guard(ctx)
	defer cancel()
	entry, err := l.leases.Get(ctx, job)
	if errors.Is(err, jetstream.ErrKeyNotFound) || errors.Is(err, jetstream.ErrKeyDeleted) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if time.Since(l.since) < leaseTTL { // the submitter may not have been able to renew it
			return nil, errNoLeaseYet
		}
		return nil, errNoLease
	} else if err != nil {
		return nil, blame(ctx, err)
	}
	return entry.Value(), nil
}

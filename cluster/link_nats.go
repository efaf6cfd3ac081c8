package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
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

// writeTimeout is how long a connection may take no bytes before it is made anew. As long all wait who want to send something.
const writeTimeout = 3 * time.Second

// maxUnstored is how many messages may be without an acknowledgement.
const maxUnstored = 1 << 10

// access is how the servers are reached; see [Config].
type access struct {
	url, credentials string
	tls              TLS
	options          []nats.Option
}

// TLS are the files, in PEM, for connections to servers that want more than the system knows. Connections
// are encrypted where the server or the URL (tls://) asks for it.
type TLS struct {
	CA   string // certificates of those who may have signed the server's; empty: those of the system
	Cert string // certificate of the client, where the server wants one
	Key  string // its private key
}

// unreachable reports whether an error is that no server was reached, which may be otherwise later.
func unreachable(err error) bool {
	if _, isFile := errors.AsType[*fs.PathError](err); isFile { // its cause says that it is a net.Error
		return false
	}
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, nats.ErrNoServers) || errors.Is(err, nats.ErrTimeout)
}

// checkURL returns what is wrong with a list of servers, which the client takes for names of hosts.
func checkURL(list string) error {
	for one := range strings.SplitSeq(list, ",") {
		scheme, host, ok := strings.Cut(strings.TrimSpace(one), "://")
		if ok && (host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, scheme)) {
			return fmt.Errorf("%q is no address of a server; give nats://host:port or tls://host:port", one)
		}
	}
	return nil
}

// optionsOf returns the options of a connection by that name, whose inboxes have that prefix.
func (a *access) optionsOf(name, inbox string, wait time.Duration) ([]nats.Option, error) {
	options := []nats.Option{
		nats.Name(name), nats.MaxReconnects(-1), nats.ReconnectWait(200 * time.Millisecond), nats.ReconnectJitter(100*time.Millisecond, time.Second),
		nats.PingInterval(5 * time.Second), nats.MaxPingsOutstanding(2), nats.Timeout(max(wait, time.Millisecond)),
		nats.CustomInboxPrefix(inbox), nats.IgnoreAuthErrorAbort(), nats.FlusherTimeout(writeTimeout),
	}
	if a.credentials != "" {
		data, err := os.ReadFile(a.credentials)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", "Credentials", err)
		}
		option := nats.UserCredentials(a.credentials)
		if !bytes.Contains(data, []byte("NATS USER JWT")) {
			if option, err = nats.NkeyOptionFromSeed(a.credentials); err != nil {
				return nil, fmt.Errorf("%s: %s has neither a JWT with its key (as nsc makes it) nor the seed of a user's NKey (as nk -gen user does): %w",
					"Credentials", a.credentials, err)
			}
		}
		options = append(options, option)
	}
	if a.tls.CA != "" {
		options = append(options, nats.RootCAs(a.tls.CA))
	}
	if (a.tls.Cert == "") != (a.tls.Key == "") {
		return nil, errors.New("TLS: give both Cert and Key, or neither")
	}
	if a.tls.Cert != "" {
		options = append(options, nats.ClientCert(a.tls.Cert, a.tls.Key))
	}
	return append(options, a.options...), nil
}

// tell returns an option that has a logger told when a connection is lost, and when there is one again.
func tell(log *slog.Logger) nats.Option {
	return func(o *nats.Options) error {
		lost, back := o.DisconnectedErrCB, o.ReconnectedCB
		o.DisconnectedErrCB = func(nc *nats.Conn, err error) {
			if !nc.IsClosed() {
				log.Warn("lost the connection to the server, and tries to get it back", "error", err)
			}
			if lost != nil {
				lost(nc, err)
			}
		}
		o.ReconnectedCB = func(nc *nats.Conn) {
			log.Info("is connected again", "server", nc.ConnectedUrlRedacted())
			if back != nil {
				back(nc)
			}
		}
		return nil
	}
}

// The prefixes of inboxes, so that nobody has to be allowed to listen to those of others.
const (
	userInbox   = "_INBOX.user-" // + user
	agentsInbox = "_INBOX.agents"
)

// connect returns a connection that does not give up.
func connect(ctx context.Context, a access, name, inbox string) (*natsLink, error) {
	wait := startTimeout
	if at, ok := ctx.Deadline(); ok {
		wait = min(time.Until(at), wait)
	}
	if err := checkURL(a.url); err != nil {
		return nil, err
	}
	options, err := a.optionsOf(name, inbox, wait)
	if err != nil {
		return nil, err
	}
	l := &natsLink{acks: make(chan pendingAck, 1<<12), stores: map[string]jetstream.ObjectStore{}}
	l.ctx, l.end = context.WithCancelCause(context.Background())
	options = append(options, func(o *nats.Options) error {
		theirs := o.AsyncErrorCB
		o.AsyncErrorCB = func(nc *nats.Conn, s *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				l.end(&PermissionError{err.Error()})
			}
			if theirs != nil {
				theirs(nc, s, err)
			}
		}
		return nil
	})
	if l.nc, err = dialServers(ctx, a.url, options); err != nil {
		return nil, fmt.Errorf("connect to %q: %w", a.url, err)
	}
	if most := l.nc.MaxPayload(); most < maxMessage {
		l.nc.Close()
		return nil, fmt.Errorf("the servers at %q take messages of %d bytes at most; set their max_payload to %d or more", a.url, most, maxMessage)
	}
	if l.js, err = jetstream.New(l.nc, jetstream.WithPublishAsyncMaxPending(4*maxUnstored), jetstream.WithPublishAsyncTimeout(publishTimeout)); err != nil {
		l.nc.Close()
		return nil, err
	}
	l.going.Go(l.awaitAcks)
	return l, nil
}

// dialServers returns a connection. The client does not look at ctx, and tries the servers one after the other.
func dialServers(ctx context.Context, url string, options []nats.Option) (*nats.Conn, error) {
	type connected struct {
		nc  *nats.Conn
		err error
	}
	done, left := make(chan connected), ctx.Done()
	go func() { // ends when each server was given the time that the options say
		nc, err := nats.Connect(url, options...)
		select {
		case done <- connected{nc, err}:
		case <-left:
			if err == nil {
				nc.Close()
			}
		}
	}()
	select {
	case c := <-done:
		return c.nc, c.err
	case <-left:
		return nil, context.Cause(ctx)
	}
}

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
	default: // the line is long
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
		return nil, errNoLease
	} else if err != nil {
		return nil, blame(ctx, err)
	}
	return entry.Value(), nil
}

// objects returns a bucket of objects.
func (l *natsLink) objects(ctx context.Context, bucket string) (jetstream.ObjectStore, error) {
	l.mu.Lock()
	store := l.stores[bucket]
	l.mu.Unlock()
	if store != nil {
		return store, nil
	}
	store, err := l.js.ObjectStore(ctx, bucket)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", bucket, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stores[bucket] = store
	return store, nil
}

func (l *natsLink) putBlob(ctx context.Context, job, name string, data []byte) error {
	ctx, cancel := l.guard(ctx)
	defer cancel()
	store, err := l.objects(ctx, blobsBucket+userOf(job))
	if err == nil {
		_, err = store.Put(ctx, jetstream.ObjectMeta{Name: name}, bytes.NewReader(data))
	}
	return blame(ctx, err)
}

func (l *natsLink) getBlob(ctx context.Context, job, name string, size int64) ([]byte, error) {
	ctx, cancel := l.guard(ctx)
	defer cancel()
	store, err := l.objects(ctx, blobsBucket+userOf(job))
	if err != nil {
		return nil, blame(ctx, err)
	}
	data, err := fetchBlob(ctx, store, name, size)
	return data, blame(ctx, err)
}

func (l *natsLink) dropBlob(ctx context.Context, job, name string) {
	ctx, cancel := l.guard(ctx)
	defer cancel()
	if store, err := l.objects(ctx, blobsBucket+userOf(job)); err == nil {
		store.Delete(ctx, name) // otherwise it goes by its age
	}
}

// fetchBlob returns an object that is to have so many bytes, which may be hostile. It may take its time, as long as something comes.
func fetchBlob(ctx context.Context, store jetstream.ObjectStore, name string, size int64) ([]byte, error) {
	ctx, late := context.WithTimeout(ctx, transferTime(size))
	defer late()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(stall, func() { cancel(errStalled) })
	defer watch.Stop()
	object, err := store.Get(impatient{ctx}, name)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return nil, errNoBlob
	} else if err != nil {
		return nil, blame(ctx, err)
	}
	defer object.Close()
	info, err := object.Info()
	if err != nil {
		return nil, blame(ctx, err)
	}
	if size < 0 || info.Size != uint64(size) {
		return nil, fmt.Errorf("%w: what has its name has %d bytes and not %d", errNoBlob, info.Size, size)
	}
	r := patient{ctx, object, func() { watch.Reset(stall) }}
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, blame(ctx, err)
	}
	if _, err := r.Read(make([]byte, 1)); err != io.EOF { // which is told when the digest is right
		return nil, fmt.Errorf("the end of the object: %w", blame(ctx, err))
	}
	return data, nil
}

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// writeTimeout is how long a connection may take no bytes before it is made anew. As long all wait who want to send something.
const writeTimeout = 3 * time.Second

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

// outages returns an option that has a logger told when a connection is lost, and when there is one again.
func outages(log *slog.Logger) nats.Option {
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
	l := &natsLink{acks: make(chan pendingAck, 1<<12), stores: map[string]jetstream.ObjectStore{}, users: map[*user]bool{}, since: time.Now()}
	l.ctx, l.end = context.WithCancelCause(context.Background())
	options = append(options, func(o *nats.Options) error {
		reconnected := o.ReconnectedCB
		o.ReconnectedCB = func(nc *nats.Conn) {
			l.mu.Lock()
			l.since = time.Now()
			l.mu.Unlock()
			if reconnected != nil {
				reconnected(nc)
			}
		}
		closed := o.ClosedCB
		o.ClosedCB = func(nc *nats.Conn) { // by options that have it give up
			l.end(errors.Join(errGivenUp, nc.LastError()))
			if closed != nil {
				closed(nc)
			}
		}
		theirs := o.AsyncErrorCB
		o.AsyncErrorCB = func(nc *nats.Conn, s *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				denied := &PermissionError{err.Error()}
				if bucket := bucketIn(denied.Reason); bucket != "" && inbox == agentsInbox {
					l.bar(bucket, denied)
				} else {
					l.end(denied)
				}
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

// errGivenUp is why a link ends that is not to connect any more.
var errGivenUp = errors.New("the connection to the servers was lost, and the options of the connection do not allow to try again")

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

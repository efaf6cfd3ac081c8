package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// A request asks for so much, for so long.
const (
	fetchMost  = 256
	fetchBytes = 8 << 20 // a server closes connections that do not take 64 MiB
	fetchWait  = 4 * time.Second
	fetchBeat  = fetchWait / 4 // how often a server says that it has not forgotten a request
)

// A puller takes messages of a consumer by one subscription, where jetstream.Consumer.Fetch makes one for each
// request, and passes messages on by one goroutine more. It is for one goroutine at a time.
type puller struct {
	nc       *nats.Conn
	sub      *nats.Subscription
	messages chan *nats.Msg
	subject  string // of requests
	bytes    int    // how much is asked for at a time; 0: whatever there is
	left     int    // how many messages have been asked for and have not come
}

func newPuller(nc *nats.Conn, stream, consumer string, bytes int) (*puller, error) {
	p := &puller{
		nc: nc, messages: make(chan *nats.Msg, 4*fetchMost), // what is asked for, and what is said of requests
		subject: "$JS.API.CONSUMER.MSG.NEXT." + stream + "." + consumer, bytes: bytes,
	}
	var err error
	p.sub, err = nc.ChanSubscribe(nc.NewInbox(), p.messages)
	return p, err
}

// closePause is how long nothing has to come before close takes it that nothing is on its way.
const closePause = 200 * time.Millisecond

// close ends the subscription. Where back is not nil, it gets what has come, or is on its way, and was not taken: to end the
// subscription would not keep the server from counting as sent what nobody listens for any more, and there is no way to
// tell it that a request is withdrawn. So what was asked for is waited for, as long as something comes.
func (p *puller) close(back func(*nats.Msg)) {
	defer p.sub.Unsubscribe()
	if back == nil {
		return
	}
	quiet := time.NewTimer(closePause)
	defer quiet.Stop()
	for p.left > 0 || len(p.messages) > 0 {
		select {
		case m := <-p.messages:
			if !isStatus(m) {
				p.left--
				back(m)
				quiet.Reset(closePause)
			} else if n, err := strconv.Atoi(m.Header.Get(pendingHeader)); err == nil {
				p.left -= n
			}
		case <-quiet.C:
			return
		}
	}
}

// ask asks for n messages more.
func (p *puller) ask(n int) error {
	request, err := json.Marshal(struct {
		Batch     int           `json:"batch"`
		MaxBytes  int           `json:"max_bytes,omitempty"`
		Expires   time.Duration `json:"expires"`
		Heartbeat time.Duration `json:"idle_heartbeat"`
	}{n, p.bytes, fetchWait, fetchBeat})
	if err == nil {
		err = p.nc.PublishRequest(p.subject, p.sub.Subject, request)
	}
	if err == nil {
		p.left += n
	}
	return err
}

// What a server says of a request.
const (
	statusHeader  = "Status"
	statusBeat    = "100"
	reasonHeader  = "Description"
	pendingHeader = "Nats-Pending-Messages" // how many of it are not going to come
)

// isStatus reports whether a message is what the server says of a request. What others have sent may have such a header too, but comes
// with a subject for its acknowledgement.
func isStatus(m *nats.Msg) bool { return m.Reply == "" && m.Header.Get(statusHeader) != "" }

var errSilent = errors.New("the server does not say that it has not forgotten the request")

// next returns the next message, or nil when a request has ended that has not been met. After an error the puller is of no use.
func (p *puller) next(ctx context.Context) (*nats.Msg, error) {
	var late <-chan time.Time
	for {
		var m *nats.Msg
		select {
		case m = <-p.messages:
		default:
			if late == nil {
				timer := time.NewTimer(2*fetchBeat + pause)
				defer timer.Stop()
				late = timer.C
			}
			select {
			case m = <-p.messages:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-late:
				return nil, errSilent
			}
		}
		if !isStatus(m) {
			p.left--
			return m, nil
		}
		late = nil
		if m.Header.Get(statusHeader) == statusBeat {
			continue
		}
		n, err := strconv.Atoi(m.Header.Get(pendingHeader))
		if err != nil { // there is no such consumer, or the like
			return nil, fmt.Errorf("pull: status %s %s", m.Header.Get(statusHeader), strings.ToLower(m.Header.Get(reasonHeader)))
		}
		if p.left = max(0, p.left-n); n > 0 {
			return nil, nil
		}
	}
}

// natsDelivery is a message of the stream of tasks.
type natsDelivery struct {
	nc *nats.Conn
	m  *nats.Msg
}

func (d natsDelivery) data() []byte                 { return d.m.Data }
func (d natsDelivery) task() (string, uint64, bool) { return taskOf(d.m.Subject) }
func (d natsDelivery) working()                     { d.say("+WPI") }
func (d natsDelivery) ack()                         { d.say("+ACK") }
func (d natsDelivery) drop(reason string)           { d.say("+TERM " + reason) }
func (d natsDelivery) say(what string)              { d.nc.Publish(d.m.Reply, []byte(what)) }
func (d natsDelivery) back(after time.Duration) {
	if after == 0 {
		d.say("-NAK")
	} else {
		d.say(fmt.Sprintf(`-NAK {"delay": %d}`, after))
	}
}

func (d natsDelivery) deliveries() int {
	meta, err := d.m.Metadata()
	if err != nil {
		return 1
	}
	return int(meta.NumDelivered)
}

func (l *natsLink) pull(ctx context.Context, n int, take func(delivery)) (err error) {
	if err := l.denied(); err != nil {
		return err
	}
	if l.puller == nil {
		// Without a limit of bytes, which maxPull is: where there is one, and several servers keep the messages, the word that all
		// have been sent overtakes them.
		if l.puller, err = newPuller(l.nc, tasksStream, consumerOf(here), 0); err != nil {
			return err
		}
	}
	if err = l.puller.ask(n); err != nil {
		return err
	}
	for range n {
		m, err := l.puller.next(ctx)
		if err != nil {
			back := func(m *nats.Msg) { natsDelivery{l.nc, m}.back(pause) } // not to this one, while it is listening
			if l.within && ctx.Err() != nil {
				back = nil // the server ends as well
			}
			l.puller.close(back)
			l.puller = nil
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if m == nil {
			return nil
		}
		take(natsDelivery{l.nc, m})
	}
	return nil
}

package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The streams and the consumer.
const (
	tasks   = "TASKS"
	results = "RESULTS"
	workers = "workers"
)

// A puller takes messages of a consumer with one subscription. There is always a request under way, so that
// messages come as soon as the server has them.
type puller struct {
	nc      *nats.Conn
	sub     *nats.Subscription
	subject string // of requests
	request []byte
	batch   int
	left    int // what the server may still send
}

func pull(nc *nats.Conn, stream, consumer string, batch int) (*puller, error) {
	request, err := json.Marshal(map[string]any{"batch": batch, "expires": int64(patience)})
	if err != nil {
		return nil, err
	}
	sub, err := nc.SubscribeSync(nc.NewInbox())
	return &puller{nc: nc, sub: sub, subject: "$JS.API.CONSUMER.MSG.NEXT." + stream + "." + consumer, request: request, batch: batch}, err
}

// next returns the next message.
func (p *puller) next(wait time.Duration) (*nats.Msg, error) {
	for {
		if p.left <= p.batch/2 {
			if err := p.nc.PublishRequest(p.subject, p.sub.Subject, p.request); err != nil {
				return nil, err
			}
			p.left += p.batch
		}
		m, err := p.sub.NextMsg(wait)
		if err != nil {
			return nil, err
		}
		status := m.Header.Get("Status")
		switch {
		case status == "":
			p.left--
			return m, nil
		case status == "100":
		case m.Header.Get("Nats-Pending-Messages") != "":
			n, _ := strconv.Atoi(m.Header.Get("Nats-Pending-Messages"))
			p.left = max(0, p.left-n)
		default:
			return nil, fmt.Errorf("status %s %s", status, m.Header.Get("Description"))
		}
	}
}

// backlog is how results come to the submitter.
type backlog func(wait time.Duration) ([]byte, error)

// results returns where results come from: a stream, or plain messages.
func (e *engine) results(stream bool) (backlog, error) {
	if !stream {
		sub, err := e.nc.SubscribeSync(replySubject)
		if err != nil {
			return nil, err
		}
		sub.SetPendingLimits(-1, -1)
		return func(wait time.Duration) ([]byte, error) {
			m, err := sub.NextMsg(wait)
			if err != nil {
				return nil, err
			}
			return m.Data, nil
		}, e.nc.Flush()
	}
	consumer, err := e.js.CreateConsumer(e.ctx, results, jetstream.ConsumerConfig{
		FilterSubject: resultSubject, AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, InactiveThreshold: patience,
	})
	if err != nil {
		return nil, err
	}
	p, err := pull(e.nc, results, consumer.CachedInfo().Name, 64)
	if err != nil {
		return nil, err
	}
	return func(wait time.Duration) ([]byte, error) {
		m, err := p.next(wait)
		if err != nil {
			return nil, err
		}
		return m.Data, nil
	}, nil
}

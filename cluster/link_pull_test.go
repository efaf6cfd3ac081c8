package cluster

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestPuller has a puller get what was there and what comes, give back what it has not passed on, and say so when there is
// no consumer any more.
func TestPuller(t *testing.T) {
	t.Parallel()
	ctx := proctest.Within(t)
	e, err := embed()
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	nc, err := nats.Connect("", e.option())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, Storage: jetstream.MemoryStorage})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "C", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
		t.Fatal(err)
	}
	put := func(text string) {
		t.Helper()
		if _, err := js.Publish(ctx, "s.x", []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	p, err := newPuller(nc, "S", "C", fetchBytes)
	if err != nil {
		t.Fatal(err)
	}
	expect := func(text string) natsDelivery {
		t.Helper()
		m, err := p.next(ctx)
		if err != nil || m == nil || string(m.Data) != text {
			t.Fatalf("got %v, %v, want %s", m, err, text)
		}
		return natsDelivery{nc, m}
	}
	put("1")
	if err := errors.Join(p.ask(1), p.ask(2)); err != nil {
		t.Fatal(err)
	}
	expect("1").ack()
	put("2")
	if d := expect("2"); d.deliveries() != 1 {
		t.Errorf("it has been delivered %d times", d.deliveries())
	} else {
		d.back(0)
	}
	if d := expect("2"); d.deliveries() != 2 {
		t.Errorf("what was given back has been delivered %d times", d.deliveries())
	} else {
		d.ack()
	}
	if p.left != 0 {
		t.Errorf("%d messages are to come", p.left)
	}

	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := p.next(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, though the context has ended", err)
	}
	if err := p.ask(1); err != nil {
		t.Fatal(err)
	}
	put("3")
	proctest.Eventually(t, proctest.Patience, "the message has come", func() bool { return len(p.messages) > 0 })
	p.close(func(m *nats.Msg) { natsDelivery{nc, m}.back(0) })
	if p, err = newPuller(nc, "S", "C", fetchBytes); err != nil {
		t.Fatal(err)
	}
	if err := p.ask(3); err != nil {
		t.Fatal(err)
	}
	expect("3").drop("tested")
	status := nats.NewMsg("s.x") // by somebody who would have it taken for what the server says
	status.Header.Set(statusHeader, statusBeat)
	status.Data = []byte("4")
	if _, err := js.PublishMsg(ctx, status); err != nil {
		t.Fatal(err)
	}
	expect("4").drop("tested")
	if err := stream.DeleteConsumer(ctx, "C"); err != nil {
		t.Fatal(err)
	}
	if m, err := p.next(ctx); err == nil || !strings.Contains(err.Error(), "consumer deleted") {
		t.Errorf("got %v, %v, though there is no consumer", m, err)
	}
	p.close(func(*nats.Msg) { t.Error("something else came") })
}

// TestPullerGivesBackWhatIsOnItsWay closes pullers while messages come: none is lost until it is delivered anew for want of an
// acknowledgement.
func TestPullerGivesBackWhatIsOnItsWay(t *testing.T) {
	t.Parallel()
	ctx := proctest.Within(t)
	s, err := StartServer(ServerConfig{Listen: "127.0.0.1:0", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	nc, err := nats.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, Storage: jetstream.MemoryStorage})
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "C", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1})
	if err != nil {
		t.Fatal(err)
	}
	const each, rounds = 20, 20
	for range each * rounds {
		if _, err := js.Publish(ctx, "s.x", make([]byte, 10_000)); err != nil {
			t.Fatal(err)
		}
	}
	came := 0
	for range rounds {
		p, err := newPuller(nc, "S", "C", 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.ask(each); err != nil {
			t.Fatal(err)
		}
		if _, err := p.next(ctx); err != nil { // the others are on their way
			t.Fatal(err)
		}
		came++
		p.close(func(*nats.Msg) { came++ })
	}
	info, err := consumer.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if info.NumAckPending != came {
		t.Errorf("the server has sent %d messages, and %d have come", info.NumAckPending, came)
	}
}

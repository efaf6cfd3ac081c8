package cluster

import (
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestGap has a result not come that was delivered: those after it are not taken, but asked for again from there on.
func TestGap(t *testing.T) {
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
	p, err := newPuller(nc, "S", "C", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close(nil)
	p.left = fetchMost                                      // so that it asks for none
	for _, m := range []string{"1.5.1", "1.7.2", "1.9.4"} { // deliveries, number in the stream, number at the consumer
		p.messages <- &nats.Msg{Sub: p.sub, Reply: "$JS.ACK.S.C." + m + ".1700000000000000000.0", Data: []byte(m)}
	}
	li := &listener{puller: p, next: 1}
	var took []string
	err = li.fetch(proctest.Within(t), nil, func(data []byte) { took = append(took, string(data)) })
	if err != errGap || len(took) != 2 || li.next != 8 {
		t.Errorf("took %v, then %v; goes on at %d, want 8", took, err, li.next)
	}
}

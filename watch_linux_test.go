package multiproc

import (
	"context"
	"errors"
	"testing"
	"time"
)

var lateAnswer = Register("test.lateAnswer", func(ctx context.Context, size int) ([]byte, error) {
	if size == 0 { // innocent
		<-time.After(2 * time.Second)
		return nil, nil
	}
	<-ctx.Done()
	return make([]byte, size), nil
})

// TestHeardOut has a worker react to a cancellation at once, with more than its parent takes
// at a time, while the parent does not get to it: neither the worker nor the call that it has
// gone on to pays for that.
func TestHeardOut(t *testing.T) {
	t.Parallel()
	p := NewPool(PoolConfig{Workers: 1, KillGrace: 100 * time.Millisecond})
	defer p.Kill()
	d := &drowsy{awake: make(chan struct{})}
	start := p.launch
	p.launch = func() (link, error) {
		l, err := start()
		if err != nil || d.Conn != nil {
			return l, err
		}
		proc := l.(procLink)
		d.Conn, proc.Conn = proc.Conn, d
		return proc, nil
	}
	p.costs.of("test.lateAnswer").ran.Store(int64(time.Millisecond)) // so that both are handed over together
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	late := lateAnswer.Go(ctx, p, 180<<10)
	innocent := lateAnswer.Go(t.Context(), p, 0)
	within, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for both := false; !both; {
		select {
		case <-poll.C:
			s := p.Snapshot()
			both = len(s.Workers) == 1 && len(s.Workers[0].Running) == 1 && s.Workers[0].Waiting == 1
		case <-within.Done():
			t.Fatalf("the worker does not run one call and have the other: %+v", p.Snapshot())
		}
	}
	d.asleep.Store(true)
	cancel()
	<-time.After(2 * (100*time.Millisecond + reaction))
	d.asleep.Store(false)
	close(d.awake)
	if _, err := late.Wait(t.Context()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := innocent.Wait(within); err != nil {
		t.Errorf("the innocent call: %v", err)
	}
}

// held is an argument whose encoding ends when that channel is closed.
type held struct {
	begins chan<- struct{}
	until  <-chan struct{}
}

func (h held) MarshalText() ([]byte, error) {
	if h.until != nil {
		close(h.begins)
		<-h.until
	}
	return []byte("held"), nil
}

func (*held) UnmarshalText([]byte) error { return nil }

var takeHeld = Register("test.takeHeld", func(context.Context, held) (int, error) { return 7, nil })

// TestNotTold ends a call while its argument is being encoded: the worker cannot be told yet,
// and so is not to blame; nor are the calls that it has.
func TestNotTold(t *testing.T) {
	t.Parallel()
	p := NewPool(PoolConfig{Workers: 1, KillGrace: 100 * time.Millisecond, Heartbeat: 200 * time.Millisecond})
	defer p.Kill()
	p.costs.of("test.takeHeld").ran.Store(int64(time.Microsecond)) // so that both are handed over together
	begins, until := make(chan struct{}), make(chan struct{})
	first := takeHeld.Go(t.Context(), p, held{})
	ctx, cancel := context.WithCancel(t.Context())
	slow := takeHeld.Go(ctx, p, held{begins, until})
	<-begins
	cancel()
	<-time.After(2 * (100*time.Millisecond + reaction))
	close(until)
	if _, err := slow.Wait(t.Context()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if out, err := first.Wait(t.Context()); out != 7 || err != nil {
		t.Errorf("the call beside it: got %d, %v", out, err)
	}
	if n := p.Snapshot().Started; n != 1 {
		t.Errorf("%d workers were started, want the one to stay", n)
	}
}

//go:build unix

package cluster

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// shaky is a link on which the first transfers of blobs fail.
type shaky struct {
	*natsLink
	puts, gets atomic.Int32 // how many are still to fail
	lost       atomic.Int32 // how many are still not to be there
	mute       atomic.Bool  // no outcome gets through
}

func (s *shaky) answer(ctx context.Context, job string, data []byte) error {
	if s.mute.Load() {
		return errShaky
	}
	return s.natsLink.answer(ctx, job, data)
}

var errShaky = errors.New("the server is away for a moment")

func (s *shaky) putBlob(ctx context.Context, job, name string, data []byte) error {
	if s.puts.Add(-1) >= 0 {
		return errShaky
	}
	return s.natsLink.putBlob(ctx, job, name, data)
}

func (s *shaky) getBlob(ctx context.Context, job, name string, size int64) ([]byte, error) {
	if s.gets.Add(-1) >= 0 {
		return nil, errShaky
	}
	if s.lost.Add(-1) >= 0 {
		return nil, errNoBlob
	}
	return s.natsLink.getBlob(ctx, job, name, size)
}

// shakyCluster returns a cluster of this machine, and the links of its two sides.
func shakyCluster(t *testing.T) (c *Cluster, submitter, agent *shaky) {
	t.Helper()
	ctx := proctest.Within(t)
	c = newCluster(Config{User: defaultUser, AgentTimeout: time.Minute, Pool: multiproc.PoolConfig{KillGrace: time.Second}})
	var err error
	if c.server, err = embed(); err != nil {
		t.Fatal(err)
	}
	open := func() *shaky {
		l, err := connect(ctx, access{options: []nats.Option{c.server.option()}}, "test", userInbox+"test")
		if err != nil {
			t.Fatal(err)
		}
		l.replicas, l.storage, l.user = 1, jetstream.MemoryStorage, defaultUser
		return &shaky{natsLink: l}
	}
	submitter, agent = open(), open()
	c.link = submitter
	if err := c.start(ctx, lease{Program: Program{Hash: selfProgram}}); err != nil {
		t.Fatal(err)
	}
	c.agent = newAgent(AgentConfig{
		Name: "here", Grace: time.Second, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Pool: multiproc.PoolConfig{Workers: 1},
	}, true)
	c.agent.link = agent
	c.agent.hire = func(job string, p Program, t *terms) (workers, func(), error) {
		return c.agent.hirePool(agent.natsLink, job, p, t)
	}
	if err := c.agent.start(ctx); err != nil {
		t.Fatal(err)
	}
	return c, submitter, agent
}

// awaitNoBlobs waits until no blobs are left.
func awaitNoBlobs(t *testing.T, s *shaky) {
	t.Helper()
	store, err := s.objects(t.Context(), blobsBucket+defaultUser)
	if err != nil {
		t.Fatal(err)
	}
	proctest.Eventually(t, proctest.Patience, "no blob is left", func() bool {
		_, err := store.List(t.Context())
		return errors.Is(err, jetstream.ErrNoObjectsFound)
	})
}

// TestShakyBlobs has each transfer of a large argument and of a large result fail at first.
func TestShakyBlobs(t *testing.T) {
	t.Parallel()
	c, submitter, agent := shakyCluster(t)
	for _, s := range []*shaky{submitter, agent} {
		s.puts.Store(2)
		s.gets.Store(2)
	}
	in := bytes.Repeat([]byte("x"), 3*maxChunk)
	out, err := proctest.Echo.Call(proctest.Within(t), c, in)
	if err != nil || !bytes.Equal(out, in) {
		t.Errorf("got %d bytes, %v", len(out), err)
	}
	awaitNoBlobs(t, submitter)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestLostBlobs has large arguments and results get lost: the calls run again, but not for ever.
func TestLostBlobs(t *testing.T) {
	t.Parallel()
	for what, lost := range map[string]struct{ results, arguments int32 }{
		"each once": {1, 1}, "results": {maxAttempts, 0}, "arguments": {0, maxAttempts},
	} {
		c, submitter, agent := shakyCluster(t)
		submitter.lost.Store(lost.results)
		agent.lost.Store(lost.arguments)
		in := bytes.Repeat([]byte("x"), 3*maxChunk)
		out, err := proctest.Echo.Call(proctest.Within(t), c, in)
		if tooOften := lost.results+lost.arguments >= maxAttempts; tooOften != errors.Is(err, errNoBlob) || !tooOften && !bytes.Equal(out, in) {
			t.Errorf("%s: got %d bytes, %v", what, len(out), err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestAnswerThatIsNotWanted has a large answer not get through until nobody wants it any more: its object does not stay.
func TestAnswerThatIsNotWanted(t *testing.T) {
	t.Parallel()
	c, submitter, agent := shakyCluster(t)
	agent.mute.Store(true)
	ctx, cancel := context.WithCancel(proctest.Within(t))
	fut := proctest.Echo.Go(ctx, c, bytes.Repeat([]byte("x"), 3*maxOutcome))
	store, err := submitter.objects(t.Context(), blobsBucket+defaultUser)
	if err != nil {
		t.Fatal(err)
	}
	proctest.Eventually(t, proctest.Patience, "argument and answer are there", func() bool {
		list, err := store.List(t.Context())
		return err == nil && len(list) == 2
	})
	cancel()
	_, err = fut.Wait(proctest.Within(t))
	proctest.WantErr(t, err, context.Canceled)
	awaitNoBlobs(t, submitter)
	agent.mute.Store(false)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// slowConn is a connection that carries little at a time.
type slowConn struct{ net.Conn }

func (s slowConn) Read(p []byte) (int, error) {
	time.Sleep(10 * time.Millisecond) // sleep: that is what is slow
	return s.Conn.Read(p[:min(len(p), 32<<10)])
}

type slowDialer struct{}

func (slowDialer) Dial(network, address string) (net.Conn, error) {
	conn, err := net.Dial(network, address)
	return slowConn{conn}, err
}

// TestSlowBlobs has an object take longer than the client gives to a request: it comes all the same.
func TestSlowBlobs(t *testing.T) {
	t.Parallel()
	_, c := dialServer(t, Config{})
	fast := c.link.(*natsLink)
	data := bytes.Repeat([]byte("slow"), 1<<20)
	if err := fast.putBlob(t.Context(), c.job, "slow", data); err != nil {
		t.Fatal(err)
	}
	l, err := connect(proctest.Within(t), access{url: c.cfg.URL, options: []nats.Option{nats.SetCustomDialer(slowDialer{})}}, "slow", agentsInbox)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if l.js, err = jetstream.New(l.nc, jetstream.WithDefaultTimeout(500*time.Millisecond)); err != nil { // 4 MiB take more than a second
		t.Fatal(err)
	}
	got, err := l.getBlob(context.Background(), c.job, "slow", int64(len(data))) // without a deadline, as calls have none
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

// TestLargeOnesOneByOne has more large arguments than an agent may fetch before there are slots for them.
func TestLargeOnesOneByOne(t *testing.T) {
	t.Parallel()
	c, _, _ := shakyCluster(t)
	size := int64(2 * maxChunk)
	c.agent.mu.Lock()
	c.agent.early = size + size/2
	c.agent.mu.Unlock()
	in := make([][]byte, 6)
	for i := range in {
		in[i] = bytes.Repeat([]byte{byte(i)}, int(size))
	}
	out, err := proctest.Echo.Map(proctest.Within(t), c, in)
	if err != nil {
		t.Fatal(err)
	}
	proctest.Want(t, "results", out, in)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if c.agent.early != size+size/2 {
		t.Errorf("%d bytes may be fetched early at the end, and %d at the beginning", c.agent.early, size+size/2)
	}
	fetched, may := c.agent.fetchEarly(size)
	if _, more := c.agent.fetchEarly(size); !may || more {
		t.Errorf("of two that are too large together the first may be fetched: %t, the second: %t", may, more)
	}
	fetched()
	fetched()
	if c.agent.early != size+size/2 {
		t.Errorf("%d bytes may be fetched early after all was given back", c.agent.early)
	}
}

// TestCancelledBehindOthers has a call with a large argument be cancelled that no agent takes, as the only slot is in use: it
// is answered all the same, and its argument does not stay.
func TestCancelledBehindOthers(t *testing.T) {
	t.Parallel()
	c, submitter, _ := shakyCluster(t)
	gate := proctest.NewGate(t)
	first := proctest.Do.Go(proctest.Within(t), c, proctest.Task{X: 3, Gate: gate.Path})
	v := gate.Next()
	ctx, cancel := context.WithCancel(proctest.Within(t))
	second := make(chan error, 1)
	go func() { // ends with the call; waited for below
		_, err := proctest.Echo.Map(ctx, c, [][]byte{bytes.Repeat([]byte("x"), 3*maxChunk)})
		second <- err
	}()
	allStored(t, c, 2)
	cancel()
	select {
	case err := <-second:
		proctest.WantErr(t, err, context.Canceled)
	case <-proctest.Within(t).Done():
		t.Error("the caller waits for the other call")
	}
	proctest.Eventually(t, proctest.Patience, "the call is answered", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.open == 1
	})
	awaitNoBlobs(t, submitter)
	v.Release()
	if _, err := first.Wait(proctest.Within(t)); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestLinkedBlob has a user link a name of his own to an object of another user, whom he may not read: agents, who may, do not
// follow.
func TestLinkedBlob(t *testing.T) {
	t.Parallel()
	c, submitter, _ := shakyCluster(t)
	defer c.Close()
	ctx := proctest.Within(t)
	theirs, err := submitter.js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: blobsBucket + "bob", Storage: jetstream.MemoryStorage})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := theirs.PutBytes(ctx, "bob.job.1", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	mine, err := submitter.objects(ctx, blobsBucket+defaultUser)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"default.job.1", "bob.job.1"} {
		if _, err := mine.AddLink(ctx, name, secret); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := submitter.natsLink.getBlob(ctx, "default.job", "default.job.1", 6); !errors.Is(err, errLinked) {
		t.Errorf("got %q, %v", got, err)
	}
	ch := chunk{Job: "default.job", ID: 1, Program: "p", Func: "f", Key: "k", N: 1, Blob: "bob.job.1", BlobLen: 6}
	data, err := encodeChunk(&ch)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeChunk(data); err == nil {
		t.Error("a chunk may have an object of another job")
	}
	if data, err = encodeOutcome(&outcome{Blob: "bob.job.1", BlobLen: 6}); err != nil {
		t.Fatal(err)
	}
	if _, err := decodeOutcome("default.job", data); err == nil {
		t.Error("an outcome may have an object of another job")
	}
}

// TestAnswerThatDoesNotCome has a large answer not come, for as long as others do.
func TestAnswerThatDoesNotCome(t *testing.T) {
	t.Parallel()
	c, submitter, _ := shakyCluster(t)
	submitter.gets.Store(1 << 30)
	in := bytes.Repeat([]byte("x"), 3*maxChunk)
	large := proctest.Echo.Go(proctest.Within(t), c, in)
	proctest.Eventually(t, proctest.Patience, "the answer is being fetched", func() bool { return len(c.fetches) == 1 })
	if out, err := proctest.Square.Call(proctest.Within(t), c, 3); out != 9 || err != nil {
		t.Errorf("a small one: got %d, %v", out, err)
	}
	submitter.gets.Store(0)
	if out, err := large.Wait(proctest.Within(t)); err != nil || !bytes.Equal(out, in) {
		t.Errorf("the large one: got %d bytes, %v", len(out), err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

//go:build unix

package cluster

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// submitted waits until the server has the only chunk of c, and returns its number.
func submitted(t *testing.T, c *Cluster) (id uint64) {
	t.Helper()
	proctest.Eventually(t, proctest.Patience, "the chunk is with the server", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for id = range c.chunks {
			return c.chunks[id].stored
		}
		return false
	})
	return id
}

// TestFirstAnswerCounts has a second agent answer a call that was taken to be lost, before the first
// one does, and nonsense come before that.
func TestFirstAnswerCounts(t *testing.T) {
	t.Parallel()
	c, err := Dial(proctest.Within(t), Config{Pool: multiproc.PoolConfig{Workers: 1}})
	if err != nil {
		t.Fatal(err)
	}
	gate := proctest.NewGate(t)
	fut := proctest.Do.Go(proctest.Within(t), c, proctest.Task{X: 3, Gate: gate.Path})
	v := gate.Next()
	id := submitted(t, c)
	five, err := wire.Encode(nil, &[]int{5}[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []outcome{
		{Chunk: id + 1, Answers: appendAnswer(nil, answer{0, 1, isResult, [][]byte{five}})},      // of nothing
		{Chunk: id, Answers: appendAnswer(nil, answer{7, 1, isResult, [][]byte{five}})},          // of no call
		{Chunk: id, Ran: -1, Answers: appendAnswer(nil, answer{0, 1, isResult, [][]byte{five}})}, // the one that counts
		{Chunk: id, Refused: "too late"},
	} {
		data, err := encodeOutcome(&o)
		if err != nil {
			t.Fatal(err)
		}
		c.onOutcome(data)
	}
	c.onOutcome([]byte("nonsense"))
	v.Release() // so that the slow one answers too
	if out, err := fut.Wait(proctest.Within(t)); out != 5 || err != nil {
		t.Errorf("got %d, %v, want the first answer, 5", out, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestLostChunk has the server lose what it has been sent: it is sent again.
func TestLostChunk(t *testing.T) {
	t.Parallel()
	s, err := StartServer(ServerConfig{Listen: "127.0.0.1:0", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := Dial(proctest.Within(t), Config{URL: s.URL()})
	if err != nil {
		t.Fatal(err)
	}
	fut := proctest.Square.Go(proctest.Within(t), c, 3)
	submitted(t, c)
	if err := c.link.(*natsLink).sent.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { // ends when ctx does; waited for below
		ended <- RunAgent(ctx, AgentConfig{
			URL: s.URL(), AllowUnsigned: true, CacheDir: t.TempDir(), Pool: multiproc.PoolConfig{Workers: 1},
			Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
	}()
	if out, err := fut.Wait(proctest.Within(t)); out != 9 || err != nil {
		t.Errorf("got %d, %v", out, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestPoisonIsFoundAmongOthers has a chunk of several calls end its agents: the calls are sent one by one, and none of them
// fails before it is known which one it was.
func TestPoisonIsFoundAmongOthers(t *testing.T) {
	t.Parallel()
	s, err := StartServer(ServerConfig{Listen: "127.0.0.1:0", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := Dial(proctest.Within(t), Config{URL: s.URL(), Pool: multiproc.PoolConfig{KillGrace: 50 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.cost(proctest.Square.Name()).ran = time.Microsecond // so that they go together
	c.mu.Unlock()
	ctx, cancel := context.WithCancel(proctest.Within(t))
	ended := make(chan error, 1)
	go func() { // ends when ctx does; waited for below
		_, err := proctest.Square.Map(ctx, c, proctest.Numbers(3))
		ended <- err
	}()
	id := submitted(t, c)
	say := func(o outcome) {
		t.Helper()
		data, err := encodeOutcome(&o)
		if err != nil {
			t.Fatal(err)
		}
		c.onOutcome(data)
	}
	for i := range maxBegun + 1 {
		say(outcome{Chunk: id, Begun: true, From: strconv.Itoa(i)})
		say(outcome{Chunk: id, Begun: true, From: strconv.Itoa(i)}) // once more, as it did not learn that it was stored
		c.mu.Lock()
		if unwanted := c.chunks[id].unwanted; unwanted != nil && i < maxBegun {
			t.Errorf("%v after %d agents", unwanted, i+1)
		}
		c.mu.Unlock()
	}
	c.lookForChunks()
	c.mu.Lock()
	if ch := c.chunks[id]; ch == nil || ch.n != 3 || ch.unwanted != ErrPoison {
		t.Errorf("before an agent has ended it the chunk is %+v", ch)
	}
	c.mu.Unlock()
	say(outcome{Chunk: id, Withdrawn: true})
	proctest.Eventually(t, proctest.Patience, "the calls are sent one by one", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		alone := 0
		for _, ch := range c.chunks {
			if ch.n == 1 && ch.attempt == 2 {
				alone++
			}
		}
		return alone == 3
	})
	select {
	case err := <-ended:
		t.Errorf("the Map has ended: %v", err)
	default:
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	proctest.Eventually(t, proctest.Patience, "nothing is left of it", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.chunks) == 0
	})
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestDrainsAreNoPoison has one agent after the other be ended while it runs a call, as when machines are replaced: the call
// runs on the next one at once, and is not blamed.
func TestDrainsAreNoPoison(t *testing.T) {
	t.Parallel()
	s, err := StartServer(ServerConfig{Listen: "127.0.0.1:0", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := Dial(proctest.Within(t), Config{URL: s.URL()})
	if err != nil {
		t.Fatal(err)
	}
	gate, dir := proctest.NewGate(t), t.TempDir()
	fut := proctest.Do.Go(proctest.Within(t), c, proctest.Task{X: 3, Gate: gate.Path})
	const drains = maxDeliveries + maxBegun + 2
	for i := range drains {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		ended := make(chan error, 1)
		go func() { // ends when ctx does; waited for below
			ended <- RunAgent(ctx, AgentConfig{
				URL: s.URL(), AllowUnsigned: true, CacheDir: dir, Grace: time.Millisecond, Pool: multiproc.PoolConfig{Workers: 1, Stderr: io.Discard},
				Logger: slog.New(slog.DiscardHandler),
			})
		}()
		v := gate.Next()
		c.mu.Lock()
		for id, ch := range c.chunks {
			if ch.attempt != 0 || len(ch.begun) != 0 || id != uint64(i+1) {
				t.Errorf("after %d drains: chunk %d, attempt %d, begun %v", i, id, ch.attempt, ch.begun)
			}
		}
		c.mu.Unlock()
		if i == drains-1 {
			v.Release()
			if out, err := fut.Wait(proctest.Within(t)); out != 9 || err != nil {
				t.Errorf("got %d, %v", out, err)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// goneLink is a link to servers that are gone.
type goneLink struct {
	submitterLink
	given time.Duration // how long finish was waited for
}

func (d *goneLink) finish(ctx context.Context, _ string) error {
	began := time.Now()
	<-ctx.Done()
	d.given = time.Since(began)
	return ctx.Err()
}

func (d *goneLink) close() {}

// TestShutdownWithoutServers has Shutdown be called where no server answers any more: it does not take much longer than its
// context allows.
func TestShutdownWithoutServers(t *testing.T) {
	for what, given := range map[string]struct{ to, want time.Duration }{
		"little time": {50 * time.Millisecond, 50*time.Millisecond + releaseTime}, "all the time": {time.Hour, finishTime},
	} {
		synctest.Test(t, func(t *testing.T) {
			link := &goneLink{}
			c := newCluster(Config{})
			c.link = link
			ctx, cancel := context.WithTimeout(t.Context(), given.to)
			defer cancel()
			if err := c.Shutdown(ctx); err == nil || link.given != given.want {
				t.Errorf("%s: %v after %v, want an error after %v", what, err, link.given, given.want)
			}
		})
	}
}

// TestTeardownAtTheEnd has workers of an agent within the process be torn down when it ends.
func TestTeardownAtTheEnd(t *testing.T) {
	t.Parallel()
	log := proctest.LogFile(t)
	c, err := Dial(proctest.Within(t), Config{Pool: multiproc.PoolConfig{Workers: 1, Teardown: proctest.Do.With(proctest.Task{X: 5, Log: log})}})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := proctest.Square.Call(proctest.Within(t), c, 3); out != 9 || err != nil {
		t.Errorf("got %d, %v", out, err)
	}
	proctest.Want(t, "teardowns before the end", len(proctest.ReadLog(t, log)), 0)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	proctest.Want(t, "teardowns", len(proctest.ReadLog(t, log)), 1)
}

// TestOrphans has the engine keep chunks whose calls were sent anew: they are withdrawn, but not those that were there only once,
// as they may have been answered meanwhile.
func TestOrphans(t *testing.T) {
	c := newCluster(Config{})
	c.chunks[1] = &sent{}
	for i, want := range [][]uint64{nil, {2}, {2}, nil} {
		there := []map[uint64]bool{{1: true, 2: true}, {1: true, 2: true, 3: true}, {2: true}, {3: true}}[i]
		if got := c.orphansAmong(there); !slices.Equal(got, want) {
			t.Errorf("look %d: %v, want %v", i, got, want)
		}
	}
}

// TestAgentSaysWhatIsWrong has a directory for programs that others may write to: that is an error, and
// not something to wait for.
func TestAgentSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for what, cfg := range map[string]AgentConfig{
		"no server":   {AllowUnsigned: true},
		"no trust":    {URL: "nats://127.0.0.1:1"},
		"bad limit":   {URL: "nats://127.0.0.1:1", AllowUnsigned: true, CacheDir: t.TempDir(), CacheLimit: -1},
		"bad pool":    {URL: "nats://127.0.0.1:1", AllowUnsigned: true, CacheDir: t.TempDir(), Pool: multiproc.PoolConfig{MaxTasks: -1}},
		"bad workers": {URL: "nats://127.0.0.1:1", AllowUnsigned: true, CacheDir: t.TempDir(), Pool: multiproc.PoolConfig{Workers: -1}},
	} {
		if err := RunAgent(proctest.Within(t), cfg); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

// TestBatchesShareMessages has calls be handed to workers one by one, but not be sent so.
func TestBatchesShareMessages(t *testing.T) {
	t.Parallel()
	c, err := Dial(proctest.Within(t), Config{Pool: multiproc.PoolConfig{Workers: 2}})
	if err != nil {
		t.Fatal(err)
	}
	const n = 10_000
	got, err := proctest.Square.Map(proctest.Within(t), c, proctest.Numbers(n), multiproc.WithBatch(1))
	if err != nil {
		t.Fatal(err)
	}
	proctest.Want(t, "squares", got, proctest.Squares(n))
	if c.nextID > n/2 {
		t.Errorf("%d calls took %d messages", n, c.nextID)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

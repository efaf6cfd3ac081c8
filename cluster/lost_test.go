//go:build unix

package cluster

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
	"github.com/seed84f35039/multiproc/internal/wire"
)

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
	s, c := dialServer(t, Config{})
	fut := proctest.Square.Go(proctest.Within(t), c, 3)
	submitted(t, c)
	if err := c.link.(*natsLink).sent.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	runAgent(t, AgentConfig{URL: s.URL(), AllowUnsigned: true, Pool: multiproc.PoolConfig{Workers: 1}})
	if out, err := fut.Wait(proctest.Within(t)); out != 9 || err != nil {
		t.Errorf("got %d, %v", out, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestPoisonIsFoundAmongOthers has a chunk of several calls end its agents: the calls are sent one by one, and none of them
// fails before it is known which one it was.
func TestPoisonIsFoundAmongOthers(t *testing.T) {
	t.Parallel()
	_, c := dialServer(t, Config{Pool: multiproc.PoolConfig{KillGrace: 50 * time.Millisecond}})
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

// TestCostOfCalls has an outcome not say how long its calls took: what is known of them stays.
func TestCostOfCalls(t *testing.T) {
	var k cost
	k.note(2, 2*time.Second)
	k.note(5, 0)
	k.note(0, time.Hour)
	proctest.Want(t, "the time of a call", k.ran, time.Second)
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

// TestAgentTimeoutOfEach has calls be submitted while there is no agent, one a while after the other: each waits for as long.
func TestAgentTimeoutOfEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(Config{AgentTimeout: time.Minute})
		defer c.end()
		c.link = &goneLink{}
		var failed [2]error
		submit := func(i int) {
			b := multiproc.NewRawBatch(t.Context(), multiproc.RawCalls{Func: "f", Args: [][]byte{nil}, Fail: func(_ int, err error) { failed[i] = err }})
			e := &entry{b: b, left: 1, stop: func() bool { return true }, since: time.Now()}
			c.queue, c.queued, c.open = append(c.queue, span{e: e, n: 1}), c.queued+1, c.open+1
		}
		look := func(after time.Duration, want ...bool) {
			t.Helper()
			time.Sleep(after) // sleep: the clock is that of synctest
			c.lookForAgents()
			for i, want := range want {
				if errors.Is(failed[i], ErrNoAgents) != want {
					t.Errorf("call %d: %v", i, failed[i])
				}
			}
		}
		submit(0)
		look(59*time.Second, false)
		submit(1)
		look(2*time.Second, true, false)
		look(57*time.Second, true, false)
		look(2*time.Second, true, true)
		if c.open != 0 || c.queued != 0 || len(c.queue) != 0 {
			t.Errorf("%d calls are open, %d wait", c.open, c.queued)
		}
	})
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

// slowBlobs is a link on which objects come when the test says so.
type slowBlobs struct {
	lossy
	come chan []byte
}

func (s *slowBlobs) getBlob(ctx context.Context, _, _ string, _ int64) ([]byte, error) {
	select {
	case data := <-s.come:
		return data, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
func (*slowBlobs) dropBlob(context.Context, string, string) {}

// TestOutcomesInTurn has half of the answers of a chunk be in an object that takes its time, which is told twice, and the agent give
// back the chunk before it comes: the other half is sent again, and no more.
func TestOutcomesInTurn(t *testing.T) {
	c := newCluster(Config{})
	link := &slowBlobs{come: make(chan []byte)}
	c.link = link
	got := map[int]int{}
	b := multiproc.NewRawBatch(t.Context(), multiproc.RawCalls{
		Func: "f", Args: make([][]byte, 4), Return: func(i, _ int, results [][]byte) {
			for k := range results {
				got[i+k]++
			}
		},
		Fail: func(i int, err error) { t.Errorf("call %d: %v", i, err) },
	})
	e := &entry{b: b, left: 4, stop: func() bool { return true }}
	c.chunks[1], c.open = &sent{span: span{e: e, n: 4}, answered: make([]bool, 4), left: 4, stored: true}, 4
	say := func(o outcome) {
		t.Helper()
		o.Chunk = 1
		data, err := encodeOutcome(&o)
		if err != nil {
			t.Fatal(err)
		}
		c.onOutcome(data)
	}
	blob := outcome{Blob: c.job + ".x", BlobLen: 1}
	say(blob)
	say(blob)
	say(outcome{Returned: true, Answers: appendAnswer(nil, answer{3, 0, isResult, [][]byte{{1}}})})
	link.come <- appendAnswer(nil, answer{1, 0, isResult, [][]byte{{1}, {1}}})
	c.fetchers.Wait()
	proctest.Want(t, "answers", got, map[int]int{1: 1, 2: 1, 3: 1})
	if len(c.queue) != 1 || c.queue[0].i != 0 || c.queue[0].n != 1 || len(c.chunks) != 0 || c.open != 1 {
		t.Errorf("to be sent: %+v, %d chunks, %d calls are open", c.queue, len(c.chunks), c.open)
	}
	c.end()
}

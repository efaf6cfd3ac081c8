//go:build unix

package cluster

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

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

// lossy is a link to an engine that has lost all chunks.
type lossy struct{ goneLink }

func (*lossy) pending(context.Context, string) (map[uint64]bool, error) { return nil, nil }
func (*lossy) tell(string, []byte)                                      {}

// TestAbandonedInTheMidstOfALook has all calls be given up in the moment in which one of several lost ones is: none is out of
// sight then, in whatever order they are looked at.
func TestAbandonedInTheMidstOfALook(t *testing.T) {
	const calls, rounds = 8, 20
	for range rounds {
		c := newCluster(Config{})
		c.link = &lossy{}
		answered := 0
		for id := range uint64(calls) {
			b := multiproc.NewRawBatch(t.Context(), multiproc.RawCalls{Func: "f", Args: [][]byte{nil}, Fail: func(_ int, err error) {
				answered++
				if id == 0 {
					proctest.WantErr(t, err, ErrPoison)
					c.abandon(multiproc.ErrClosed)
					return
				}
				proctest.WantErr(t, err, multiproc.ErrClosed)
			}})
			e := &entry{b: b, left: 1, stop: func() bool { return true }}
			c.chunks[id] = &sent{span: span{e: e, n: 1}, answered: make([]bool, 1), left: 1, stored: true, missing: true}
			c.open++
		}
		c.chunks[0].attempt = maxAttempts - 1
		c.lapsed = time.Now()                         // so that the others are sent again
		c.chunks[0].since = c.lapsed.Add(time.Second) // but not this one
		c.lookForChunks()
		if answered != calls || c.open != 0 {
			t.Fatalf("%d of %d calls are answered, %d are open", answered, calls, c.open)
		}
		c.end()
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

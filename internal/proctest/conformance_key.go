package proctest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
)

var keyCases = []behaviour{
	{"K01 each call has a key of its own, on all executors", needs{}, ownKeys},
	{"K02 a call that is run again has the key that it had", needs{}, keptKeys},
	{"K02 a call whose worker dies has the key that it had", needs{crashes: true}, keptByCrash},
	{"K03 calls that a call makes have keys of their own", needs{}, nestedKeys},
	{"K03 calls that a call makes in workers of its own too", needs{crashes: true}, nestedInWorkers},
	{"K04 calls that go to another worker keep their keys apart", needs{}, keysOfReturned},
}

// KeyOf returns the key of its call, whatever it is called with.
var KeyOf = multiproc.Register("key of", func(ctx context.Context, _ int) (string, error) {
	key := multiproc.Key(ctx)
	child, cancel := context.WithCancel(ctx)
	defer cancel()
	if derived := multiproc.Key(child); derived != key {
		return "", fmt.Errorf("a derived context has the key %q, the call's is %q", derived, key)
	}
	return key, nil
})

// Trial is the argument of [Try].
type Trial struct {
	Log  string // each run appends the key of its call
	Runs int    // so many, all but the last fail
	End  string // how they fail: see [Task]
}

// Try returns the keys that its runs had.
var Try = multiproc.Register("try", func(ctx context.Context, x Trial) ([]string, error) {
	f, err := os.OpenFile(x.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := fmt.Fprintln(f, multiproc.Key(ctx)); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(x.Log)
	if err != nil {
		return nil, err
	}
	keys := strings.Fields(string(text))
	if len(keys) < x.Runs {
		if err := (Task{End: x.End}).end(); err != nil {
			return nil, err
		}
	}
	return keys, nil
})

// KeysWithin returns the key of its call and those of n calls that it makes, in workers of its own or on
// Threads.
var KeysWithin = multiproc.Register("keys within", func(ctx context.Context, workers bool) ([]string, error) {
	var ex multiproc.Executor = multiproc.NewThreads(multiproc.ThreadsConfig{})
	if workers {
		ex = multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
	}
	defer ex.Close()
	keys, err := KeyOf.Map(ctx, ex, make([]int, 3))
	return append(keys, multiproc.Key(ctx)), err
})

// wantKeys checks that there are n keys, all of them different.
func wantKeys(t *testing.T, keys []string, n int) {
	t.Helper()
	sorted := slices.Sorted(slices.Values(keys))
	Want(t, "number of different keys", len(slices.Compact(sorted)), n)
	for _, key := range keys {
		if prefix, number, ok := strings.Cut(key, "/"); !ok || prefix == "" || number == "" {
			t.Fatalf("the key %q is not a prefix and a number", key)
		}
	}
}

func ownKeys(t *testing.T, s Subject) {
	n := 3000
	if !s.Reuses {
		n = 8
	}
	var keys []string
	for _, ex := range []multiproc.Executor{s.start(t, Options{Workers: 2}), s.start(t, Options{Workers: 2})} {
		out, err := KeyOf.Map(Within(t), ex, make([]int, n))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, out...)
		for key, err := range KeyOf.Stream(Within(t), ex, slices.Values(make([]int, n))) {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, key)
		}
		var futures []*multiproc.Future[string]
		for range n / 4 {
			futures = append(futures, KeyOf.Go(Within(t), ex, 0))
		}
		for _, fut := range futures {
			key, err := fut.Wait(Within(t))
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, key)
		}
	}
	wantKeys(t, keys, 2*(2*n+n/4))
	Want(t, "key outside a call", multiproc.Key(t.Context()), "")
}

// tried runs calls that fail at first, and checks the keys of their runs.
func tried(t *testing.T, s Subject, end string) {
	const n, runs = 6, 3
	ex := s.start(t, Options{Workers: 2, Retry: multiproc.Retry{Attempts: runs, Backoff: time.Millisecond}})
	trials := make([]Trial, n)
	for i := range trials {
		trials[i] = Trial{LogFile(t), 1 + i%runs, end}
	}
	out, err := Try.Map(Within(t), ex, trials)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for i, own := range out {
		Want(t, "keys of a call", own, slices.Repeat(own[:1], trials[i].Runs))
		keys = append(keys, own[0])
	}
	wantKeys(t, keys, n)
	again, err := Try.Call(Within(t), ex, Trial{LogFile(t), runs, end})
	if err != nil {
		t.Fatal(err)
	}
	Want(t, "keys of a call by itself", again, slices.Repeat(again[:1], runs))
}

func keptKeys(t *testing.T, s Subject) { tried(t, s, "error") }

func keptByCrash(t *testing.T, s Subject) { tried(t, s, "exit 3") }

func nested(t *testing.T, s Subject, workers bool) {
	ex := s.start(t, Options{Workers: 2})
	out, err := KeysWithin.Map(Within(t), ex, slices.Repeat([]bool{workers}, 3))
	if err != nil {
		t.Fatal(err)
	}
	wantKeys(t, slices.Concat(out...), 3*4)
}

func nestedKeys(t *testing.T, s Subject) { nested(t, s, false) }

func nestedInWorkers(t *testing.T, s Subject) { nested(t, s, true) }

// keysOfReturned has calls wait behind one that runs, cancels some of them, and has others be taken
// by another worker.
func keysOfReturned(t *testing.T, s Subject) {
	ex, gate := s.start(t, Options{Workers: 2}), NewGate(t)
	blocked := Do.Go(Within(t), ex, Task{Gate: gate.Path})
	v := gate.Next()
	keys := map[string]bool{}
	for round := range 10 {
		var futures []*multiproc.Future[string]
		for range s.some(40) {
			futures = append(futures, KeyOf.Go(Within(t), ex, round))
		}
		for i, fut := range futures {
			if i%3 == 0 {
				fut.Cancel()
			}
		}
		for _, fut := range futures {
			switch key, err := fut.Wait(Within(t)); {
			case errors.Is(err, context.Canceled):
			case err != nil || keys[key]:
				t.Fatalf("got key %q, %v, once more: %t", key, err, keys[key])
			default:
				keys[key] = true
			}
		}
	}
	v.Release()
	if _, err := blocked.Wait(Within(t)); err != nil {
		t.Error(err)
	}
	wantKeys(t, slices.Collect(maps.Keys(keys)), len(keys))
}

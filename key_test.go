//go:build unix

package multiproc_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// pay pretends to pay: a receipt is written once for each key, and the first attempt fails after it.
var pay = multiproc.Register("example.pay", func(ctx context.Context, receipts string) (string, error) {
	name := receipts + "/" + strings.ReplaceAll(multiproc.Key(ctx), "/", "-")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL, 0o600)
	if os.IsExist(err) {
		return "paid before", nil
	}
	if err != nil {
		return "", err
	}
	f.Close()
	return "", fmt.Errorf("paid, but could not say so")
})

// A call that is run again has the key that it had, and so can tell what it has done.
func ExampleKey() {
	receipts, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(receipts)
	pool := multiproc.NewPool(multiproc.PoolConfig{Retry: multiproc.Retry{Attempts: 2}})
	defer pool.Close()

	fmt.Println(pay.Map(context.Background(), pool, []string{receipts, receipts}))
	files, err := os.ReadDir(receipts)
	fmt.Println(len(files), err)
	// Output:
	// [paid before paid before] <nil>
	// 2 <nil>
}

// appendKey appends the key of its call to a file.
var appendKey = multiproc.Register("append key", func(ctx context.Context, file string) (struct{}, error) {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return struct{}{}, err
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, "[%s]\n", multiproc.Key(ctx))
	return struct{}{}, err
})

// TestKeysOfWorkers has Setup and Teardown have no keys, and the calls between them.
func TestKeysOfWorkers(t *testing.T) {
	t.Parallel()
	for _, concurrency := range []int{1, 2} {
		log := proctest.LogFile(t)
		pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Concurrency: concurrency, Setup: appendKey.With(log), Teardown: appendKey.With(log)})
		for range 3 {
			if _, err := appendKey.Call(proctest.Within(t), pool, log); err != nil {
				t.Error(err)
			}
		}
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
		text, err := os.ReadFile(log)
		lines := strings.Fields(string(text))
		if err != nil || len(lines) != 5 || lines[0] != "[]" || lines[4] != "[]" {
			t.Fatalf("got %q, %v", lines, err)
		}
		slices.Sort(lines)
		proctest.Want(t, "different keys", len(slices.Compact(lines)), 4)
	}
}

// TestKeysOfProcesses has processes of their own, with spares and without, have keys of their own.
func TestKeysOfProcesses(t *testing.T) {
	t.Parallel()
	spares := multiproc.NewSpares(1, multiproc.ProcessConfig{})
	defer spares.Close()
	keys := map[string]bool{}
	for i, cfg := range []multiproc.ProcessConfig{{}, {}, {Spares: spares}, {Spares: spares}} {
		if err := spares.Start(proctest.Within(t)); err != nil {
			t.Fatal(err)
		}
		p, err := proctest.KeyOf.Start(t.Context(), 0, cfg)
		if err != nil {
			t.Fatal(err)
		}
		key, err := p.Wait(proctest.Within(t))
		if err != nil || key == "" || keys[key] {
			t.Errorf("process %d: got key %q, %v", i, key, err)
		}
		keys[key] = true
	}
}

// TestKeysOfManyCalls has 30,000 calls of two pools at once, and large ones, have keys of their own.
func TestKeysOfManyCalls(t *testing.T) {
	t.Parallel()
	keys := map[string]bool{}
	came := make(chan []string)
	for range 2 {
		go func() { // ends when its keys are taken below
			pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2})
			defer pool.Close()
			out, err := proctest.KeyOf.Map(proctest.Within(t), pool, make([]int, 15_000))
			if err != nil {
				t.Error(err)
			}
			for range 3 {
				large, err := keyOfLarge.Call(proctest.Within(t), pool, make([]byte, 1<<20))
				if err != nil {
					t.Error(err)
				}
				out = append(out, large)
			}
			came <- out
		}()
	}
	for range 2 {
		for _, key := range <-came {
			keys[key] = true
		}
	}
	proctest.Want(t, "different keys", len(keys), 2*(15_000+3))
}

var keyOfLarge = multiproc.Register("key of large", func(ctx context.Context, _ []byte) (string, error) {
	return multiproc.Key(ctx), nil
})

// TestKeysOfRawCalls has those who pass calls on say their keys.
func TestKeysOfRawCalls(t *testing.T) {
	t.Parallel()
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2})
	defer pool.Close()
	for _, c := range []struct {
		key  string
		n    int
		want func(i int) string
	}{
		{"job.a", 5, func(i int) string { return fmt.Sprintf("job.a/%d", 1000+i) }},
		{strings.Repeat("k", 255), 2, func(i int) string { return fmt.Sprintf("%s/%d", strings.Repeat("k", 255), 1000+i) }},
		{strings.Repeat("k", 256), 2, nil},
		{"job.a", 5, func(i int) string { return fmt.Sprintf("job.a/%d", 1000+i) }},
	} {
		type answer struct {
			i   int
			key string
			err error
		}
		came := make(chan answer, c.n)
		calls := multiproc.RawCalls{Func: "key of", Args: slices.Repeat([][]byte{{0}}, c.n), Key: c.key, First: 1000, Fail: func(i int, err error) { came <- answer{i, "", err} }, Return: func(i, _ int, results [][]byte) {
			for k, result := range results {
				came <- answer{i + k, string(result), nil}
			}
		}}
		if err := pool.Submit(multiproc.NewRawBatch(t.Context(), calls)); err != nil {
			t.Fatal(err)
		}
		for range c.n {
			a := <-came
			if c.want == nil {
				if a.err == nil {
					t.Errorf("a key of %d bytes is taken", len(c.key))
				}
			} else if want := c.want(a.i); a.err != nil || !strings.HasSuffix(a.key, want) {
				t.Errorf("call %d: got %q, %v, want %q", a.i, a.key, a.err, want)
			}
		}
	}
}

// TestKeyOfBatch has a batch say the keys of its calls.
func TestKeyOfBatch(t *testing.T) {
	t.Parallel()
	raw := multiproc.NewRawBatch(t.Context(), multiproc.RawCalls{Args: make([][]byte, 3)})
	prefix, first := raw.Key(0)
	again, third := raw.Key(2)
	if prefix == "" || again != prefix || third != first+2 {
		t.Errorf("got %q/%d and %q/%d", prefix, first, again, third)
	}
	if _, next := multiproc.NewRawBatch(t.Context(), multiproc.RawCalls{Args: make([][]byte, 1)}).Key(0); next < first+3 {
		t.Errorf("the next batch begins with number %d, this one has three from %d on", next, first)
	}
}

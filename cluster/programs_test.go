package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// whatRuns returns the executable of the worker.
var whatRuns = multiproc.Register("cluster.whatRuns", func(context.Context, int) (string, error) { return os.Executable() })

// onlyHere is not known to workers.
var onlyHere = func() *multiproc.Func[int, int] {
	if os.Getenv("MULTIPROC_WORKER") != "" {
		return nil
	}
	return multiproc.Register("cluster.onlyHere", func(_ context.Context, x int) (int, error) { return x, nil })
}()

// submitElsewhere is what another version of this program does: it calls whatRuns, prints what that says, and waits for the
// end of its input.
func submitElsewhere(url string) error {
	os.Unsetenv(roleEnv)
	multiproc.Init()
	c, err := Dial(context.Background(), Config{URL: url, User: "other"})
	if err != nil {
		return err
	}
	names, err := whatRuns.Map(context.Background(), c, make([]int, 100))
	fmt.Println(strings.Join(names, "\n"))
	io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, c.Close())
}

// startBoth starts a server and an agent for a test.
func startBoth(t *testing.T) (url string) {
	t.Helper()
	s, err := StartServer(ServerConfig{Listen: "127.0.0.1:0", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { // ends with the test, which waits for it
		ended <- RunAgent(ctx, AgentConfig{
			URL: s.URL(), Name: "one", AllowUnsigned: true, CacheDir: t.TempDir(), Pool: multiproc.PoolConfig{Workers: 2}, Logger: slog.New(slog.DiscardHandler),
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, s.Close()); err != nil {
			t.Error(err)
		}
	})
	return s.URL()
}

// TestPrograms has two versions of a program share an agent at the same time.
func TestPrograms(t *testing.T) {
	t.Parallel()
	url := startBoth(t)
	c, err := Dial(proctest.Within(t), Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	mine, err := whatRuns.Map(proctest.Within(t), c, make([]int, 100))
	if err != nil {
		t.Fatal(err)
	}
	// A newer version: this one with something behind it, which is another program by its hash.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(t.TempDir(), "newer")
	if err := os.WriteFile(newer, append(data, "newer"...), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(proctest.Within(t), newer)
	cmd.Env = append(os.Environ(), roleEnv+"=submit "+url)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	again, err := whatRuns.Map(proctest.Within(t), c, make([]int, 1000)) // meanwhile
	if err != nil {
		t.Error(err)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	theirs := strings.Fields(out.String())
	if len(theirs) != 100 {
		t.Fatalf("%d answers of the newer version: %s", len(theirs), &stderr)
	}
	for what, names := range map[string][]string{"before": mine, "meanwhile": again, "the newer version": theirs} {
		for _, name := range names {
			if same := name == mine[0]; same != (what != "the newer version") {
				t.Fatalf("%s: run by %s, where the first ones were run by %s", what, name, mine[0])
			}
		}
	}
	_, err = onlyHere.Call(proctest.Within(t), c, 1)
	proctest.WantErr(t, err, multiproc.ErrUnknownFunc)
	if !strings.Contains(err.Error(), "cluster.onlyHere") || !strings.Contains(err.Error(), "agent one") {
		t.Errorf("the error of a function that workers do not have is %v", err)
	}
}

// counted is how often this process was set up, and with what.
var counted atomic.Int64

var (
	setUp    = multiproc.Register("cluster.setUp", func(_ context.Context, n int) (int, error) { return int(counted.Add(int64(n))), nil })
	setUpTo  = multiproc.Register("cluster.setUpTo", func(context.Context, int) (int, error) { return int(counted.Load()), nil })
	waitLong = multiproc.Register("cluster.waitLong", func(ctx context.Context, _ int) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})
)

// TestTravellingTerms has Setup and CallTimeout of two submitters of one program each hold for its own calls.
func TestTravellingTerms(t *testing.T) {
	t.Parallel()
	url := startBoth(t)
	for _, n := range []int{5, 7} {
		c, err := Dial(proctest.Within(t), Config{URL: url, Pool: multiproc.PoolConfig{Setup: setUp.With(n), CallTimeout: 50 * time.Millisecond}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		got, err := setUpTo.Map(proctest.Within(t), c, make([]int, 10))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range got {
			if m != n {
				t.Fatalf("a worker was set up with %d, want %d", m, n)
			}
		}
		_, err = waitLong.Call(proctest.Within(t), c, 1)
		if timeout, ok := errors.AsType[*multiproc.TimeoutError](err); !ok || timeout.Limit != 50*time.Millisecond || timeout.Agent != "one" || !strings.Contains(err.Error(), " (agent one, pid ") {
			t.Errorf("a call that waits: %v", err)
		}
	}
}

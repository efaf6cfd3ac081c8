package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
)

// roleEnv is in the environment of processes that tests start: what they do, and with what cache.
const roleEnv = "MULTIPROC_CLUSTER_TEST_ROLE"

// play does what a role says and returns the exit code.
func play(role string) int {
	what, dir, _ := strings.Cut(role, " ")
	if what == "submit" {
		if err := submitElsewhere(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	if what == part {
		return playPart(dir)
	}
	if what == "noInit" {
		_, err := Dial(context.Background(), Config{URL: dir})
		fmt.Println(errors.Is(err, multiproc.ErrNotInitialized))
		return 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c, err := newCache(dir, crowdLimit)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	switch what {
	case "die": // in the middle of a download
		hash := programOf(contentOf(1)).Hash
		use, errUse := c.claim(ctx, hash)
		mine, errOwn := c.own(ctx, hash)
		f, err := c.createTemp(hash)
		if err == nil {
			_, err = f.WriteString("not all of it")
		}
		err = errors.Join(errUse, errOwn, err)
		fmt.Println("downloading", err)
		io.Copy(io.Discard, os.Stdin) // until it is killed
		runtime.KeepAlive([]*os.File{use, mine, f})
		return 1
	case "crowd":
		root, err := os.MkdirTemp("", "")
		if err != nil {
			fmt.Println(err)
			return 1
		}
		defer os.RemoveAll(root)
		store, stop, err := startStore(root)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		defer stop()
		if err := crowd(ctx, c, store, root); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("all right")
		return 0
	}
	return 2
}

// The crowd is several goroutines in several processes that want these programs of one cache, which has
// not room for all.
const (
	crowdPrograms   = 5
	crowdGoroutines = 3
	crowdRounds     = 30
	crowdLimit      = 3 * contentSize
)

func crowd(ctx context.Context, c *cache, store objectStore, dir string) error {
	var programs []Program
	for i := range crowdPrograms {
		path := filepath.Join(dir, "program"+strconv.Itoa(i))
		if err := os.WriteFile(path, contentOf(i), 0o700); err != nil {
			return err
		}
		programs = append(programs, programOf(contentOf(i)))
		if err := upload(ctx, store, path, programs[i]); err != nil {
			return err
		}
	}
	ended := make(chan error)
	for g := range crowdGoroutines {
		go func() {
			for i := range crowdRounds {
				if err := useOnce(ctx, c, store, programs[(g+i*i)%len(programs)]); err != nil {
					ended <- err
					return
				}
			}
			ended <- nil
		}()
	}
	var first error
	for range crowdGoroutines {
		if err := <-ended; first == nil {
			first = err
		}
	}
	return first
}

// useOnce fetches a program and looks whether it is what it should be for as long as it is in use.
func useOnce(ctx context.Context, c *cache, store objectStore, p Program) error {
	path, release, err := c.fetch(ctx, store, p)
	if err != nil {
		return err
	}
	defer release()
	for range 2 {
		if _, ok := verifyFile(path, p); !ok {
			return fmt.Errorf("%s is not there, or another one", path)
		}
	}
	return nil
}

// actor is a process that plays a role.
type actor struct {
	*exec.Cmd
	out *bufio.Reader
	in  io.Closer
}

func act(t *testing.T, role, dir string) *actor {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"="+role+" "+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return &actor{cmd, bufio.NewReader(out), in}
}

func (a *actor) expect(t *testing.T, line string) {
	t.Helper()
	if got, err := a.out.ReadString('\n'); err != nil || strings.TrimSpace(got) != line {
		t.Errorf("process says %q, %v; want %q", got, err, line)
	}
}

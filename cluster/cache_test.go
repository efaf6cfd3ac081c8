package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed84f35039/multiproc/internal/proctest"
)

func openCache(t *testing.T, dir string, limit int64) *cache {
	t.Helper()
	c, err := newCache(dir, limit)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("a cache of programs needs flock: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// use fetches a program, which must be right.
func (c *cache) use(t *testing.T, s objectStore, p Program) (release func()) {
	t.Helper()
	path, release, err := c.fetch(proctest.Within(t), s, p)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := verifyFile(path, p); !ok {
		t.Fatalf("%s is not the program", path)
	}
	return release
}

// has checks which of the programs are in the cache, and that nothing else is.
func (c *cache) has(t *testing.T, want ...Program) {
	t.Helper()
	names := []string{lockName}
	for _, p := range want {
		names = append(names, p.Hash, p.Hash+useSuffix)
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	slices.Sort(names)
	if !slices.Equal(got, names) {
		t.Errorf("the cache has %q, want %q", got, names)
	}
}

func TestFetch(t *testing.T) {
	s := newStore(t)
	p := s.put(t, 1)
	c := openCache(t, filepath.Join(t.TempDir(), "a", "b"), 0)
	for range 3 {
		c.use(t, s, p)()
	}
	if n := s.gets.Load(); n != 1 {
		t.Errorf("downloaded %d times, want once", n)
	}
	c.has(t, p)
	if got, err := os.ReadFile(c.path(p.Hash)); err != nil || !bytes.Equal(got, contentOf(1)) {
		t.Errorf("the file is another one, %v", err)
	}
	// So for another process.
	openCache(t, c.dir, 0).use(t, s, p)()
	if n := s.gets.Load(); n != 1 {
		t.Errorf("downloaded %d times, want once", n)
	}
}

func TestCacheThatOthersMayChange(t *testing.T) {
	dir := t.TempDir()
	openCache(t, dir, 0)
	if err := os.Chmod(dir, 0o770); err != nil {
		t.Fatal(err)
	}
	_, err := newCache(dir, 0)
	wantErr(t, err, "others may write to")
	_, err = newCache(t.TempDir(), -1)
	wantErr(t, err, "is -1; give bytes, or 0 for 4 GiB")
	if os.Geteuid() == 0 {
		dir := t.TempDir()
		if err := os.Chown(dir, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		_, err = newCache(dir, 0)
		wantErr(t, err, "belongs to another user")
	}
}

// TestCacheBelowWhatOthersMayChange has others able to rename a cache that is the agent's own, or not.
func TestCacheBelowWhatOthersMayChange(t *testing.T) {
	openCache(t, t.TempDir(), 0)
	top, err := os.MkdirTemp("/tmp", "multiproc-test-") // t.TempDir is where nobody else may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	if top, err = filepath.EvalSymlinks(top); err != nil {
		t.Fatal(err)
	}
	chmod := func(path string, mode fs.FileMode) {
		t.Helper()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	chmod(top, 0o755)
	group, link := filepath.Join(top, "group"), filepath.Join(top, "link")
	dir := filepath.Join(group, "team", "mp")
	openCache(t, dir, 0)
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if c := openCache(t, link, 0); c.dir != dir {
		t.Errorf("%s is used as %s, want %s", link, c.dir, dir)
	}
	for _, path := range []string{dir, link} {
		for _, mode := range []fs.FileMode{0o775, 0o757, 0o777 | fs.ModeSetgid} {
			chmod(group, mode)
			_, err := newCache(path, 0)
			wantErr(t, err, fmt.Sprintf("others may write to %s (mode %#o)", group, mode.Perm()))
		}
	}
	chmod(group, 0o777|fs.ModeSticky)
	openCache(t, dir, 0)
	chmod(group, 0o777|fs.ModeSetgid)
	chmod(top, 0o700)
	openCache(t, dir, 0)
	chmod(top, 0o710)
	_, err = newCache(dir, 0)
	wantErr(t, err, "others may write to "+group)
	if os.Geteuid() == 0 {
		chmod(group, 0o755)
		if err := os.Chown(group, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		_, err = newCache(dir, 0)
		wantErr(t, err, group+" belongs to another user")
	}
}

func TestFetchAtOnce(t *testing.T) {
	s := newStore(t)
	p := s.put(t, 1)
	c := openCache(t, t.TempDir(), 0)
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			<-begin
			if err := useOnce(proctest.Within(t), c, s, p); err != nil {
				t.Error(err)
			}
		})
	}
	close(begin)
	wg.Wait()
	if n := s.gets.Load(); n != 1 {
		t.Errorf("downloaded %d times, want once", n)
	}
}

// TestFetchOfAnotherObject has the store give something else than was signed.
func TestFetchOfAnotherObject(t *testing.T) {
	s := newStore(t)
	c := openCache(t, t.TempDir(), 0)
	for what, damage := range map[string]func(Program){
		"another content": func(p Program) { s.replace(t, p, contentOf(2)) },
		"longer":          func(p Program) { s.replace(t, p, append(contentOf(1), 0)) },
		"shorter":         func(p Program) { s.replace(t, p, contentOf(1)[1:]) },
		"a byte flipped": func(p Program) {
			b := contentOf(1)
			b[len(b)/2] ^= 1
			s.replace(t, p, b)
		},
		"another chunk": func(p Program) { // which the store's own digest does not have
			info, err := s.objectStore.GetInfo(proctest.Within(t), p.Hash)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.js.Publish(proctest.Within(t), "$O."+testBucket+".C."+info.NUID, []byte("more")); err != nil {
				t.Fatal(err)
			}
		},
		"a chunk altered": func(p Program) {
			s.lose(t, p)
			info, err := s.objectStore.GetInfo(proctest.Within(t), p.Hash)
			if err != nil {
				t.Fatal(err)
			}
			for chunk := range slices.Chunk(contentOf(2), 100_000) {
				if _, err := s.js.Publish(proctest.Within(t), "$O."+testBucket+".C."+info.NUID, chunk); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			p := s.put(t, 1) // heals the store
			damage(p)
			path, release, err := c.fetch(proctest.Within(t), s, p)
			var altered *AlteredError
			if !errors.As(err, &altered) || path != "" || release != nil {
				t.Errorf("%q, %v", path, err)
			}
			c.has(t)
			if err := s.Delete(proctest.Within(t), p.Hash); err != nil {
				t.Fatal(err)
			}
		})
	}
	_, _, err := c.fetch(proctest.Within(t), s, programOf(contentOf(3)))
	if !errors.Is(err, jetstream.ErrObjectNotFound) {
		t.Errorf("no object: %v", err)
	}
	_, _, err = c.fetch(proctest.Within(t), s, Program{Hash: "../" + strings.Repeat("a", 61), Size: 1, GOOS: "x", GOARCH: "x", Name: "x"})
	wantErr(t, err, "SHA-256")
	c.has(t)
}

// TestFetchWithAnotherSize has a hash that is right and a size that is not.
func TestFetchWithAnotherSize(t *testing.T) {
	s := newStore(t)
	p := s.put(t, 1)
	c := openCache(t, t.TempDir(), 0)
	wrong := p
	wrong.Size++
	for range 2 { // the second time the file is there
		if _, _, err := c.fetch(proctest.Within(t), s, wrong); err == nil {
			t.Error("a program of another size was fetched")
		}
		c.use(t, s, p)()
	}
}

// TestAlteredFile alters what is in the cache, for this process and for one that has not verified it.
func TestAlteredFile(t *testing.T) {
	s := newStore(t)
	p := s.put(t, 1)
	c := openCache(t, t.TempDir(), 0)
	c.use(t, s, p)()
	path := c.path(p.Hash)
	write := func(content []byte) {
		t.Helper()
		if err := errors.Join(os.Chmod(path, 0o700), os.WriteFile(path, content, 0o700), os.Chmod(path, 0o500)); err != nil {
			t.Fatal(err)
		}
	}
	for what, damage := range map[string]func(){
		"truncated": func() { write(contentOf(1)[:1000]) },
		"empty":     func() { write(nil) },
		"longer":    func() { write(append(contentOf(1), 0)) },
		"another":   func() { write(contentOf(2)) },
		"writable": func() {
			if err := os.Chmod(path, 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"a link": func() {
			to := filepath.Join(t.TempDir(), "program")
			if err := errors.Join(os.WriteFile(to, contentOf(1), 0o500), os.Remove(path), os.Symlink(to, path)); err != nil {
				t.Fatal(err)
			}
		},
		"gone": func() {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for who, c := range map[string]*cache{"this process": c, "another process": openCache(t, c.dir, 0)} {
			damage()
			before := s.gets.Load()
			c.use(t, s, p)()
			if n := s.gets.Load() - before; n != 1 {
				t.Errorf("%s, %s: downloaded %d times, want once", what, who, n)
			}
			c.has(t, p)
		}
	}
	// Without the store it is not run either.
	write(contentOf(2))
	if err := s.Delete(proctest.Within(t), p.Hash); err != nil {
		t.Fatal(err)
	}
	if path, _, err := c.fetch(proctest.Within(t), s, p); err == nil {
		t.Errorf("%s was handed out", path)
	}
	c.has(t)
}

func TestEviction(t *testing.T) {
	s := newStore(t)
	var p []Program
	for i := range 6 {
		p = append(p, s.put(t, i))
	}
	c := openCache(t, t.TempDir(), 3*contentSize)
	c.use(t, s, p[0])()
	c.use(t, s, p[1])()
	c.use(t, s, p[2])()
	c.use(t, s, p[0])() // p[1] is the oldest now
	c.has(t, p[0], p[1], p[2])
	c.use(t, s, p[3])()
	c.has(t, p[0], p[2], p[3])

	// What is in use stays, for whoever uses it, also beyond the limit.
	another := openCache(t, c.dir, 3*contentSize)
	release := []func(){c.use(t, s, p[0]), another.use(t, s, p[2]), c.use(t, s, p[3])}
	c.use(t, s, p[4])()
	c.has(t, p[0], p[2], p[3])
	release = append(release, c.use(t, s, p[4]), another.use(t, s, p[5]))
	c.has(t, p[0], p[2], p[3], p[4], p[5])
	release[0]()
	release[0]()
	c.has(t, p[2], p[3], p[4], p[5])
	release[1]()
	c.has(t, p[3], p[4], p[5])
	for _, r := range release {
		r()
	}
	c.has(t, p[3], p[4], p[5])

	// What has several users is in use until the last one has released it.
	one := openCache(t, t.TempDir(), 1)
	first, second := one.use(t, s, p[0]), one.use(t, s, p[0])
	first()
	one.has(t, p[0])
	second()
	one.has(t)
}

// failingWriter takes some bytes, as a disk does that has no room for more.
type failingWriter struct {
	w    io.Writer
	room int
}

var errFull = errors.New("no space left on device")

func (f *failingWriter) Write(b []byte) (int, error) {
	n, err := f.w.Write(b[:min(len(b), f.room)])
	if f.room -= n; err == nil && n < len(b) {
		err = errFull
	}
	return n, err
}

func TestWriteErrorLeavesNothing(t *testing.T) {
	s := newStore(t)
	p := s.put(t, 1)
	c := openCache(t, t.TempDir(), 0)
	for _, room := range []int{0, 1, contentSize / 2, contentSize - 1} {
		c.through = func(w io.Writer) io.Writer { return &failingWriter{w, room} }
		if _, _, err := c.fetch(proctest.Within(t), s, p); !errors.Is(err, errFull) {
			t.Errorf("room for %d bytes: %v", room, err)
		}
		c.has(t)
	}
	c.through = nil
	c.use(t, s, p)()
	c.has(t, p)
}

// TestStalledDownload has an object whose chunks have gone, as those of one do that expires.
func TestStalledDownload(t *testing.T) {
	s := newStore(t)
	p := s.put(t, 1)
	s.lose(t, p)
	c := openCache(t, t.TempDir(), 0)
	c.idle = 200 * time.Millisecond
	if _, _, err := c.fetch(proctest.Within(t), s, p); !errors.Is(err, errStalled) {
		t.Errorf("%v", err)
	}
	c.has(t)

	// Somebody uploads it again in the meantime.
	before := s.gets.Load()
	s.get = sync.OnceFunc(func() { s.replace(t, p, contentOf(1)) })
	c.use(t, s, p)()
	if n := s.gets.Load() - before; n != 2 {
		t.Errorf("downloaded %d times, want twice", n)
	}
	c.has(t, p)
}

func TestFetchEndsWithItsContext(t *testing.T) {
	s := newStore(t)
	p := s.put(t, 1)
	s.lose(t, p)
	c := openCache(t, t.TempDir(), 0)
	c.idle = time.Hour
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(proctest.Within(t))
	s.get = func() { cancel(enough) }
	proctest.Promptly(t, "fetch after its context has ended", func() {
		if _, _, err := c.fetch(ctx, s, p); !errors.Is(err, enough) {
			t.Errorf("%v", err)
		}
	})
	c.has(t)
	if _, _, err := c.fetch(proctest.Ended(), s, p); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestFetchWithImpatientLeader has the one who downloads leave, and another who waits for that.
func TestFetchWithImpatientLeader(t *testing.T) {
	s := newStore(t)
	p := s.put(t, 1)
	c := openCache(t, t.TempDir(), 0)
	ctx, cancel := context.WithCancel(proctest.Within(t))
	writing, left := make(chan struct{}), make(chan struct{})
	c.through = func(w io.Writer) io.Writer {
		if ctx.Err() != nil {
			return w // that of the other one
		}
		return writerFunc(func(b []byte) (int, error) {
			close(writing)
			<-left
			return 0, errFull
		})
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, _, err := c.fetch(ctx, s, p); !errors.Is(err, context.Canceled) {
			t.Errorf("the first one: %v", err)
		}
	})
	<-writing
	wg.Go(func() {
		if err := useOnce(proctest.Within(t), c, s, p); err != nil {
			t.Errorf("the second one: %v", err)
		}
	})
	// It waits when it has its lock, or a little later; either way it is to get the program.
	proctest.Eventually(t, time.Minute, "a second claim", func() bool { return claims(c, p) == 2 })
	cancel()
	close(left)
	wg.Wait()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// claims counts the descriptors that this process has of the lock of a program.
func claims(c *cache, p Program) (n int) {
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && to == c.path(p.Hash)+useSuffix {
			n++
		}
	}
	return n
}

// TestLeftoversOfTheDead kills a process in the middle of a download.
func TestLeftoversOfTheDead(t *testing.T) {
	s := newStore(t)
	c := openCache(t, t.TempDir(), 0)
	dying := act(t, "die", c.dir)
	dying.expect(t, "downloading <nil>")
	temps := func() []string {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(c.dir, "*"+tempSuffix))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	first := s.put(t, 0)
	c.use(t, s, first)()
	if len(temps()) != 1 {
		t.Errorf("while the other process lives, there are %q", temps())
	}
	dying.Process.Kill()
	dying.Wait()
	second := s.put(t, 2)
	c.use(t, s, second)()
	c.has(t, first, second)
}

// TestCrowd has several processes share a cache that has not room for all that they want.
func TestCrowd(t *testing.T) {
	s := newStore(t)
	c := openCache(t, t.TempDir(), crowdLimit)
	others := []*actor{act(t, "crowd", c.dir), act(t, "crowd", c.dir)}
	if err := crowd(proctest.Within(t), c, s, t.TempDir()); err != nil {
		t.Error(err)
	}
	for _, a := range others {
		a.expect(t, "all right")
		if err := a.Wait(); err != nil {
			t.Error(err)
		}
	}
	c.tidy()
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	kept := 0
	for _, e := range entries {
		switch name := e.Name(); {
		case name == lockName, strings.HasSuffix(name, useSuffix):
		case len(name) == 64:
			kept++
		default:
			t.Errorf("%s was left", name)
		}
	}
	if kept > 3 {
		t.Errorf("%d programs were kept, and there is room for 3", kept)
	}
}

// TestFetchedCanBeExecuted starts what was fetched at once, while other processes are being started, which may
// inherit what is open.
func TestFetchedCanBeExecuted(t *testing.T) {
	s := newStore(t)
	c := openCache(t, t.TempDir(), 0)
	script := []byte("#!/bin/sh\nexit 7\n")
	busy, stop := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(busy)
		for {
			select {
			case <-stop:
				return
			default:
				run("/bin/true")
			}
		}
	}()
	for i := range 20 {
		content := append(script, fmt.Sprint("# ", i, "\n")...)
		path := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		p := programOf(content)
		if err := upload(proctest.Within(t), s, path, p); err != nil {
			t.Fatal(err)
		}
		exe, release, err := c.fetch(proctest.Within(t), s, p)
		if err != nil {
			t.Fatal(err)
		}
		if err := run(exe); err == nil || err.Error() != "exit status 7" {
			t.Errorf("executed: %v", err)
		}
		release()
	}
	close(stop)
	<-busy
}

func run(path string) error { return exec.Command(path).Run() }

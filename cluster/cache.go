package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// cache is a directory of executables that were verified. Several processes may share it; it must be in a file
// system with flock, and on systems without that there is none.
//
// In it are, for the executable with hash H:
//
//	H       the executable, complete (mode 0500)
//	H.use   locked (shared) by those who use H; its time is that of the last use
//	H.get   locked by who verifies, downloads or replaces H
//	H.tmp   H while it is downloaded
//	lock    locked while somebody looks for a lock or for what to remove, for moments
//
// Its methods may be called from several goroutines at once.
type cache struct {
	dir   string
	limit int64         // how many bytes of executables are kept while nobody uses them; 0: any number
	idle  time.Duration // how long a download may go without a byte

	through func(io.Writer) io.Writer // in tests, is between a download and its file

	mu      sync.Mutex
	flights map[flightKey]*flight
	seen    map[string]fs.FileInfo // by hash: the file as it was when this process verified it
}

type flightKey struct {
	hash string
	size int64
}

// flight is one goroutine that verifies or downloads an executable, and others that wait for it.
type flight struct {
	done chan struct{} // closed at the end; the rest is read after that
	err  error
	left bool // its own context had ended, which says nothing to others
}

// newCache opens a directory and makes it if need be (mode 0700). Where the system has no flock the error is
// errors.ErrUnsupported. A directory in which others could replace what was verified is refused.
func newCache(dir string, limit int64) (*cache, error) {
	if !haveLocks {
		return nil, fmt.Errorf("cluster: a cache of programs on %s: %w", runtime.GOOS, errors.ErrUnsupported)
	}
	if limit < 0 {
		return nil, fmt.Errorf("cluster: the limit of a cache of programs is %d; give bytes, or 0 for 4 GiB", limit)
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir) // once: where a link leads may change
	}
	if err != nil {
		return nil, fmt.Errorf("cluster: open a cache of programs: %w", err)
	}
	if err := onlyOurs(dir); err != nil {
		return nil, fmt.Errorf("cluster: open a cache of programs: %w", err)
	}
	c := &cache{dir: dir, limit: limit, idle: stall, flights: map[flightKey]*flight{}, seen: map[string]fs.FileInfo{}}
	c.tidy()
	return c, nil
}

// onlyOurs checks that at this path, which has no links, nobody but this user and root can replace a directory or what is in it.
// Whoever may write to a directory above it can rename what is there, and so have the path lead elsewhere; only where it
// is sticky they cannot. Below a directory that no others may enter they can do nothing, whatever its modes are. That
// is how an emptyDir of Kubernetes can be used: it belongs to root and all may write to it, as to a directory for a whole group.
func onlyOurs(dir string) error {
	path, entered := "", true // whether others get there
	for part := range strings.SplitAfterSeq(dir, string(filepath.Separator)) {
		path = filepath.Join(path, part)
		if !entered && path != dir {
			continue
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		mode := info.Mode()
		switch {
		case ownedByOther(info):
			return fmt.Errorf("%s belongs to another user, who could replace programs; give another directory", path)
		case mode.Perm()&0o022 == 0:
		case path == dir:
			return fmt.Errorf("others may write to %s (mode %#o), and so replace programs: chmod go-w it, after emptying it", path, mode.Perm())
		case mode&fs.ModeSticky == 0:
			return fmt.Errorf("others may write to %s (mode %#o), and so replace programs in %s: give another directory, or chmod +t that", path, mode.Perm(), dir)
		}
		entered = mode.Perm()&0o011 != 0
	}
	return nil
}

// fetch returns the path of the executable of a program, after its hash was verified. It is there until release, which must be
// called once it is not needed any more, and may be called again. What is not in the cache yet is downloaded, once for all
// goroutines that want it.
//
// p must have been verified itself. fetch takes no longer than ctx, and [transferTime] for the download. The error
// is an [*AlteredError] if the store has another executable under that hash; then, as after any error, nothing of it is left in the cache.
func (c *cache) fetch(ctx context.Context, store jetstream.ObjectStore, p Program) (path string, release func(), err error) {
	if err := p.check(); err != nil {
		return "", nil, fmt.Errorf("cluster: fetch a program: %w", err)
	}
	use, err := c.claim(ctx, p.Hash)
	if err != nil {
		return "", nil, fmt.Errorf("cluster: fetch program %s: %w", p.Name, err)
	}
	if err := c.shareFlight(ctx, store, p); err != nil {
		use.Close()
		c.tidy()
		return "", nil, fmt.Errorf("cluster: fetch program %s: %w", p.Name, err)
	}
	return c.path(p.Hash), sync.OnceFunc(func() {
		use.Close()
		c.tidy()
	}), nil
}

func (c *cache) path(hash string) string { return filepath.Join(c.dir, hash) }

const (
	useSuffix  = ".use"
	getSuffix  = ".get"
	tempSuffix = ".tmp"
	lockName   = "lock"
)

// claim keeps what has this hash, or will have it, from being evicted until the file is closed.
func (c *cache) claim(ctx context.Context, hash string) (use *os.File, err error) {
	err = c.locked(ctx, func() error {
		use, err = os.OpenFile(c.path(hash)+useSuffix, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		ok, err := tryLock(use, false)
		if err == nil && !ok {
			err = errors.New("it is locked by somebody who is none of us")
		}
		if err == nil {
			now := time.Now()
			err = os.Chtimes(use.Name(), now, now)
		}
		if err != nil {
			use.Close()
			err = fmt.Errorf("lock %s: %w", use.Name(), err)
		}
		return err
	})
	return use, err
}

// shareFlight has the executable provided by one goroutine at a time.
func (c *cache) shareFlight(ctx context.Context, store jetstream.ObjectStore, p Program) error {
	key := flightKey{p.Hash, p.Size}
	for {
		c.mu.Lock()
		f, flying := c.flights[key]
		if !flying {
			f = &flight{done: make(chan struct{})}
			c.flights[key] = f
		}
		c.mu.Unlock()
		if !flying {
			return c.fly(ctx, store, p, key, f)
		}
		select {
		case <-f.done:
			if f.err == nil || !f.left {
				return f.err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// fly provides the executable, and tells those who wait for it.
func (c *cache) fly(ctx context.Context, store jetstream.ObjectStore, p Program, key flightKey, f *flight) error {
	f.err, f.left = errors.New("the one who was at it has ended"), true // if provide panics
	defer func() {
		c.mu.Lock()
		delete(c.flights, key)
		c.mu.Unlock()
		close(f.done)
	}()
	f.err = c.provide(ctx, store, p)
	f.left = ctx.Err() != nil
	return f.err
}

// provide makes sure that the executable is there and is the right one.
func (c *cache) provide(ctx context.Context, store jetstream.ObjectStore, p Program) error {
	path := c.path(p.Hash)
	c.mu.Lock()
	seen := c.seen[p.Hash]
	c.mu.Unlock()
	if now, err := os.Lstat(path); err == nil && seen != nil && unchanged(seen, now) && now.Size() == p.Size {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, transferTime(p.Size))
	defer cancel()
	mine, err := c.own(ctx, p.Hash)
	if err != nil {
		return err
	}
	defer c.disown(mine)
	if now, ok := verifyFile(path, p); ok {
		c.remember(p.Hash, now)
		return nil
	}
	// Whoever else uses what is there is better off without it.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return c.download(ctx, store, p)
}

// own waits until no other process verifies or downloads what has this hash, and then keeps others from it until
// disown.
func (c *cache) own(ctx context.Context, hash string) (mine *os.File, err error) {
	tick := time.NewTicker(ownPause)
	defer tick.Stop()
	for {
		var ok bool
		err = c.locked(ctx, func() error {
			mine, err = os.OpenFile(c.path(hash)+getSuffix, os.O_RDWR|os.O_CREATE, 0o600)
			if err != nil {
				return err
			}
			if ok, err = tryLock(mine, true); !ok {
				mine.Close()
			}
			return err
		})
		if ok || err != nil {
			return mine, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// disown lets others have what own has taken.
func (c *cache) disown(mine *os.File) {
	// Not under the context of a download, which may have ended: locked has a limit of its own.
	c.locked(context.Background(), func() error { return os.Remove(mine.Name()) }) // or else sweep does it
	mine.Close()
}

func (c *cache) remember(hash string, info fs.FileInfo) {
	c.mu.Lock()
	c.seen[hash] = info
	c.mu.Unlock()
}

// unchanged reports whether a file is the one that was verified, and was not written to since.
func unchanged(seen, now fs.FileInfo) bool {
	return os.SameFile(seen, now) && seen.Size() == now.Size() && seen.ModTime().Equal(now.ModTime()) && seen.Mode() == now.Mode()
}

// verifyFile reports whether the file at path is the program, and could not have been replaced meanwhile.
func verifyFile(path string, p Program) (fs.FileInfo, bool) {
	named, err := os.Lstat(path)
	if err != nil || named.Mode() != 0o500 || named.Size() != p.Size { // a regular file of that mode
		return nil, false
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	hash, size, err := hashFile(f)
	if err != nil || hash != p.Hash || size != p.Size {
		return nil, false
	}
	open, err := f.Stat()
	return open, err == nil && unchanged(named, open)
}

// attempts is how often a download is tried when the object is replaced meanwhile, as it is when somebody
// uploads it again before it expires.
const attempts = 3

// download gets the executable from the store. The caller owns it.
func (c *cache) download(ctx context.Context, store jetstream.ObjectStore, p Program) error {
	err := c.locked(ctx, func() error { return errors.Join(c.sweep(), c.evict(p.Size)) })
	if err != nil {
		return err
	}
	f, err := c.createTemp(p.Hash)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // there is none after it was renamed
	defer f.Close()
	var w io.Writer = f
	if c.through != nil {
		w = c.through(f)
	}
	for i := 1; ; i++ {
		nuid, err := download(ctx, store, p, w, c.idle)
		if err == nil {
			break
		}
		if i == attempts || ctx.Err() != nil || !replaced(ctx, store, p, nuid) {
			return err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if err := f.Truncate(0); err != nil {
			return err
		}
	}
	if err := errors.Join(f.Sync(), f.Chmod(0o500)); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := closeWritten(ctx, f); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), c.path(p.Hash)); err != nil {
		return err
	}
	c.remember(p.Hash, info)
	return syncDir(c.dir)
}

// createTemp makes the file that is to become the executable. Its lock is for closeWritten.
func (c *cache) createTemp(hash string) (*os.File, error) {
	path := c.path(hash) + tempSuffix
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // of somebody who died
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if ok, err := tryLock(f, true); err != nil || !ok {
		f.Close()
		os.Remove(path)
		return nil, errors.Join(err, fmt.Errorf("%s cannot be locked", path))
	}
	return f, nil
}

// replaced reports whether the store has another object under that name by now.
func replaced(ctx context.Context, store jetstream.ObjectStore, p Program, nuid string) bool {
	info, err := store.GetInfo(ctx, p.Hash)
	return err == nil && nuid != "" && info.NUID != nuid
}

// closeWritten closes a file that createTemp has made, and waits until nobody has it open for writing any more, as until
// then the system refuses to execute it: a process that another goroutine has started in the meantime has
// inherited it, until it has become another program. The lock goes with the last one.
func closeWritten(ctx context.Context, f *os.File) error {
	if err := f.Close(); err != nil {
		return err
	}
	again, err := os.Open(f.Name())
	if err != nil {
		return err
	}
	defer again.Close()
	tick := time.NewTicker(lockPause)
	defer tick.Stop()
	for {
		if ok, err := tryLock(again, true); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// sweep removes what processes that have ended did not finish. The caller has the lock of the directory.
func (c *cache) sweep() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := c.path(e.Name())
		switch suffix := filepath.Ext(path); suffix {
		case tempSuffix, getSuffix:
			exe := strings.TrimSuffix(path, suffix)
			removeUnused(exe+tempSuffix, exe+getSuffix)
		case useSuffix:
			if _, err := os.Lstat(strings.TrimSuffix(path, suffix)); errors.Is(err, fs.ErrNotExist) {
				removeUnused(path, path)
			}
		}
	}
	return nil
}

// removeUnused removes a file unless somebody has locked the other file, and then that too. It reports whether it did.
func removeUnused(path, lock string) bool {
	f, err := os.Open(lock)
	if errors.Is(err, fs.ErrNotExist) {
		return os.Remove(path) == nil
	} else if err != nil {
		return false
	}
	defer f.Close()
	if ok, err := tryLock(f, true); err != nil || !ok {
		return false
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	os.Remove(lock)
	return true
}

// evict removes executables that nobody uses, the least recently used ones first, until there is room for so many more
// bytes within the limit, if that can be had. The caller has the lock of the directory.
func (c *cache) evict(room int64) error {
	if c.limit == 0 {
		return nil
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	type kept struct {
		path string
		size int64
		used time.Time
	}
	var all []kept
	total := room
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || (Program{Hash: e.Name(), Size: 1, GOOS: "x", GOARCH: "x", Name: "x"}).check() != nil {
			continue // none of ours, or it has just gone
		}
		k := kept{c.path(e.Name()), info.Size(), info.ModTime()}
		if use, err := os.Stat(k.path + useSuffix); err == nil {
			k.used = use.ModTime()
		}
		all = append(all, k)
		total += k.size
	}
	slices.SortFunc(all, func(a, b kept) int { return a.used.Compare(b.used) })
	for _, k := range all {
		if total <= c.limit {
			break
		}
		if removeUnused(k.path, k.path+useSuffix) {
			total -= k.size
		}
	}
	return nil
}

// tidy removes what is beyond the limit, or was left unfinished, unless others are busy: the next
// download does it then.
func (c *cache) tidy() {
	f, err := os.OpenFile(c.path(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	if ok, err := tryLock(f, true); err == nil && ok {
		c.sweep()
		c.evict(0)
	}
}

// How long to wait for the lock of the directory, which others have for moments, and with what
// pauses: nobody tells when a lock can be had.
const (
	lockPatience = 30 * time.Second
	lockPause    = 2 * time.Millisecond
	ownPause     = 10 * time.Millisecond // and until another process has done a download
)

// locked calls f while no other process, and no other goroutine, is in locked.
func (c *cache) locked(ctx context.Context, f func() error) error {
	lock, err := os.OpenFile(c.path(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	limit := time.NewTimer(lockPatience)
	defer limit.Stop()
	tick := time.NewTicker(lockPause)
	defer tick.Stop()
	for {
		if ok, err := tryLock(lock, true); err != nil {
			return fmt.Errorf("lock %s: %w", lock.Name(), err)
		} else if ok {
			return f()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-limit.C:
			return fmt.Errorf("another process has had the lock on %s for %v: is it stopped?", lock.Name(), lockPatience)
		}
	}
}

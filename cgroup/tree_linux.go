package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/seed84f35039/multiproc"
)

// prefix begins the names of the groups of cages.
const prefix = "multiproc-"

// tree is the groups of a Cage: its own one, in each hierarchy, and those of workers below it.
type tree struct {
	cfg   Config
	at    []hierarchy // its own
	locks []*os.File  // on these
	count atomic.Int64

	mu     sync.RWMutex // held for reading while a group is made
	closed bool
}

// plant makes a tree without workers.
func plant(cfg Config) (*tree, error) {
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, unsupported(err)
	}
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, unsupported(err)
	}
	places, err := find(string(mountinfo), string(self), cfg.controllers(), cfg.Parent)
	if err != nil {
		return nil, err
	}
	return plantAt(places, cfg)
}

// plantAt makes a tree below these places.
func plantAt(places []hierarchy, cfg Config) (*tree, error) {
	for _, h := range places {
		if h.v2 {
			if err := delegate(h.dir(), h.controllers, cfg.MoveSelf); err != nil {
				return nil, err
			}
		}
		sweep(h.dir())
	}
	t := &tree{cfg: cfg}
	for n := 1; t.at == nil; n++ {
		if err := t.root(places, prefix+strconv.Itoa(os.Getpid())+"-"+strconv.Itoa(n)); err != nil {
			return nil, err
		}
	}
	err := t.try()
	if err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// root makes the tree's own group, if there is none of that name yet.
func (t *tree) root(places []hierarchy, name string) error {
	var made []string
	for _, h := range places {
		h = h.below(name)
		err := os.Mkdir(h.dir(), 0o755)
		if err == nil {
			made = append(made, h.dir())
			var f *os.File
			if f, err = lock(h.dir()); err == nil {
				t.at, t.locks = append(t.at, h), append(t.locks, f)
				continue
			}
		}
		for _, f := range t.locks {
			f.Close()
		}
		t.at, t.locks = nil, nil
		if left := end(made...); left != nil {
			return errors.Join(err, left)
		}
		switch {
		case errors.Is(err, os.ErrExist) || err == errTaken:
			return nil
		case errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS):
			return unsupported(err)
		}
		return fmt.Errorf("make a group: %w", err)
	}
	return nil
}

// try finds out whether groups with these limits can be made.
func (t *tree) try() error {
	for _, h := range t.at {
		if h.v2 {
			if err := delegate(h.dir(), h.controllers, false); err != nil {
				return err
			}
		}
	}
	g, err := t.group()
	if err != nil {
		return fmt.Errorf("make a group with these limits: %w", err)
	}
	return g.end()
}

// sweep removes the groups of cages whose process has ended, with what is in them. What
// cannot be removed is left to another time.
func sweep(dir string) {
	for _, group := range groups(dir) {
		name := filepath.Base(group)
		if !strings.HasPrefix(name, prefix) || name == mainGroup {
			continue
		}
		if f, err := lock(group); err == nil {
			end(group)
			f.Close()
		}
	}
}

// group makes a group with the limits.
func (t *tree) group() (*group, error) {
	name := strconv.FormatInt(t.count.Add(1), 10)
	g := &group{}
	for _, h := range t.at {
		h = h.below(name)
		g.at = append(g.at, h)
		add, err := h.confine(t.cfg)
		if err != nil {
			return nil, errors.Join(err, g.end())
		}
		g.add = append(g.add, add)
	}
	return g, nil
}

func (t *tree) admit(pid int) (release func() (bool, error), err error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.closed {
		return nil, multiproc.ErrClosed
	}
	g, err := t.group()
	if err != nil {
		return nil, err
	}
	for _, add := range g.add {
		// A process that has ended cannot exceed its limits, and its end is told elsewhere.
		if err := add(uint64(pid)); err != nil && !errors.Is(err, syscall.ESRCH) {
			return nil, errors.Join(err, g.end())
		}
	}
	return g.release, nil
}

func (t *tree) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	var dirs []string
	for _, h := range t.at {
		dirs = append(dirs, h.dir())
	}
	err := end(dirs...)
	for _, f := range t.locks {
		f.Close()
	}
	return err
}

// group is the group of a worker, in each hierarchy.
type group struct {
	at  []hierarchy
	add []func(pid uint64) error
}

func (g *group) release() (outOfMemory bool, err error) {
	for _, h := range g.at {
		n, errCount := h.oomKills()
		outOfMemory = outOfMemory || n > 0
		if !errors.Is(errCount, os.ErrNotExist) { // the Cage was closed before
			err = errors.Join(err, errCount)
		}
	}
	return outOfMemory, errors.Join(err, g.end())
}

// end kills what is in the group and removes it.
func (g *group) end() error {
	var dirs []string
	for _, h := range g.at {
		dirs = append(dirs, h.dir())
	}
	return end(dirs...)
}

package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Dirs returns the groups of the workers that are in the cage.
func (c *Cage) Dirs() (dirs []string) {
	for _, h := range c.t.at {
		dirs = append(dirs, groups(h.dir())...)
	}
	return dirs
}

// Own returns the groups of the cage itself.
func (c *Cage) Own() (dirs []string) {
	for _, h := range c.t.at {
		dirs = append(dirs, h.dir())
	}
	return dirs
}

// GroupsOf returns the groups of the cages of a process, wherever they are.
func GroupsOf(pid int) (dirs []string) {
	mountinfo, _ := os.ReadFile("/proc/self/mountinfo")
	for _, m := range parseMounts(string(mountinfo)) {
		filepath.WalkDir(m.dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), prefix+strconv.Itoa(pid)+"-") {
				dirs = append(dirs, path)
			}
			return nil
		})
	}
	return dirs
}

// Unified reports whether the cage is in the hierarchy of cgroup v2.
func (c *Cage) Unified() bool { return c.t.at[0].v2 }

// Place returns the group of the cage, as Config.Parent names groups.
func (c *Cage) Place() string {
	mountinfo, _ := os.ReadFile("/proc/self/mountinfo")
	for _, m := range parseMounts(string(mountinfo)) {
		if m.dir == c.t.at[0].mount {
			return filepath.Join(m.root, c.t.at[0].group)
		}
	}
	return ""
}

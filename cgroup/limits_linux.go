package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// period is that in which CPU time is counted, in microseconds.
const period uint64 = 100_000

// quota is how much CPU time there is in a period, in microseconds.
func (c Config) quota() int64 { return int64(c.CPUs * float64(period)) }

// confine makes a group with the limits and returns what puts a process there.
func (h hierarchy) confine(c Config) (add func(pid uint64) error, err error) {
	if h.v2 {
		return h.confineUnified(c)
	}
	return h.confineLegacy(c)
}

func (h hierarchy) confineUnified(c Config) (add func(pid uint64) error, err error) {
	parent, name := filepath.Split(h.group)
	above, err := cgroup2.Load(filepath.Clean(parent), cgroup2.WithMountpoint(h.mount))
	if err != nil {
		return nil, err
	}
	// With limits NewChild would switch controllers on from the root of the hierarchy on.
	group, err := above.NewChild(name, nil)
	if err != nil {
		return nil, err
	}
	return group.AddProc, group.Update(c.unified(exists(h.dir(), "memory.swap.max")))
}

// unified returns the limits for cgroup v2; swap says whether there is one for swap.
func (c Config) unified(swap bool) *cgroup2.Resources {
	r := &cgroup2.Resources{}
	if c.Memory > 0 {
		all, none := true, int64(0)
		r.Memory = &cgroup2.Memory{Max: &c.Memory, OOMGroup: &all}
		if swap {
			r.Memory.Swap = &none
		}
	}
	if c.CPUs > 0 {
		quota, period := c.quota(), period
		r.CPU = &cgroup2.CPU{Max: cgroup2.NewCPUMax(&quota, &period)}
	}
	if c.PIDs > 0 {
		r.Pids = &cgroup2.Pids{Max: int64(c.PIDs)}
	}
	return r
}

func (h hierarchy) confineLegacy(c Config) (add func(pid uint64) error, err error) {
	var subsystems []cgroup1.Subsystem
	for _, name := range h.controllers {
		// The library looks for a controller by its name; where several share a
		// hierarchy, the names are links to it.
		root := filepath.Dir(h.mount)
		if !sameFile(filepath.Join(root, name), h.mount) {
			return nil, unsupported(fmt.Errorf("the controller %s is mounted at %s, and not at %s", name, h.mount, filepath.Join(root, name)))
		}
		switch name {
		case "memory":
			subsystems = append(subsystems, cgroup1.NewMemory(root))
		case "cpu":
			subsystems = append(subsystems, cgroup1.NewCpu(root))
		case "pids":
			subsystems = append(subsystems, cgroup1.NewPids(root))
		}
	}
	group, err := cgroup1.New(cgroup1.StaticPath(h.group), c.legacy(exists(filepath.Dir(h.dir()), "memory.memsw.limit_in_bytes")),
		cgroup1.WithHierarchy(func() ([]cgroup1.Subsystem, error) { return subsystems, nil }))
	if err != nil {
		return nil, err
	}
	return func(pid uint64) error { return group.AddProc(pid) }, nil
}

// legacy returns the limits for cgroup v1; swap says whether there is one for memory and swap
// together.
func (c Config) legacy(swap bool) *specs.LinuxResources {
	r := &specs.LinuxResources{}
	if c.Memory > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &c.Memory}
		if swap {
			r.Memory.Swap = &c.Memory
		}
	}
	if c.CPUs > 0 {
		quota, period := c.quota(), period
		r.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	}
	if c.PIDs > 0 {
		limit := int64(c.PIDs)
		r.Pids = &specs.LinuxPids{Limit: &limit}
	}
	return r
}

// oomKills returns how many processes of the group the kernel has ended for lack of memory,
// as far as it counts them here.
func (h hierarchy) oomKills() (int, error) {
	if !slices.Contains(h.controllers, "memory") {
		return 0, nil
	}
	file := "memory.oom_control"
	if h.v2 {
		file = "memory.events"
	}
	text, err := os.ReadFile(filepath.Join(h.dir(), file))
	if err != nil {
		return 0, err
	}
	return oomKills(string(text))
}

// oomKills finds the count in the text of such a file.
func oomKills(text string) (int, error) {
	for line := range strings.Lines(text) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strconv.Atoi(strings.TrimSpace(n))
		}
	}
	return 0, nil // Linux before 4.13
}

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

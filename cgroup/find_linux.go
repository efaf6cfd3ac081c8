package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/cgroups/v3"
)

// hierarchy is a place in a hierarchy of cgroups.
type hierarchy struct {
	v2          bool
	mount       string   // where the hierarchy is mounted
	group       string   // the group, from there on: "/a/b"
	controllers []string // those that are needed of it
}

// dir returns the directory of the group.
func (h hierarchy) dir() string { return filepath.Join(h.mount, h.group) }

// below returns the place of a group in this one.
func (h hierarchy) below(name string) hierarchy {
	h.group = filepath.Join(h.group, name)
	return h
}

// mainGroup is where MoveSelf moves processes to.
const mainGroup = "multiproc-main"

// help is what to do where this process owns no cgroup.
const help = "start the program as root, by systemd-run --user --scope -p Delegate=yes, or in a container that may write to /sys/fs/cgroup, as with docker run --privileged --cgroupns=private; or do without, with MemoryLimit of package multiproc"

// unsupported makes an error that is errors.ErrUnsupported of the reason why this process owns
// no cgroup.
func unsupported(why error) error {
	return fmt.Errorf("%w: %w; %s", errors.ErrUnsupported, why, help)
}

// find returns where groups with these controllers can be made: in one place with cgroup v2,
// in one for each controller with v1. mountinfo and self are what /proc/self/mountinfo and
// /proc/self/cgroup say; parent is that of Config.
func find(mountinfo, self string, need []string, parent string) ([]hierarchy, error) {
	legacy, unified, err := cgroups.ParseCgroupFromReaderUnified(strings.NewReader(self))
	if err != nil {
		return nil, fmt.Errorf("/proc/self/cgroup: %w", err)
	}
	if filepath.Base(unified) == mainGroup {
		unified = filepath.Dir(unified)
	}
	mounts := parseMounts(mountinfo)
	h, errV2 := findUnified(mounts, unified, need, parent)
	if errV2 == nil {
		return []hierarchy{h}, nil
	}
	hs, errV1 := findLegacy(mounts, legacy, need, parent)
	if errV1 == nil {
		return hs, nil
	}
	return nil, unsupported(fmt.Errorf("cgroup v2: %w; cgroup v1: %w", errV2, errV1))
}

func findUnified(mounts []mount, own string, need []string, parent string) (hierarchy, error) {
	i := slices.IndexFunc(mounts, func(m mount) bool { return m.v2 })
	if i < 0 {
		return hierarchy{}, errors.New("not mounted")
	}
	h, err := mounts[i].place(own, parent)
	if err != nil {
		return hierarchy{}, err
	}
	has, err := fields(filepath.Join(h.dir(), "cgroup.controllers"))
	if err != nil {
		return hierarchy{}, err
	}
	for _, name := range need {
		if !slices.Contains(has, name) {
			return hierarchy{}, fmt.Errorf("%s does not have the controller %s", h.dir(), name)
		}
	}
	h.controllers = need
	return h, nil
}

func findLegacy(mounts []mount, own map[string]string, need []string, parent string) (hs []hierarchy, err error) {
	if len(need) == 0 {
		need = []string{"memory"} // any would do
	}
	for _, name := range need {
		i := slices.IndexFunc(mounts, func(m mount) bool { return slices.Contains(m.controllers, name) })
		if group, ok := own[name]; i < 0 || !ok {
			return nil, fmt.Errorf("no controller %s", name)
		} else if h, err := mounts[i].place(group, parent); err != nil {
			return nil, err
		} else if j := slices.IndexFunc(hs, func(other hierarchy) bool { return other.mount == h.mount }); j >= 0 {
			hs[j].controllers = append(hs[j].controllers, name)
		} else {
			h.controllers = []string{name}
			hs = append(hs, h)
		}
	}
	return hs, nil
}

// mount is where a hierarchy of cgroups is mounted.
type mount struct {
	dir         string
	root        string // the group that shows there
	v2          bool
	controllers []string // with v1
}

// place returns the place of the group parent, or of own where that is empty.
func (m mount) place(own, parent string) (hierarchy, error) {
	group := own
	if parent != "" {
		group = parent
	}
	rel, err := filepath.Rel(m.root, group)
	// With .. the process, or what is mounted, is outside of its cgroup namespace.
	if outside := strings.HasPrefix(m.root+"/", "/../") || strings.HasPrefix(group+"/", "/../"); err != nil || outside || rel == ".." || strings.HasPrefix(rel, "../") {
		return hierarchy{}, fmt.Errorf("the group %s is not below %s, which is mounted at %s", group, m.root, m.dir)
	}
	h := hierarchy{v2: m.v2, mount: m.dir, group: filepath.Join("/", rel)}
	if _, err := os.Stat(h.dir()); err != nil {
		return hierarchy{}, err
	}
	return h, nil
}

// parseMounts returns the cgroup file systems of a mountinfo, as proc(5) describes it.
func parseMounts(mountinfo string) (mounts []mount) {
	for line := range strings.Lines(mountinfo) {
		left, right, _ := strings.Cut(line, " - ")
		where, what := strings.Fields(left), strings.Fields(right)
		if len(where) < 6 || len(what) < 3 {
			continue
		}
		m := mount{dir: unescape.Replace(where[4]), root: unescape.Replace(where[3])}
		switch what[0] {
		case "cgroup2":
			m.v2 = true
		case "cgroup":
			m.controllers = strings.Split(what[2], ",")
		default:
			continue
		}
		mounts = append(mounts, m)
	}
	return mounts
}

// unescape replaces what stands in a mountinfo for characters that separate fields.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// fields returns the words of a file.
func fields(file string) ([]string, error) {
	text, err := os.ReadFile(file)
	return strings.Fields(string(text)), err
}

package cgroup

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed84f35039/multiproc/internal/proctest"
)

// place is a hierarchy as tests write it down.
type place struct {
	V2          bool
	Dir         string // from the directory of the test on
	Controllers string
}

// TestFind finds groups by what systems of all kinds say. DIR is a directory with the files given.
func TestFind(t *testing.T) {
	const v2Host = `22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:26 / DIR/cg rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
`
	const v1Host = `31 23 0:28 / DIR/cg rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / DIR/cg/cpu,cpuacct rw,relatime shared:15 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / DIR/cg/memory rw,relatime - cgroup cgroup rw,memory
34 31 0:31 / DIR/cg/pids rw,relatime shared:16 master:3 - cgroup cgroup rw,pids
35 31 0:32 / DIR/cg/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
`
	const hybrid = v1Host + "36 31 0:33 / DIR/cg/unified rw,relatime - cgroup2 cgroup2 rw\n"
	const v1Self = "5:name=systemd:/a\n4:pids:/p\n3:memory:/m/n\n2:cpu,cpuacct:/\n"
	v1Dirs := []string{"cg/cpu,cpuacct/", "cg/memory/m/n/", "cg/pids/p/", "cg/unified/a/cgroup.controllers"}

	for _, test := range []struct {
		name, mounts, self string
		files              []string // with a / at the end: directories; else files that name all controllers
		need               string
		parent             string
		want               []place
		err                string // part of the error, which is errors.ErrUnsupported
	}{
		{
			"v2", v2Host, "0::/user.slice/run-1.scope\n",
			[]string{"cg/user.slice/run-1.scope/cgroup.controllers"},
			"memory cpu", "",
			[]place{{true, "cg/user.slice/run-1.scope", "memory cpu"}},
			"",
		},
		{
			"v2 without limits", v2Host, "0::/a\n",
			[]string{"cg/a/cgroup.controllers"},
			"", "",
			[]place{{true, "cg/a", ""}},
			"",
		},
		{
			"v2 where this process was moved", v2Host, "0::/a/multiproc-main\n",
			[]string{"cg/a/cgroup.controllers", "cg/a/multiproc-main/cgroup.controllers"},
			"pids", "",
			[]place{{true, "cg/a", "pids"}},
			"",
		},
		{
			"v2 in a group that is given", v2Host, "0::/a\n",
			[]string{"cg/b/c/cgroup.controllers"},
			"pids", "/b/c",
			[]place{{true, "cg/b/c", "pids"}},
			"",
		},
		{
			"v2 in a namespace of its own", v2Host, "0::/\n",
			[]string{"cg/cgroup.controllers"},
			"cpu", "",
			[]place{{true, "cg", "cpu"}},
			"",
		},
		{
			"v2 in a container without one", strings.ReplaceAll(v2Host, " / DIR", " /docker/1234 DIR"), "0::/docker/1234/x\n",
			[]string{"cg/x/cgroup.controllers"},
			"cpu", "",
			[]place{{true, "cg/x", "cpu"}},
			"",
		},
		{"v2 outside of what is mounted", strings.ReplaceAll(v2Host, " / DIR", " /docker/1234 DIR"), "0::/docker/12345\n", []string{"cg/cgroup.controllers"}, "cpu", "", nil, "is not below /docker/1234"},
		{"v2 outside of the namespace", v2Host, "0::/../other\n", []string{"cg/cgroup.controllers", "other/cgroup.controllers"}, "cpu", "", nil, "the group /../other is not below /"},
		{"v2 mounted from outside of the namespace", strings.ReplaceAll(v2Host, " / DIR", " /.. DIR"), "0::/\n", []string{"cg/cgroup.controllers"}, "cpu", "", nil, "is not below /.."},
		{"v2 that lacks a controller", v2Host, "0::/a\n", []string{"cg/a/cgroup.controllers"}, "memory hugetlb", "", nil, "does not have the controller hugetlb"},
		{"v2 in a group that is not there", v2Host, "0::/a\n", []string{"cg/a/cgroup.controllers"}, "cpu", "/b", nil, "no such file"},
		{
			"a place with a space", strings.ReplaceAll(v2Host, "DIR/cg", `DIR/c\040g`), "0::/\n",
			[]string{"c g/cgroup.controllers"},
			"cpu", "",
			[]place{{true, "c g", "cpu"}},
			"",
		},
		{
			"v1", v1Host, v1Self, v1Dirs, "memory cpu pids", "",
			[]place{{false, "cg/memory/m/n", "memory"}, {false, "cg/cpu,cpuacct", "cpu"}, {false, "cg/pids/p", "pids"}},
			"",
		},
		{"v1 without limits", v1Host, v1Self, v1Dirs, "", "", []place{{false, "cg/memory/m/n", "memory"}}, ""},
		{
			"v1 whose controllers share a hierarchy", strings.ReplaceAll(v1Host, "cpuacct", "pids"), "2:cpu,pids:/p\n",
			[]string{"cg/cpu,pids/p/"},
			"cpu pids", "",
			[]place{{false, "cg/cpu,pids/p", "cpu pids"}},
			"",
		},
		{"v1 in a group that is given", v1Host, v1Self, []string{"cg/memory/x/", "cg/pids/x/"}, "memory pids", "/x", []place{{false, "cg/memory/x", "memory"}, {false, "cg/pids/x", "pids"}}, ""},
		{"v1 where one has not the group that is given", v1Host, v1Self, []string{"cg/memory/x/", "cg/pids/"}, "memory pids", "/x", nil, "no such file"},
		{"v1 that lacks a controller", v1Host, v1Self, v1Dirs, "memory rdma", "", nil, "no controller rdma"},
		{"hybrid, with limits", hybrid, v1Self + "0::/b\n", append([]string{"cg/unified/b/"}, v1Dirs...), "memory", "", []place{{false, "cg/memory/m/n", "memory"}}, ""},
		{"hybrid, without limits", hybrid, v1Self + "0::/a\n", v1Dirs, "", "", []place{{true, "cg/unified/a", ""}}, ""},
		{"nothing mounted", "22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw\nshort\n", "0::/\n", nil, "memory", "", nil, "cgroup v2: not mounted; cgroup v1: no controller memory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, file := range test.files {
				file, isDir := filepath.Join(dir, file), strings.HasSuffix(file, "/")
				if isDir {
					mkdir(t, file)
				} else {
					put(t, file, "cpuset cpu io memory pids\n")
				}
			}
			got, err := find(strings.ReplaceAll(test.mounts, "DIR", dir), test.self, strings.Fields(test.need), test.parent)
			if test.err != "" {
				if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), test.err) || !strings.Contains(err.Error(), help) {
					t.Fatalf("got %v, want an error of errors.ErrUnsupported with %q, and what to do", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var places []place
			for _, h := range got {
				rel, err := filepath.Rel(dir, h.dir())
				if err != nil {
					t.Fatal(err)
				}
				places = append(places, place{h.v2, rel, strings.Join(h.controllers, " ")})
			}
			if diff := cmp.Diff(test.want, places); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	if _, err := find(v2Host, "nonsense\n", nil, ""); err == nil || errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("nonsense in /proc/self/cgroup: got %v", err)
	}
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

// put makes a file, with its directory.
func put(t *testing.T, file, text string) {
	t.Helper()
	mkdir(t, filepath.Dir(file))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestDelegate looks at what is written to have groups of cgroup v2 get controllers.
func TestDelegate(t *testing.T) {
	dir := t.TempDir()
	if err := delegate(dir, []string{"cpu"}, true); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("where there is no such file: got %v", err)
	}
	file := filepath.Join(dir, "cgroup.subtree_control")
	put(t, file, "cpu pids\n")
	if err := delegate(dir, []string{"cpu", "pids"}, true); err != nil {
		t.Error(err)
	}
	proctest.Want(t, "the file where all are there", content(t, file), "cpu pids\n")
	if err := delegate(dir, []string{"memory", "cpu", "io"}, true); err != nil {
		t.Error(err)
	}
	proctest.Want(t, "the file where some are missing", content(t, file), "+memory +io")
}

// TestVacate moves processes of a group that is not one: they do not go, so that it gives up, but not
// before it has tried.
func TestVacate(t *testing.T) {
	dir := t.TempDir()
	procs := filepath.Join(dir, "cgroup.procs")
	put(t, procs, "")
	put(t, filepath.Join(dir, mainGroup, "cgroup.procs"), "")
	if err := vacate(dir); err != nil {
		t.Error(err)
	}
	put(t, procs, "12\n34\n")
	if err := vacate(dir); err == nil || !strings.Contains(err.Error(), "keep being started") {
		t.Errorf("got %v", err)
	}
	proctest.Want(t, "who was moved last", content(t, filepath.Join(dir, mainGroup, "cgroup.procs")), "34")
}

// TestVacateGroup moves a process of a group of cgroup v2 to one below, and ends both.
func TestVacateGroup(t *testing.T) {
	tree, err := plant(Config{})
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("needs a cgroup that this process may write to: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer tree.close()
	if !tree.at[0].v2 {
		t.Skip("needs cgroup v2, which is not mounted where this process may write")
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	release, err := tree.admit(cmd.Process.Pid)
	if err != nil {
		cmd.Process.Kill()
		t.Fatal(err)
	}
	dir := groups(tree.at[0].dir())[0]
	if err := vacate(dir); err != nil {
		t.Error(err)
	}
	proctest.Want(t, "who is in the group", len(members(dir)), 0)
	proctest.Want(t, "who is in the group below", members(filepath.Join(dir, mainGroup)), []int{cmd.Process.Pid})
	if oom, err := release(); oom || err != nil {
		t.Errorf("release: got %t, %v", oom, err)
	}
	if exists(dir, "") {
		t.Errorf("%s is left", dir)
	}
}

// TestLimits looks at the files that limits of cgroup v2 are written to, in a directory that is no group.
func TestLimits(t *testing.T) {
	dir := t.TempDir()
	mkdir(t, filepath.Join(dir, "a"))
	h := hierarchy{v2: true, mount: dir, group: "/a/b"}
	if _, err := h.confine(Config{Memory: 5 << 20, CPUs: 1.5, PIDs: 20}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"memory.max": "5242880", "memory.oom.group": "1", "cpu.max": "150000 100000", "pids.max": "20",
	} {
		file := filepath.Join(h.dir(), name)
		if err := os.Chmod(file, 0o600); err != nil { // the library makes it for nobody to read
			t.Fatal(err)
		}
		proctest.Want(t, name, content(t, file), want)
	}
	if swap := (Config{Memory: 1}).unified(true).Memory.Swap; swap == nil || *swap != 0 {
		t.Errorf("swap: %v, want 0", swap)
	}
	if swap := (Config{Memory: 1}).unified(false).Memory.Swap; swap != nil {
		t.Errorf("swap where the kernel has none: %v", *swap)
	}
	r := Config{Memory: 5 << 20, CPUs: 0.5, PIDs: 20}.legacy(true)
	proctest.Want(t, "v1: memory, with swap, quota, period, pids",
		[]int64{*r.Memory.Limit, *r.Memory.Swap, *r.CPU.Quota, int64(*r.CPU.Period), *r.Pids.Limit}, []int64{5 << 20, 5 << 20, 50_000, 100_000, 20})
	if r := (Config{}).legacy(true); r.Memory != nil || r.CPU != nil || r.Pids != nil {
		t.Errorf("no limits: got %+v", r)
	}
}

// TestOOMKills reads what both kinds of cgroups count.
func TestOOMKills(t *testing.T) {
	for text, want := range map[string]int{
		"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n":                3,
		"low 0\nhigh 0\nmax 21\noom 2\noom_kill 1\noom_group_kill 0\n": 1,
		"low 0\nhigh 0\nmax 21\noom 2\noom_kill 0\noom_group_kill 5\n": 0,
		"oom_kill_disable 0\nunder_oom 0\n":                            0,
	} {
		if got, err := oomKills(text); got != want || err != nil {
			t.Errorf("got %d, %v, want %d of %q", got, err, want, text)
		}
	}
	if _, err := oomKills("oom_kill many\n"); err == nil {
		t.Error("nonsense is a number")
	}
}

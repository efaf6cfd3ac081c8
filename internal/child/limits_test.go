//go:build linux

package child

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// limitsVar has the limits that the roles below apply.
const limitsVar = "CHILD_TEST_LIMITS"

func apply() {
	l, err := ParseLimits(os.Getenv(limitsVar))
	if err == nil {
		err = l.Apply()
	}
	if err != nil {
		say("%v", err)
		os.Exit(1)
	}
}

var kept [][]byte

func init() {
	roles["eat"] = func() { // allocates without end
		apply()
		for n := 1; ; n++ {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			kept = append(kept, b)
			say("%d", n)
		}
	}
	roles["private"] = func() {
		before := PrivateMemory()
		kept = append(kept, bytes.Repeat([]byte{1}, 30<<20))
		say("%d", (PrivateMemory()-before)>>20)
	}
	roles["churn"] = func() { // allocates much, and keeps little
		apply()
		kept = make([][]byte, 20)
		for i := range 1000 {
			kept[i%len(kept)] = make([]byte, 1<<20)
		}
		say("done")
	}
	roles["limited"] = func() {
		apply()
		var set unix.CPUSet
		for range 20 { // new threads
			go func() { runtime.LockOSThread(); wait() }()
		}
		var files unix.Rlimit
		unix.Getrlimit(unix.RLIMIT_NOFILE, &files)
		out, _ := exec.Command("sh", "-c", "ulimit -Hn; nice").Output()
		tasks, _ := os.ReadDir("/proc/self/task")
		cpus, nices := map[int]bool{}, map[int]bool{}
		for _, task := range tasks {
			tid, _ := strconv.Atoi(task.Name())
			unix.SchedGetaffinity(tid, &set)
			cpus[set.Count()] = true
			p, _ := unix.Getpriority(unix.PRIO_PROCESS, tid)
			nices[20-p] = true
		}
		say("files %d %d, child %s, cpus %v, nice %v", files.Cur, files.Max, strings.Join(strings.Fields(string(out)), " "), cpus, nices)
	}
	roles["adopter"] = func() { // adopts what its children leave behind
		unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
		self, _ := Self()
		r, w, _ := os.Pipe()
		c, err := Start(Config{Path: self, Args: []string{"child"}, Env: append(os.Environ(), roleVar+"=grandchild"), Files: []*os.File{w}})
		if err != nil {
			say("%v", err)
			return
		}
		w.Close()
		buf := make([]byte, 100)
		r.Read(buf) // it has a child of its own by now
		c.Reap()
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		say("left: %d, %v", pid, err)
	}
	roles["ender"] = func() {
		for _, script := range strings.Split(os.Getenv("CHILD_TEST_SCRIPTS"), "\n") {
			cmd := exec.Command("sh", "-c", script)
			ready, _ := cmd.StdoutPipe()
			cmd.Start()
			ready.Read(make([]byte, 1))
			say("%d", cmd.Process.Pid)
		}
		EndGroup(10 * time.Second)
	}
}

func TestMemoryLimit(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	const limit = 64
	c, said := start(t, "eat", func(cfg *Config) { cfg.Env = append(cfg.Env, limitsVar+"="+Limits{Memory: limit << 20}.String()) })
	n := 0
	for {
		line, err := said.ReadString('\n')
		if err != nil {
			break
		}
		if n, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
			t.Fatal(line)
		}
	}
	e := c.Reap()
	if !e.FatalError() || !strings.Contains(e.Reason, "out of memory") {
		t.Errorf("got %v %d %q", e.Signal(), e.ExitCode(), e.Tail)
	}
	most := limit + arena>>20 + 8 // and what was mapped before
	if usesC() {
		most += cThreads * cStack >> 20
	}
	if n < limit*3/4 || n > most {
		t.Errorf("it got %d MiB, with a limit of %d:\n%s", n, limit, e.Tail)
	}
	c, said = start(t, "churn", func(cfg *Config) {
		cfg.Env = append(cfg.Env, limitsVar+"="+Limits{Memory: limit << 20}.String())
		cfg.Tail = 3000
	})
	if got, err := said.ReadString('\n'); got != "done\n" {
		t.Errorf("a process that keeps 20 MiB: got %q, %v:\n%s", got, err, c.Reap().Tail)
	}
}

func TestPrivateMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	_, said := start(t, "private", nil)
	if got, err := strconv.Atoi(hear(t, said)); got < 29 || got > 35 || err != nil {
		t.Errorf("30 MiB more are %d, %v", got, err)
	}
}

func BenchmarkPrivateMemory(b *testing.B) {
	for b.Loop() {
		PrivateMemory()
	}
}

func TestLimits(t *testing.T) {
	l := Limits{OpenFiles: 99, Nice: 3, CPUs: []int{firstCPU(t)}}
	if err := l.Validate(); err != nil {
		t.Fatal(err)
	}
	_, said := start(t, "limited", func(cfg *Config) { cfg.Env = append(cfg.Env, limitsVar+"="+l.String()) })
	p, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	nice := min(20-p+3, 19)
	want := fmt.Sprintf("files 99 99, child 99 %d, cpus map[1:true], nice map[%d:true]", nice, nice)
	if got := hear(t, said); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func firstCPU(t *testing.T) int {
	for cpu := range 1024 {
		if hasCPU(cpu) {
			return cpu
		}
	}
	t.Fatal("no CPU")
	return 0
}

func TestBadLimits(t *testing.T) {
	err := Limits{Memory: 1, OpenFiles: 1, Nice: 20, CPUs: []int{-1, 1 << 20}}.Validate()
	for _, want := range []string{"MemoryLimit is 1", "OpenFiles is 1", "Nice is 20", "CPU -1", "CPU 1048576"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q too", err, want)
		}
	}
	for _, s := range []string{"memory:x", "cpus:", "cpus:1+", "unknown:1", "files:99999999999999999999"} {
		if l, err := ParseLimits(s); err == nil {
			t.Errorf("%q: got %+v, want an error", s, l)
		}
	}
	l := Limits{Memory: 1 << 40, OpenFiles: 64, Nice: -3, CPUs: []int{0, 3}}
	if got, err := ParseLimits(l.String()); fmt.Sprint(got) != fmt.Sprint(l) || err != nil {
		t.Errorf("%q: got %+v, %v", l, got, err)
	}
}

// TestAdopter has a process that adopts orphans leave no zombie.
func TestAdopter(t *testing.T) {
	_, said := start(t, "adopter", nil)
	if got := hear(t, said); got != "left: -1, no child processes" {
		t.Errorf("got %q", got)
	}
}

// TestEndGroup has a process end its group: one member cleans up, one does not listen.
func TestEndGroup(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cleaned")
	scripts := `trap 'echo > ` + file + `; exit' TERM; echo; while :; do sleep 0.01; done`
	c, said := start(t, "ender", func(cfg *Config) { cfg.Env = append(cfg.Env, "CHILD_TEST_SCRIPTS="+scripts) })
	pid, err := strconv.Atoi(hear(t, said))
	if err != nil {
		t.Fatal(err)
	}
	waitEOF(t, said)
	waitGone(t, pid)
	if e := c.Reap(); e.Signal() != syscall.SIGKILL {
		t.Errorf("the leader ended with %v", e.Signal())
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestUsageOf(t *testing.T) {
	before := SelfCPU()
	for i := 0; SelfCPU()-before < 50*time.Millisecond; i++ {
		busy = i
	}
	u, err := UsageOf(os.Getpid())
	if err != nil || u.RSS < 1<<20 || u.RSS > 1<<34 || u.CPU < 30*time.Millisecond || u.CPU > SelfCPU()+20*time.Millisecond {
		t.Errorf("got %+v, %v", u, err)
	}
	if _, err := UsageOf(1 << 30); err == nil {
		t.Error("no error for a process that does not exist")
	}
}

func BenchmarkUsageOf(b *testing.B) {
	for b.Loop() {
		if _, err := UsageOf(os.Getpid()); err != nil {
			b.Fatal(err)
		}
	}
}

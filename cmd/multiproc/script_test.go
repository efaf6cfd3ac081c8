package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/seed84f35039/multiproc/cluster"
	"github.com/seed84f35039/multiproc/scale"
)

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		WorkdirRoot:         t.TempDir(), // is removed whatever -run selects
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Values[background{}] = new([]*exec.Cmd)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "report": report, "await": await, "signal": send, "exited": exited, "leftovers": leftovers,
			"exe": executable, "signed": signed, "trust": trust, "read": readVariable,
		},
	})
}

// exits CODE PROGRAM ARG... runs a program that must end with that code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	code := 0
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// report FILE RUNS ROW... reads a report in JSON, which must have these rows, with so many runs, and
// no others. A row is a kind and a number of workers: "pool×4".
func report(ts *testscript.TestScript, _ bool, args []string) {
	r, err := scale.ReadJSON(strings.NewReader(ts.ReadFile(args[0])))
	ts.Check(err)
	var got []string
	for _, row := range r.Rows {
		name := fmt.Sprintf("%s×%d", row.Kind, row.Workers)
		got = append(got, name)
		if strconv.Itoa(len(row.Samples)) != args[1] {
			ts.Fatalf("%s has %d runs, want %s", name, len(row.Samples), args[1])
		}
		for _, s := range row.Samples {
			if s.Real <= 0 || s.User < 0 || s.Sys < 0 || s.PeakMemory <= 0 {
				ts.Fatalf("%s has the sample %+v", name, s)
			}
		}
		if row.SpeedUp <= 0 {
			ts.Fatalf("%s has no speed-up", name)
		}
	}
	if !slices.Equal(got, args[2:]) {
		ts.Fatalf("rows %q, want %q", got, args[2:])
	}
}

// background is the key under which a script remembers its commands in the background.
type background struct{}

// patience is how long a script waits for something to happen.
const patience = 30 * time.Second

// eventually waits until cond. It looks again and again, because the kernel tells nobody about
// processes that are not children.
func eventually(ts *testscript.TestScript, what string, cond func() bool) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for !cond() {
		select {
		case <-tick.C:
		case <-limit:
			ts.Fatalf("after %v not yet: %s; processes %v", patience, what, processes(ts, ""))
		}
	}
}

// await N [TEXT] waits until the script has at least N processes(ts, TEXT), the command itself being
// one. await -file PATTERN waits until there is such a file, await -full PATTERN until it has something in it.
func await(ts *testscript.TestScript, _ bool, args []string) {
	if args[0] == "-file" || args[0] == "-full" {
		eventually(ts, args[1], func() bool {
			files, err := filepath.Glob(args[1])
			ts.Check(err)
			if len(files) == 0 || args[0] == "-file" {
				return len(files) > 0
			}
			info, err := os.Stat(files[0])
			ts.Check(err)
			return info.Size() > 0
		})
		return
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	text := strings.Join(args[1:], " ")
	eventually(ts, args[0]+" processes "+text, func() bool { return len(processes(ts, text)) >= n })
}

var signals = map[string]syscall.Signal{
	"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL, "STOP": stopSignal,
}

// signal NAME [TEXT] sends a signal to the commands in the background, or to processes(ts, TEXT).
func send(ts *testscript.TestScript, _ bool, args []string) {
	cmds := ts.Value(background{}).(*[]*exec.Cmd)
	*cmds = ts.BackgroundCmds()
	var pids []int
	if len(args) > 1 {
		pids = processes(ts, args[1])
	} else {
		for _, cmd := range *cmds {
			pids = append(pids, cmd.Process.Pid)
		}
	}
	if len(pids) == 0 {
		ts.Fatalf("no process to signal")
	}
	for _, pid := range pids {
		p, err := os.FindProcess(pid)
		ts.Check(err)
		ts.Check(p.Signal(signals[args[0]]))
	}
}

// exited CODE... checks that the commands that were sent a signal ended with one of these exit
// codes. It stands after wait.
func exited(ts *testscript.TestScript, _ bool, args []string) {
	for _, cmd := range *ts.Value(background{}).(*[]*exec.Cmd) {
		if !slices.Contains(args, strconv.Itoa(cmd.ProcessState.ExitCode())) {
			ts.Fatalf("%v, want exit code %s", cmd.ProcessState, strings.Join(args, " or "))
		}
	}
}

// leftovers [-soon] fails when a process of the script is there, or a file in its folder for
// temporary ones. With -soon the processes have a while to end: a process that was being started
// when the command ended is not to be seen in between.
func leftovers(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) > 0 {
		unseen := 0
		eventually(ts, "no processes", func() bool {
			if unseen++; len(processes(ts, "")) > 0 {
				unseen = 0
			}
			return unseen == 20
		})
	} else if pids := processes(ts, ""); len(pids) > 0 {
		ts.Fatalf("processes left: %v", pids)
	}
	files, err := os.ReadDir(ts.Getenv("TMPDIR"))
	ts.Check(err)
	if len(files) > 0 {
		ts.Fatalf("temporary files left: %v", files)
	}
}

// processes returns those that the script started, and that these started: they have its WORK in
// their environment. Those count that have text in their command line or in their environment, in
// which MULTIPROC_DEPTH is 1 for a run and 2 for its workers.
func processes(ts *testscript.TestScript, text string) []int {
	mine := []byte("\x00WORK=" + ts.Getenv("WORK") + "\x00")
	folders, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, folder := range folders {
		environ, err := os.ReadFile(folder + "/environ")
		if environ = append([]byte{0}, environ...); err != nil || !bytes.Contains(environ, mine) {
			continue
		}
		line, _ := os.ReadFile(folder + "/cmdline")
		pid, err := strconv.Atoi(filepath.Base(folder))
		if err == nil && bytes.Contains(append(line, environ...), []byte(text)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// read VARIABLE FILE gives a variable of the environment what is in a file.
func readVariable(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}

// exe FILE writes what looks like an executable for Linux: the header of one.
func executable(ts *testscript.TestScript, _ bool, args []string) {
	header := make([]byte, 64)
	copy(header, "\x7fELF\x02\x01\x01")
	copy(header[16:], "\x02\x00\x3e\x00\x01")
	header[52] = 64
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), header, 0o700))
}

// signed FILE EXECUTABLE checks that the holder of the public key in a file has signed an executable.
func signed(ts *testscript.TestScript, neg bool, args []string) {
	key, err := cluster.ParsePublicKey(strings.TrimSpace(ts.ReadFile(args[0])))
	ts.Check(err)
	var p cluster.Program
	s, err := cluster.ReadSignature(ts.MkAbs(args[1]))
	if err == nil {
		p, err = cluster.Trust{key: ""}.Verify(s)
	}
	if err == nil {
		var is cluster.Program
		if is, err = cluster.ReadProgram(ts.MkAbs(args[1])); err == nil && is.Hash != p.Hash {
			err = errors.New("another executable was signed")
		}
	}
	if (err != nil) != neg {
		ts.Fatalf("%s: %v", args[1], err)
	}
}

// trust FILE ARG... is multiproc key trust with the public key in a file.
func trust(ts *testscript.TestScript, _ bool, args []string) {
	key := strings.TrimSpace(ts.ReadFile(args[0]))
	ts.Check(ts.Exec("multiproc", append([]string{"key", "trust", key}, args[1:]...)...))
}

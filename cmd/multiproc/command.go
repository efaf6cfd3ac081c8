package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/cmd/multiproc/internal/jobs"
	"github.com/seed84f35039/multiproc/internal/child"
)

// runCommand runs a command: on this machine on Threads, as it is a process of its own already, and in the workers of
// agents on others.
var runCommand = multiproc.Register("multiproc.run", func(ctx context.Context, c command) (ranCommand, error) { return c.run(ctx) })

// command is a command that is to be run.
type command struct {
	Argv    []string      // where jobs.SlotMark is in it, it stands for the number of the slot
	Local   bool          // this is the machine of whoever wants it run: there are slots
	Env     []string      // added to the environment of the process that runs it
	Dir     string        // working directory; empty: that of the process
	Timeout time.Duration // of each try; 0: none
	Grace   time.Duration // from SIGTERM to SIGKILL
	Tries   int           // how often it is run until it succeeds
}

// ranCommand is what has become of a command, in its last try.
type ranCommand struct {
	Stdout, Stderr jobs.Spool
	ExitCode       int  // -1 where a signal ended it
	Signal         int  // or 0
	Killed         bool // it was told to end, and TimedOut if that was for its time
	TimedOut       bool
	Tries          int
	Start          time.Time
	Runtime        time.Duration
	Host           string
}

// ok reports whether the command has succeeded.
func (o *ranCommand) ok() bool { return o.ExitCode == 0 && !o.Killed }

// The exit codes of what cannot be run, as shells have them.
const (
	codeCannotRun = 126
	codeNotFound  = 127
)

// code is the exit code, as shells tell it where a signal ended the command.
func (o *ranCommand) code() int {
	switch {
	case o.Signal > 0:
		return 128 + o.Signal
	case o.ExitCode < 0:
		return codeOwn
	}
	return o.ExitCode
}

// run runs the command until it has succeeded, or often enough. The error is that of the context, or errHalted.
func (c command) run(ctx context.Context) (o ranCommand, err error) {
	b, _ := ctx.Value(brakeKey{}).(*brake)
	halted := b.run(ctx, func(ctx context.Context) (bool, int) {
		o, err = c.untilSuccess(ctx)
		return err == nil && o.ok(), o.code()
	})
	if halted != nil {
		err = halted
	}
	return o, err
}

func (c command) untilSuccess(ctx context.Context) (o ranCommand, err error) {
	o.Host = hostname()
	env := append(environment(c.Local), c.Env...)
	argv := c.Argv
	if c.Local {
		slot := slots.take()
		defer slots.free(slot)
		number := strconv.Itoa(slot)
		argv = make([]string, len(c.Argv))
		for i, arg := range c.Argv {
			argv[i] = strings.ReplaceAll(arg, jobs.SlotMark, number)
		}
		env = append(env, "MP_SLOT="+number)
	}
	env = append(env, "MP_TRY=1")
	for try := 1; ; try++ {
		env[len(env)-1] = "MP_TRY=" + strconv.Itoa(try)
		o.Stdout.Close()
		o.Stderr.Close()
		o.Tries = try
		o.attempt(ctx, c, argv, env)
		switch {
		case ctx.Err() != nil && !o.ok():
			return o, context.Cause(ctx)
		case o.ok() || try >= c.Tries:
			return o, nil
		}
	}
}

// attempt runs the command once.
func (o *ranCommand) attempt(ctx context.Context, c command, argv, env []string) {
	limited := ctx
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	o.Start = time.Now()
	defer func() { o.Runtime = time.Since(o.Start) }()
	path, err := programs.find(argv[0])
	var exit child.Exit
	if err == nil {
		exit, err = child.Command{
			Path: path, Args: argv, Env: env, Dir: c.Dir, Stdout: &o.Stdout, Stderr: &o.Stderr, Grace: c.Grace,
		}.Run(limited)
	}
	err = blameDir(c.Dir, err)
	o.ExitCode, o.Signal = exit.Code, int(exit.Signal)
	o.Killed, o.TimedOut = exit.Killed, exit.Killed && ctx.Err() == nil
	if err != nil {
		fmt.Fprintf(&o.Stderr, "multiproc: %v\n", err)
		switch {
		case errors.Is(err, errNotOnPath), errors.Is(err, fs.ErrNotExist):
			o.ExitCode = codeNotFound
		case exit == child.Exit{}:
			o.ExitCode = codeCannotRun
		}
	}
}

// blameDir returns why a program was not started in a directory, which may be what is missing.
func blameDir(dir string, err error) error {
	if dir == "" || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return err
	}
	if bad := checkDir(dir); bad != nil {
		return fmt.Errorf("--dir: %v", bad) // which is not that there is no such command
	}
	return err
}

// checkDir returns why a directory cannot be that of commands.
func checkDir(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is not a directory", dir)
	}
	return err
}

// hostname names this machine.
var hostname = sync.OnceValue(func() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
})

// environment returns the environment of commands, to which may be appended.
func environment(local bool) []string {
	if local {
		return ownEnvironment()
	}
	return workerEnvironment()
}

// The variables of a command that this process belongs to, and what agents set for their workers alone.
var (
	ownEnvironment    = sync.OnceValue(func() []string { return environmentWithout("MP_SEQ", "MP_SLOT", "MP_TRY") })
	workerEnvironment = sync.OnceValue(func() []string { return environmentWithout("MP_SEQ", "MP_SLOT", "MP_TRY", "GOMAXPROCS") })
)

func environmentWithout(names ...string) []string {
	var env []string
	seen := map[string]int{}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if slices.Contains(names, name) {
			continue
		}
		if i, twice := seen[name]; twice {
			env[i] = v
			continue
		}
		seen[name] = len(env)
		env = append(env, v)
	}
	return env[:len(env):len(env)]
}

// programs remembers where programs are.
var programs lookup

// lookup finds programs by their names, once each.
type lookup struct {
	mu    sync.Mutex
	paths map[string]string
}

// find returns the path of a program.
func (l *lookup) find(name string) (string, error) {
	if strings.ContainsRune(name, filepath.Separator) {
		return name, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if path, ok := l.paths[name]; ok {
		return path, nil
	}
	path, err := lookPath(name)
	if err != nil {
		return "", err
	}
	if l.paths == nil {
		l.paths = map[string]string{}
	}
	l.paths[name] = path
	return path, nil
}

// slots are the numbers of jobs that run at once.
var slots numbers

// numbers hands out the lowest number that is free, from 1 on.
type numbers struct {
	mu    sync.Mutex
	taken []bool
}

func (n *numbers) take() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, taken := range n.taken {
		if !taken {
			n.taken[i] = true
			return i + 1
		}
	}
	n.taken = append(n.taken, true)
	return len(n.taken)
}

func (n *numbers) free(number int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.taken[number-1] = false
}

package multiproc

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/seed84f35039/multiproc/internal/child"
)

// PoolConfig configures [NewPool] and [NewProcesses]. The zero value works.
type PoolConfig struct {
	// Workers is how many worker processes run at once. They are started when
	// there is work for them. 0 means runtime.GOMAXPROCS(0), which respects the
	// CPU limit of a container.
	Workers int

	// KillGrace is how long a call that is not wanted any more may go on after its
	// context has ended. Then its worker is killed, with everything that it
	// started, and replaced. It is also how long Close waits for another call to
	// end before it gives up on those that run. 0 means 5 seconds.
	KillGrace time.Duration

	// CallTimeout is how long a call may run, from its start in the worker, not counting
	// the time that it waits: see [TimeoutError]. Each call of a batch has its own. Setup and
	// Teardown have none. 0 means no limit.
	CallTimeout time.Duration

	// Command is another program to be the worker, with its arguments; the first one is its path. Its
	// main function has to call [Init], and it runs the functions that are registered there. nil means
	// this program.
	Command []string

	// CPUTime is how much CPU time a call may take, likewise: what its worker process takes
	// while it runs. It is looked at every tenth of it, but not more often than every
	// 10 ms. It cannot be combined with Concurrency. 0 means no limit.
	CPUTime time.Duration

	// Retry says whether calls that have failed are run again. The zero value means no.
	Retry Retry

	// MaxCrashes is how many workers one call may kill where Retry has it run again; then
	// it is given up, whatever Retry says. 0 means 3.
	MaxCrashes int

	// Concurrency is how many calls a worker runs at once, each on a goroutine of its own.
	// More than one is for functions that wait for something, as for a network; what one of
	// them does to the process meets the others, and a crash costs all that run in the worker
	// at that moment. Processes cannot have more than one. 0 means 1.
	Concurrency int

	// MaxTasks is how many calls a worker is given before it is replaced. Processes give
	// each one call, whatever it says. 0 means no limit.
	MaxTasks int

	// MaxAge is how long a worker is used before it is replaced, between two calls. The next
	// one is started first, so that there is no gap. 0 means no limit.
	MaxAge time.Duration

	// MaxRSS is how much memory a worker may keep between calls, in bytes: one whose resident
	// memory exceeds that is replaced as for MaxAge. It is looked at ten times a second while
	// there are calls. Linux only. 0 means no limit.
	MaxRSS int64

	// IdleTimeout is how long a worker without calls is kept. 0 means for ever.
	IdleTimeout time.Duration

	// Heartbeat is how often a worker that has calls is asked for a sign of life, which it
	// gives whatever its calls do. One that gives none for three times as long, as it is
	// stopped or stuck, is killed as if it had crashed. 0 means 5 seconds; less than 0 means
	// never, as for a debugger that stops workers.
	Heartbeat time.Duration

	// StartTimeout is how long a new process may take to reach Init. 0 means 30
	// seconds.
	StartTimeout time.Duration

	// Spares is how many processes stand ready beyond those that work: started, with
	// their Setup behind them. One takes the place of a worker that has died, or of
	// a process of Processes whose call has ended, without anybody having to wait for
	// a process to start, and is replaced in the background. Each costs the memory of an
	// idle worker and no CPU. 0 means none.
	Spares int

	// Setup is called in each worker before its first call: see [Func.With]. While
	// it fails no call is run; calls that wait get its error. nil means none.
	Setup *Setup

	// Teardown is called in each worker after its last call, when it is ended in an orderly
	// way: by Close, Shutdown or Stop, or as it is replaced for its age and the like. It is not
	// called in a worker that is killed or dies, nor in a spare that was never used. It may
	// take KillGrace. Its argument cannot hold shared memory. Made by [Func.With]; nil means
	// none.
	Teardown *Setup

	// Observe is called with what happens to workers and calls: see [Event]. It is called by
	// the goroutines that serve the workers, possibly by several at once, and holds them up: it
	// must not block, nor use the pool. nil means that nobody is told.
	Observe func(Event)

	// MemoryLimit is how much memory of its own a worker may have beyond what it has at its
	// start, in bytes: its Go heap and what C allocates in it, but not shared memory. One that
	// has more, which is looked at fifty times a second while it has calls, is killed, and the
	// call gets a *CrashError whose OutOfMemory is true. So does a worker that allocates 80 MiB
	// more than that at once (144 in a program with the C library): there the allocation fails
	// (RLIMIT_DATA). At 80 % of the limit the collector begins to work harder (GOMEMLIMIT). What
	// a worker starts is not counted, and has the limit that the system enforces for itself.
	// Linux only; needs no privileges. 0 means no limit.
	MemoryLimit int64

	// OpenFiles is how many descriptors a worker may have (RLIMIT_NOFILE), of which it needs
	// about ten for itself. Linux only. 0 means as many as this process.
	OpenFiles int

	// Nice is added to the niceness of the workers, whose priority it lowers. Linux only. 0
	// means that of this process.
	Nice int

	// CPUs are the numbers of the CPUs on which workers may run, all of them on each. Linux
	// only. None means those of this process.
	CPUs []int

	// Cage limits the workers from outside, each with all that it starts: package cgroup has
	// one, for hard limits of memory, CPUs and processes where the system lets this program
	// set them. It must be there until the pool is closed. nil means none.
	Cage Cage

	// GOMAXPROCS is how many threads of each worker may run Go code at once. 0
	// means runtime.GOMAXPROCS(0)/Workers, at least 1.
	GOMAXPROCS int

	// Env adds variables to the environment of the workers, as "NAME=value"; they
	// win over those that this process has.
	Env []string

	// Dir is the working directory of the workers. Empty means that of this
	// process.
	Dir string

	// Stdout receives what the workers write to standard output. An *os.File is
	// handed to them as it is; another writer gets whole lines, from one worker at
	// a time. nil means os.Stdout; io.Discard drops it.
	Stdout io.Writer

	// Stderr receives what the workers write to standard error, in whole lines,
	// from one worker at a time. nil means os.Stderr; io.Discard drops it. The last
	// lines are part of a CrashError either way.
	Stderr io.Writer

	// Logger gets what the workers log by log/slog, and by package log: in a worker
	// slog.Default passes records on to the handler of this logger, here. It adds a group
	// "worker" to each, with "pid" and, where a call logged it, "func" and "index", as in
	// [CallInfo]; that call is the one whose context the record was logged with, or else the
	// one that runs. What a call has logged has been handled before its result is there.
	//
	// Workers do not send what is below the lowest level that the handler was enabled for
	// when they were started. The handler is asked again here; it gets the context of the
	// caller. Values come as the kinds of log/slog that they are; what is none of these
	// comes as its text, but for numbers, texts, bytes, and slices and maps of them. A record
	// of more than 64 KiB is cut.
	//
	// A handler that blocks holds up the answers of the worker that logged, until it returns,
	// and with them those who wait for its calls; so it must not wait for calls of this
	// executor. Other workers go on: several goroutines may call it at once.
	//
	// A worker may have workers of its own, whose Logger is its slog.Default. What those log
	// has a group "worker" for each level, the innermost first.
	//
	// nil means that nothing is passed on: a worker logs to its standard error.
	Logger *slog.Logger
}

// Validate returns everything that is wrong with the configuration, or nil: what the calls of an executor that is made with it would
// get.
func (c PoolConfig) Validate() error {
	if _, err := c.check(); err != nil {
		return fmt.Errorf("PoolConfig: %w", err)
	}
	return nil
}

// check returns the configuration with its defaults, or everything that is wrong.
func (c PoolConfig) check() (PoolConfig, error) {
	errs := []error{
		atLeast0("Workers", c.Workers), atLeast0("Spares", c.Spares), atLeast0("KillGrace", c.KillGrace),
		atLeast0("StartTimeout", c.StartTimeout), atLeast0("GOMAXPROCS", c.GOMAXPROCS), checkPlace(c.Dir, c.Env), checkLogger(c.Logger),
		atLeast0("CallTimeout", c.CallTimeout), atLeast0("CPUTime", c.CPUTime), atLeast0("MaxCrashes", c.MaxCrashes),
		atLeast0("Concurrency", c.Concurrency), atLeast0("MaxTasks", c.MaxTasks), atLeast0("MaxAge", c.MaxAge),
		atLeast0("MaxRSS", c.MaxRSS), atLeast0("IdleTimeout", c.IdleTimeout),
	}
	var err error
	if c.Retry, err = c.Retry.check(); err != nil {
		errs = append(errs, err)
	}
	if c.Concurrency > 1 && c.CPUTime > 0 {
		errs = append(errs, errors.New("CPUTime: with Concurrency above 1 nobody can tell whose CPU time it is; leave one of them out"))
	}
	errs = append(errs, c.limits().Validate())
	if c.Teardown != nil && c.Teardown.encode == nil {
		errs = append(errs, fmt.Errorf("%s: make it with the method With of a registered function", "Teardown"))
		c.Teardown = nil
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 5 * time.Second
	}
	if c.MaxCrashes == 0 {
		c.MaxCrashes = 3
	}
	if c.Concurrency == 0 {
		c.Concurrency = 1
	}
	if c.Setup != nil && c.Setup.encode == nil {
		errs = append(errs, fmt.Errorf("%s: make it with the method With of a registered function", "Setup"))
	}
	if c.Workers == 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.KillGrace == 0 {
		c.KillGrace = defaultGrace
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = defaultStartTimeout
	}
	if c.GOMAXPROCS == 0 {
		c.GOMAXPROCS = max(1, runtime.GOMAXPROCS(0)/max(1, c.Workers))
	}
	c.Stdout, c.Stderr = outputs(c.Stdout, c.Stderr)
	return c, errors.Join(errs...)
}

func (c PoolConfig) limits() child.Limits {
	return child.Limits{Memory: c.MemoryLimit, OpenFiles: c.OpenFiles, Nice: c.Nice, CPUs: c.CPUs}
}

// worker returns what the workers have to know.
func (c PoolConfig) worker() workerConfig {
	return workerConfig{timeout: c.CallTimeout, cpuTime: c.CPUTime, grace: c.KillGrace, concurrency: c.Concurrency, limits: c.limits(), log: lowest(c.Logger)}
}

const defaultStartTimeout = 30 * time.Second

// checkPlace checks a working directory and additions to an environment.
func checkPlace(dir string, env []string) error {
	var errs []error
	if dir != "" {
		if info, err := os.Stat(dir); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", "Dir", err))
		} else if !info.IsDir() {
			errs = append(errs, fmt.Errorf("%s: %s is not a directory", "Dir", dir))
		}
	}
	for _, kv := range env {
		if name, _, ok := strings.Cut(kv, "="); !ok || name == "" || strings.Contains(kv, "\x00") {
			errs = append(errs, fmt.Errorf("%s: %q is not of the form NAME=value", "Env", kv))
		}
	}
	return errors.Join(errs...)
}

package multiproc

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/seed84f35039/multiproc/internal/child"
	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// The environment of a worker.
const (
	envWorker = "MULTIPROC_WORKER" // version of the protocol and build; tells Init to serve; removed by it
	envConfig = "MULTIPROC_CONFIG" // a workerConfig; removed by Init
	envFiles  = "MULTIPROC_FILES"  // how many descriptors the connection to the parent has; removed by Init
	envDepth  = "MULTIPROC_DEPTH"  // how many workers are above and including this one; stays
)

// fdConn is the first descriptor of a worker's connection to its parent. The one after
// the last is for child.Arm.
const fdConn = 3

// workerSays begins what a worker says of itself on standard error.
const workerSays = "multiproc: worker: "

// maxDepth is how deeply workers may be nested.
const maxDepth = 8

var initialized atomic.Bool

// Init makes the program able to be its own worker. In a process that was started
// to be a worker it serves calls and never returns; in any other it does nothing
// but note that it was called. It must be called before worker processes are used,
// and should be the first statement of main, because whatever comes before it runs
// in every worker too. A worker has no command-line arguments and nothing on standard
// input; what a call needs comes in its argument or by [PoolConfig].Setup:
//
//	func main() {
//		multiproc.Init()
//		…
//	}
//
// and in a package whose tests use workers:
//
//	func TestMain(m *testing.M) {
//		multiproc.Init()
//		os.Exit(m.Run())
//	}
//
// Without it, the first call on a [Pool] fails with [ErrNotInitialized], and no
// process is started. [Threads] do not need it.
func Init() {
	kind, isWorker := os.LookupEnv(envWorker)
	initialized.Store(true)
	if !isWorker {
		return
	}
	// What this process starts is not a worker, unless a pool of its own says so.
	files, _ := strconv.Atoi(os.Getenv(envFiles))
	os.Unsetenv(envWorker)
	os.Unsetenv(envFiles)
	cfg, badConfig := parseWorkerConfig(os.Getenv(envConfig))
	os.Unsetenv(envConfig)
	conn, err := transport.Open(fdConn, files)
	if err != nil {
		return // the variable was inherited by accident, from a worker that did not come here
	}
	fail := func(err error) {
		fmt.Fprintf(os.Stderr, "%s%v\n", workerSays, err)
		os.Exit(2)
	}
	// The parent checks the same in the greeting, but may have sent a call by then.
	version, parent, _ := strings.Cut(kind, " ")
	own := build()
	if version != strconv.Itoa(wire.Version) {
		fail(fmt.Errorf("the parent speaks version %s of the protocol, this program version %d; build both from one version of multiproc", version, wire.Version))
	}
	if parent != own {
		fail(&otherBuild{own, parent})
	}
	if badConfig == nil {
		badConfig = cfg.limits.Apply()
	}
	if badConfig != nil {
		fail(badConfig)
	}
	if err := child.Arm(fdConn + uintptr(files)); err != nil {
		fail(err)
	}
	hello := wire.AppendGreeting(wire.Begin(nil, wire.Hello, 0), wire.Greeting{Version: wire.Version, Build: own, PID: os.Getpid()})
	if err = wire.End(hello, 0); err == nil {
		err = conn.Send(hello, nil, transport.Now)
	}
	if err != nil {
		fail(err)
	}
	if cfg.log != nil {
		slog.SetDefault(slog.New(&logHandler{conn: conn, level: cfg.log.Level()}))
	}
	code, ok := serve(conn, cfg, func() { child.EndGroup(termGrace) })
	if !ok {
		child.KillGroup() // the parent is gone, and with it the reason to exist
	}
	os.Exit(code)
}

// Initialized reports whether [Init] was called in this process: for those who have other processes run its program.
func Initialized() bool { return initialized.Load() }

// depth returns how deeply this process is nested: 0 where it is not a worker.
var depth = sync.OnceValue(func() int {
	n, err := strconv.Atoi(os.Getenv(envDepth))
	if err != nil || n < 0 {
		return 0
	}
	return n
})

// canSpawn reports why this process may not start workers.
func canSpawn() error {
	if !transport.Supported {
		return fmt.Errorf("worker processes on %s: %w", runtime.GOOS, errors.ErrUnsupported)
	}
	if !initialized.Load() {
		return ErrNotInitialized
	}
	if d := depth(); d >= maxDepth {
		return fmt.Errorf("%w: this process is %d deep, the most that is allowed", ErrTooDeep, d)
	}
	return nil
}

// build identifies the file that this process runs, so that a parent notices when
// a worker runs another: it was replaced on disk.
func build() string {
	path, err := child.Self()
	if err != nil {
		return ""
	}
	return buildOf(path)
}

// buildOf is build for a file.
func buildOf(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return strconv.FormatInt(info.Size(), 10) + "-" + strconv.FormatInt(info.ModTime().UnixNano(), 10)
}

// workerEnv returns the environment of a worker, which is to be of that build.
func workerEnv(extra []string, build string, gomaxprocs, files int, cfg workerConfig) []string {
	env := append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(gomaxprocs))
	for _, kv := range extra {
		name, _, _ := strings.Cut(kv, "=")
		if name != envWorker && name != envConfig && name != envFiles && name != envDepth {
			env = append(env, kv)
		}
	}
	if _, set := os.LookupEnv("GORACE"); raceDetector && !set {
		env = append(env, "GORACE=atexit_sleep_ms=0") // or each worker takes a second to end
	}
	if s := cfg.String(); s != "" {
		env = append(env, envConfig+"="+s)
	}
	return append(env, envWorker+"="+strconv.Itoa(wire.Version)+" "+build, envFiles+"="+strconv.Itoa(files), envDepth+"="+strconv.Itoa(depth()+1))
}

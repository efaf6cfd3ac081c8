//go:build unix

package multiproc_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/seed84f35039/multiproc"
)

// The functions of the examples. In a program they stand where these do, in package-level
// variables, so that a worker has them too.
var (
	cube = multiproc.Register("example.cube", func(_ context.Context, x int) (int, error) {
		return x * x * x, nil
	})

	parse = multiproc.Register("example.parse", func(_ context.Context, s string) (int, error) {
		return strconv.Atoi(s)
	})

	// workerPID takes nothing.
	workerPID = multiproc.Register("example.workerPID", func(_ context.Context, _ struct{}) (int, error) {
		return os.Getpid(), nil
	})

	// fill returns nothing.
	fill = multiproc.Register("example.fill", func(_ context.Context, xs []string) (struct{}, error) {
		for i := range xs {
			xs[i] = "filled"
		}
		return struct{}{}, nil
	})

	// waitForCancel runs until its context ends.
	waitForCancel = multiproc.Register("example.waitForCancel", func(ctx context.Context, _ struct{}) (int, error) {
		<-ctx.Done()
		return 0, context.Cause(ctx)
	})

	third = multiproc.Register("example.third", func(_ context.Context, xs []string) (string, error) {
		return xs[2], nil
	})

	exitWith = multiproc.Register("example.exitWith", func(_ context.Context, code int) (int, error) {
		fmt.Fprintln(os.Stderr, "cannot go on")
		os.Exit(code)
		return 0, nil
	})

	fileSize = multiproc.Register("example.fileSize", func(_ context.Context, name string) (int64, error) {
		info, err := os.Stat(name)
		if err != nil {
			return 0, err
		}
		return info.Size(), nil
	})
)

// With Init in front, this is the main function of a program.
func Example() {
	multiproc.Init() // in a worker process: serves calls and never returns

	pool := multiproc.NewPool(multiproc.PoolConfig{})
	defer pool.Close()

	out, err := cube.Map(context.Background(), pool, []int{1, 2, 3})
	fmt.Println(out, err)
	// Output: [1 8 27] <nil>
}

// A function that is registered as
//
//	var cube = multiproc.Register("example.cube", func(_ context.Context, x int) (int, error) {
//		return x * x * x, nil
//	})
//
// is called through an executor, or started in a process of its own.
func ExampleRegister() {
	multiproc.Init()
	ctx := context.Background()

	threads := multiproc.NewThreads(multiproc.ThreadsConfig{})
	defer threads.Close()
	fmt.Println(cube.Call(ctx, threads, 3))

	p, err := cube.Start(ctx, 4, multiproc.ProcessConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.Wait(ctx))
	// Output:
	// 27 <nil>
	// 64 <nil>
}

// The executor can be chosen by the user of a program: the calls do not change.
func ExampleExecutor() {
	flags := flag.NewFlagSet("cubes", flag.ContinueOnError)
	on := flags.String("on", "threads", "where to run: threads, pool or processes")
	if err := flags.Parse([]string{"-on", "pool"}); err != nil {
		return
	}

	var ex multiproc.Executor
	switch *on {
	case "pool":
		ex = multiproc.NewPool(multiproc.PoolConfig{})
	case "processes":
		ex = multiproc.NewProcesses(multiproc.PoolConfig{})
	default:
		ex = multiproc.NewThreads(multiproc.ThreadsConfig{})
	}
	defer ex.Close()

	fmt.Println(cube.Map(context.Background(), ex, []int{1, 2, 3}))
	// Output: [1 8 27] <nil>
}

// Threads share the memory of the program.
func ExampleNewThreads() {
	threads := multiproc.NewThreads(multiproc.ThreadsConfig{Workers: 2})
	defer threads.Close()

	words := []string{"empty", "empty"}
	if _, err := fill.Call(context.Background(), threads, words); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(words)
	// Output: [filled filled]
}

// The workers of a pool get a copy of the argument, and run one call after the other.
func ExampleNewPool() {
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
	defer pool.Close()
	ctx := context.Background()

	words := []string{"empty", "empty"}
	if _, err := fill.Call(ctx, pool, words); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(words)

	pids, err := workerPID.Map(ctx, pool, make([]struct{}, 3))
	slices.Sort(pids)
	fmt.Println("calls:", len(pids), "processes:", len(slices.Compact(pids)), err)
	// Output:
	// [empty empty]
	// calls: 3 processes: 1 <nil>
}

// Every call gets a process of its own, two of which run at a time here.
func ExampleNewProcesses() {
	processes := multiproc.NewProcesses(multiproc.PoolConfig{Workers: 2})
	defer processes.Close()

	pids, err := workerPID.Map(context.Background(), processes, make([]struct{}, 3))
	slices.Sort(pids)
	fmt.Println("calls:", len(pids), "processes:", len(slices.Compact(pids)), err)
	// Output: calls: 3 processes: 3 <nil>
}

// Start has all workers ready before the first call, or says why it cannot.
func ExamplePool_Start() {
	ctx := context.Background()

	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 2})
	defer pool.Close()
	fmt.Println(pool.Start(ctx))

	misconfigured := multiproc.NewPool(multiproc.PoolConfig{Workers: -2, Env: []string{"LANG"}})
	defer misconfigured.Close()
	fmt.Println(misconfigured.Start(ctx))
	// Output:
	// <nil>
	// multiproc: start: PoolConfig: Workers is -2; it must not be negative (0 means the default)
	// Env: "LANG" is not of the form NAME=value
}

// A shutdown without time ends the calls that run.
func ExamplePool_Shutdown() {
	pool := multiproc.NewPool(multiproc.PoolConfig{})
	call := waitForCancel.Go(context.Background(), pool, struct{}{})

	now, cancel := context.WithCancel(context.Background())
	cancel()
	err := pool.Shutdown(now)
	fmt.Println(errors.Is(err, context.Canceled))

	_, err = call.Wait(context.Background())
	fmt.Println(errors.Is(err, multiproc.ErrClosed))
	// Output:
	// true
	// true
}

func ExampleFunc_Call() {
	pool := multiproc.NewPool(multiproc.PoolConfig{})
	defer pool.Close()

	volume, err := cube.Call(context.Background(), pool, 5)
	fmt.Println(volume, err)
	// Output: 125 <nil>
}

// Two calls run while the program does something else.
func ExampleFunc_Go() {
	pool := multiproc.NewPool(multiproc.PoolConfig{})
	defer pool.Close()
	ctx := context.Background()

	two, three := cube.Go(ctx, pool, 2), cube.Go(ctx, pool, 3)
	fmt.Println("waiting")
	fmt.Println(two.Wait(ctx))
	fmt.Println(three.Wait(ctx))
	// Output:
	// waiting
	// 8 <nil>
	// 27 <nil>
}

func ExampleFuture_Done() {
	pool := multiproc.NewPool(multiproc.PoolConfig{})
	defer pool.Close()
	ctx := context.Background()

	fast, slow := cube.Go(ctx, pool, 2), waitForCancel.Go(ctx, pool, struct{}{})
	select {
	case <-fast.Done():
		fmt.Println("fast")
	case <-slow.Done():
		fmt.Println("slow")
	}
	slow.Cancel()
	// Output: fast
}

func ExampleFuture_Cancel() {
	pool := multiproc.NewPool(multiproc.PoolConfig{})
	defer pool.Close()
	ctx := context.Background()

	call := waitForCancel.Go(ctx, pool, struct{}{})
	call.Cancel()
	_, err := call.Wait(ctx)
	fmt.Println(err)
	// Output: example.waitForCancel: context canceled
}

// Map stops at the first error, and returns the results before it.
func ExampleFunc_Map() {
	pool := multiproc.NewPool(multiproc.PoolConfig{})
	defer pool.Close()
	ctx := context.Background()

	out, err := parse.Map(ctx, pool, []string{"1", "2", "3"})
	fmt.Println(out, err)

	out, err = parse.Map(ctx, pool, []string{"1", "zwei", "3"})
	fmt.Println(out)
	if remote, ok := errors.AsType[*multiproc.RemoteError](err); ok {
		fmt.Println(remote.Index, remote.Message)
	}
	// Output:
	// [1 2 3] <nil>
	// [1]
	// 1 strconv.Atoi: parsing "zwei": invalid syntax
}

func ExampleCollectErrors() {
	threads := multiproc.NewThreads(multiproc.ThreadsConfig{})
	defer threads.Close()

	in := []string{"1", "zwei", "3", "vier"}
	out, err := parse.Map(context.Background(), threads, in, multiproc.CollectErrors())
	fmt.Println(out)
	fmt.Println(err)
	// Output:
	// [1 0 3 0]
	// example.parse #1: strconv.Atoi: parsing "zwei": invalid syntax
	// example.parse #3: strconv.Atoi: parsing "vier": invalid syntax
}

// Each worker is handed 100 numbers at a time.
func ExampleWithBatch() {
	pool := multiproc.NewPool(multiproc.PoolConfig{})
	defer pool.Close()

	out, err := cube.Map(context.Background(), pool, make([]int, 1000), multiproc.WithBatch(100))
	fmt.Println(len(out), err)
	// Output: 1000 <nil>
}

// The input has no end: a stream pulls as much of it as it needs.
func ExampleFunc_Stream() {
	pool := multiproc.NewPool(multiproc.PoolConfig{})
	defer pool.Close()

	numbers := func(yield func(int) bool) {
		for i := 1; yield(i); i++ {
		}
	}
	for out, err := range cube.Stream(context.Background(), pool, numbers) {
		if err != nil {
			fmt.Println(err)
			break
		}
		if out > 100 {
			break
		}
		fmt.Println(out)
	}
	// Output:
	// 1
	// 8
	// 27
	// 64
}

// The results come as the calls end, each with the position of its input.
func ExampleFunc_StreamUnordered() {
	pool := multiproc.NewPool(multiproc.PoolConfig{})
	defer pool.Close()

	in := []string{"1", "zwei", "3"}
	for r := range parse.StreamUnordered(context.Background(), pool, slices.Values(in)) {
		if r.Index < 0 { // the stream as a whole failed
			fmt.Println(r.Err)
			break
		}
		fmt.Println(in[r.Index], "is", r.Value, r.Err == nil)
	}
	// Unordered output:
	// 3 is 3 true
	// 1 is 1 true
	// zwei is 0 false
}

// However slow the loop is, no more than two numbers are read before their results are taken.
func ExampleWithWindow() {
	pool := multiproc.NewPool(multiproc.PoolConfig{})
	defer pool.Close()

	in := slices.Values([]int{1, 2, 3})
	for out, err := range cube.Stream(context.Background(), pool, in, multiproc.WithWindow(2)) {
		fmt.Println(out, err)
	}
	// Output:
	// 1 <nil>
	// 8 <nil>
	// 27 <nil>
}

func ExampleFunc_Start() {
	ctx := context.Background()
	p, err := cube.Start(ctx, 3, multiproc.ProcessConfig{Name: "cuber"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.Name(), p.PID() != os.Getpid())
	fmt.Println(p.Wait(ctx))
	fmt.Println(p.Alive(), p.ExitState())
	// Output:
	// cuber true
	// 27 <nil>
	// false exit status 0
}

// No process has to be started for the call, as one stands ready.
func ExampleNewSpares() {
	ctx := context.Background()
	spares := multiproc.NewSpares(1, multiproc.ProcessConfig{})
	defer spares.Close()
	if err := spares.Start(ctx); err != nil { // without this they are started after the first use
		fmt.Println(err)
		return
	}

	p, err := cube.Start(ctx, 3, multiproc.ProcessConfig{Spares: spares})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.Result(ctx))
	// Output: 27 <nil>
}

// A process can be killed whatever it is doing.
func ExampleProcess() {
	ctx := context.Background()
	p, err := waitForCancel.Start(ctx, struct{}{}, multiproc.ProcessConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := p.Kill(); err != nil {
		fmt.Println(err)
	}
	<-p.Done()

	_, err = p.Wait(ctx)
	if crash, ok := errors.AsType[*multiproc.CrashError](err); ok {
		fmt.Println(crash.Signal == syscall.SIGKILL)
	}
	fmt.Println(p.ExitState())
	// Output:
	// true
	// signal: killed
}

// greetings is filled in each worker by loadGreetings.
var greetings map[string]string

var loadGreetings = multiproc.Register("example.loadGreetings", func(_ context.Context, language string) (struct{}, error) {
	if language != "de" {
		return struct{}{}, fmt.Errorf("no greetings in %q", language)
	}
	greetings = map[string]string{"morning": "Guten Morgen", "evening": "Guten Abend"}
	return struct{}{}, nil
})

var greet = multiproc.Register("example.greet", func(_ context.Context, when string) (string, error) {
	return greetings[when], nil
})

// The setup runs once in each worker. What it loads is there for all calls.
func ExampleFunc_With() {
	pool := multiproc.NewPool(multiproc.PoolConfig{Setup: loadGreetings.With("de")})
	defer pool.Close()

	fmt.Println(greet.Map(context.Background(), pool, []string{"morning", "evening"}))
	// Output: [Guten Morgen Guten Abend] <nil>
}

var errNoSuchUser = multiproc.RegisterError("example.ErrNoSuchUser", errors.New("no such user"))

var home = multiproc.Register("example.home", func(_ context.Context, user string) (string, error) {
	if user != "gopher" {
		return "", fmt.Errorf("find %s: %w", user, errNoSuchUser)
	}
	return "/home/gopher", nil
})

// An error that was registered with
//
//	var errNoSuchUser = multiproc.RegisterError("example.ErrNoSuchUser", errors.New("no such user"))
//
// is the same in every process.
func ExampleRegisterError() {
	pool := multiproc.NewPool(multiproc.PoolConfig{})
	defer pool.Close()

	_, err := home.Call(context.Background(), pool, "nobody")
	fmt.Println(errors.Is(err, errNoSuchUser))
	// Output: true
}

// The function returned an error in another process.
func ExampleRemoteError() {
	pool := multiproc.NewPool(multiproc.PoolConfig{})
	defer pool.Close()

	_, err := fileSize.Call(context.Background(), pool, "no-such-file")
	if remote, ok := errors.AsType[*multiproc.RemoteError](err); ok {
		fmt.Println(remote.Func)
		fmt.Println(remote.Type)
		fmt.Println(remote.Message)
	}
	fmt.Println(errors.Is(err, fs.ErrNotExist))
	// Output:
	// example.fileSize
	// *fs.PathError
	// stat no-such-file: no such file or directory
	// true
}

// The function panicked. Its worker lives on.
func ExamplePanicError() {
	pool := multiproc.NewPool(multiproc.PoolConfig{})
	defer pool.Close()

	_, err := third.Call(context.Background(), pool, []string{"one", "two"})
	if p, ok := errors.AsType[*multiproc.PanicError](err); ok {
		fmt.Println(p.Func)
		fmt.Println(p.Value)
		fmt.Println(p.Stack != "")
	}
	// Output:
	// example.third
	// runtime error: index out of range [2] with length 2
	// true
}

// The function ended its process. The pool replaces the worker.
func ExampleCrashError() {
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Stderr: io.Discard})
	defer pool.Close()
	ctx := context.Background()

	_, err := exitWith.Call(ctx, pool, 3)
	if crash, ok := errors.AsType[*multiproc.CrashError](err); ok {
		fmt.Println(crash.Func)
		fmt.Println(crash.ExitCode)
		fmt.Print(crash.Stderr)
	}
	fmt.Println(cube.Call(ctx, pool, 2))
	// Output:
	// example.exitWith
	// 3
	// cannot go on
	// 8 <nil>
}

// connection is what a worker opens once and its calls use.
var connection string

var connect = multiproc.Register("example.connect", func(_ context.Context, address string) (struct{}, error) {
	connection = "connection to " + address
	return struct{}{}, nil
})

var query = multiproc.Register("example.query", func(_ context.Context, q string) (string, error) {
	return q + " over a " + connection, nil
})

var disconnect = multiproc.Register("example.disconnect", func(context.Context, struct{}) (struct{}, error) {
	connection = ""
	return struct{}{}, nil
})

// A worker has a state of its own: Setup makes it, in a package variable, calls use it, and
// Teardown ends it.
func ExamplePoolConfig_setup() {
	pool := multiproc.NewPool(multiproc.PoolConfig{
		Setup:    connect.With("db.example"),
		Teardown: disconnect.With(struct{}{}),
	})
	defer pool.Close()
	fmt.Println(query.Call(context.Background(), pool, "select 1"))
	// Output: select 1 over a connection to db.example <nil>
}

// Validate tells what is wrong before there is a call that would get the error.
func ExamplePoolConfig_Validate() {
	fmt.Println(multiproc.PoolConfig{Workers: -1}.Validate())
	fmt.Println(multiproc.PoolConfig{Workers: 2, Concurrency: 4}.Validate())
	// Output:
	// PoolConfig: Workers is -1; it must not be negative (0 means the default)
	// <nil>
}

// A worker with Concurrency runs several calls at once, which is for those that wait.
func ExamplePoolConfig_concurrency() {
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1, Concurrency: 8})
	defer pool.Close()
	out, err := cube.Map(context.Background(), pool, []int{1, 2, 3})
	fmt.Println(out, err)
	// Output: [1 8 27] <nil>
}

// A call that fails is run again, after a pause that grows, as often as Retry says.
func ExampleRetry() {
	pool := multiproc.NewPool(multiproc.PoolConfig{
		CallTimeout: time.Minute,
		Retry: multiproc.Retry{
			Attempts: 5,
			If: func(err error) bool { // the death of a worker, not an error that the function returns
				_, crashed := errors.AsType[*multiproc.CrashError](err)
				return crashed
			},
		},
	})
	defer pool.Close()
	fmt.Println(cube.Call(context.Background(), pool, 7))
	// Output: 343 <nil>
}

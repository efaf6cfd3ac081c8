// Package multiproc runs one function on threads, processes, a pool of worker
// processes or many machines by changing one line.
//
// A function is registered once, under a name by which another process finds it,
// and called through an [Executor]:
//
//	var square = multiproc.Register("square", func(ctx context.Context, x int) (int, error) {
//		return x * x, nil
//	})
//
//	func main() {
//		multiproc.Init() // in a worker process: serves calls and never returns
//
//		pool := multiproc.NewPool(multiproc.PoolConfig{}) // or NewThreads, or NewProcesses
//		defer pool.Close()
//
//		out, err := square.Map(context.Background(), pool, []int{1, 2, 3})
//		fmt.Println(out, err) // [1 4 9] <nil>
//	}
//
// # Executors
//
// [Threads] are goroutines of this process: fastest, and they share memory, but a
// call cannot be killed and a crash takes the program along. A [Pool] keeps worker
// processes, which are this program started again; a call that segfaults, exits,
// runs out of memory or is killed costs itself and nothing else. [Processes] start
// one process for each call. [Func.Start] starts a single one and gives a handle on
// it. Package cluster has an executor whose workers are on other machines, package shared
// memory that processes share, and package cgroup hard limits for workers.
//
// # Errors
//
// What the function returns is a [*RemoteError], what it panics with a
// [*PanicError], the death of its process a [*CrashError], and the end of a call by
// CallTimeout or CPUTime a [*TimeoutError]; each names the function, the index of the
// input and the process. Everything else can be told with errors.Is: the context's
// error, [ErrClosed], [ErrNotInitialized], [ErrUnknownFunc], [ErrEncoding],
// [ErrTooDeep]. Package cluster adds errors of its own.
//
// # Concurrency
//
// Everything in this package may be used from several goroutines at once.
//
// # Systems
//
// Worker processes need Linux or another Unix. On Windows only Threads work; the
// first call on another executor fails with errors.ErrUnsupported.
package multiproc

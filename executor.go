package multiproc

import "context"

// Executor decides where calls run: [Threads] on goroutines, [Processes] in a
// process each, [Pool] in worker processes that stay, cluster.Cluster in those of
// other machines. Programs name the executor once and hand it to [Func.Call],
// [Func.Map] and the others; what those promise holds on every executor.
//
// The interface is also what another executor of this module implements. It is handed calls in
// batches and pulls their arguments when it has room, so that a million small calls
// cost neither a goroutine nor an allocation each, and calls may take minutes, run
// on other machines, or be sent twice: see [Batch]. Threads, Processes and Pool run a
// call at most once, unless Retry has it run again; a Cluster runs it at least once.
//
// All methods may be called from several goroutines at once.
type Executor interface {
	// Submit queues the calls of the batch behind those submitted before and
	// returns at once. An error means that none of them was taken and none will
	// be answered: ErrClosed, ErrNotInitialized, ErrTooDeep, or what is wrong with
	// the configuration. Otherwise every call of the batch is answered exactly once.
	Submit(b *Batch) error

	// Window returns how many calls of the named function, at least 1, are worth
	// having under way at the moment: enough to keep every worker busy, and no
	// more. A stream pulls that many inputs ahead of its consumer. It may change
	// from call to call and costs little.
	Window(function string) int

	// Shutdown refuses new calls, lets those submitted before end, and releases
	// everything. When ctx ends first, the calls that are left end with ErrClosed,
	// their workers are killed, and the error is the context's. Only the first
	// Shutdown or Close decides how; later ones wait for it.
	Shutdown(ctx context.Context) error

	// Close is Shutdown for a defer statement: it lets the calls submitted before
	// end as long as they do end, but does not wait for one that hangs. See the
	// executors for the limit. After work that was cancelled, Shutdown with the
	// context that ended does not wait at all.
	Close() error
}

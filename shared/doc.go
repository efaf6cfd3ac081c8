// Package shared has state that processes share.
//
// [Memory] is bytes that several processes have in their address spaces at once. It
// travels in calls of package multiproc like any other value, in an argument or in a
// result, at any depth of structs, slices, arrays, maps and pointers, but it is neither
// copied nor encoded: the process that gets it maps the same pages. Handing over a
// gigabyte takes as long as handing over a kilobyte.
//
//	m, err := shared.NewMemory(1 << 30)
//	if err != nil {
//		return err
//	}
//	defer m.Close()
//	fill(m.Bytes())
//	sum, err := sum.Call(ctx, pool, m)
//
// The same program works on Threads, where the value itself is passed on, on Processes and on a
// Pool. A cluster.Cluster cannot carry memory, not even one of this machine alone: a call with
// it in the argument fails with an error that wraps multiproc.ErrEncoding, one that returns it
// with a *cluster.AgentError.
//
// # Who closes what
//
//   - Who makes memory closes it. The other processes that have it keep it.
//   - What a function gets in its argument belongs to whoever called: the function does
//     not close it, and uses it until it returns. To use it for longer, also in later
//     calls in the same process, it calls [Memory.Keep] and closes what that returns.
//   - What a function returns belongs to the caller, who closes it. A function that
//     wants to go on using memory that it returns returns what Keep gives it.
//   - What a call gets must be open until the call has been answered; for Start, until
//     that has returned. A call that finds it closed fails, with an error that wraps
//     fs.ErrClosed.
//   - A result that nobody receives (its call was cancelled, a stream was left) is closed
//     by itself. So is memory that nobody has any more and whose bytes nobody has asked
//     for. Once Bytes or [View] was called, only Close gives memory back, as the garbage
//     collector does not know who uses it.
//
// # Concurrency
//
// All functions and methods may be called from several goroutines at once. The bytes are
// another matter: every process that has them can write to them at any time, and the
// others see that. A call orders: what was written before the call is seen by the
// function, what the function has written before it returned is seen by the caller.
// Whoever else writes at the same time has to agree with the others on who writes where,
// or use atomic operations. A function that is cancelled or killed may have written
// anything up to then.
//
// # Life and limits
//
// Memory has no name and is in no file system. It goes with the last process that has it,
// however that ends; when a worker dies, whatever it was handed is still there for the
// others. Nobody can make it smaller while others use it.
//
// A page of 4 KiB takes up room from when somebody first touches it, and that takes 2 µs
// or more, so that for large memory the hand-over is the least of it: make memory once
// and use it again, rather than anew for each call. A worker's first touch of a page that
// is there already takes some 0.6 µs in each call, and nothing after the first one if the
// worker has kept the memory (BenchmarkEveryPage).
//
// Each piece of memory that is open takes a descriptor and an area of the address space
// in each process that has it, once however often it was handed over (Linux allows some
// 65,000 areas). A call may have up to 253 different pieces in its argument and 253 in
// its result. Memory cannot be the key of a map, and cannot hide in an unexported field of
// a type that has an encoding of its own.
//
// Only Linux has memory like that; elsewhere [NewMemory] returns errors.ErrUnsupported.
package shared

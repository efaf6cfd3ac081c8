// Package proctest is for tests alone: the suite that every executor has to pass, the
// functions that it runs in workers, the means by which a test and a call in another
// process wait for each other, and the check that a test leaves nothing behind.
//
// A package whose tests use it has
//
//	func TestMain(m *testing.M) {
//		multiproc.Init()
//		os.Exit(proctest.Run(m))
//	}
//
// # Concurrency
//
// A [Gate] may be entered by any number of calls at once, and its methods may be called
// from any goroutine. Nothing else here may be shared.
package proctest

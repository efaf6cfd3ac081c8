//go:build race

package multiproc_test

// The race detector has the runtime give up for another reason than having no memory, and its
// report of concurrent writes may come in the midst of what the runtime says of them.
const (
	raceEnabled = true
	outOfMemory = "too many address space collisions"
	mapWrites   = "fatal error: "
)

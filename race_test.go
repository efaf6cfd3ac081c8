//go:build linux && race

package multiproc_test

// The race detector has the runtime give up for another reason than having no memory.
const (
	raceEnabled = true
	outOfMemory = "too many address space collisions"
)

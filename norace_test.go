//go:build !race

package multiproc_test

const (
	raceEnabled = false
	outOfMemory = "out of memory"
	mapWrites   = "fatal error: concurrent map writes"
)

// Package lint holds the rules of this repository as Go tests: who may import whom, what a
// goroutine, a sleep or a skipped test must say about itself, which documents exist. It has no
// code of its own.
//
// The tests read every Go file of the module, whatever its build constraints, so that a rule
// holds on all platforms. Each rule about source files stands in one table beside code that it
// must refuse and code that it must accept: a rule that no longer fires is itself a failure.
package lint

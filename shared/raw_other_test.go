//go:build !linux

package shared_test

// rawEnv is set by benchmarks on Linux alone.
const rawEnv = "MULTIPROC_TEST_RAW"

func rawPeer() {}

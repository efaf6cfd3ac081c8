//go:build unix

package cluster_test

import (
	"testing"

	"github.com/seed84f35039/multiproc/cluster"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// BenchmarkCall is one call at a time.
func BenchmarkCall(b *testing.B) {
	c, err := cluster.Dial(b.Context(), cluster.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	if _, err := proctest.Square.Call(b.Context(), c, 3); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := proctest.Square.Call(b.Context(), c, 3); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMap is tiny calls in a Map of a million.
func BenchmarkMap(b *testing.B) {
	c, err := cluster.Dial(b.Context(), cluster.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	in := proctest.Numbers(1_000_000)
	for b.Loop() {
		if _, err := proctest.Square.Map(b.Context(), c, in); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(in)*b.N)/b.Elapsed().Seconds(), "calls/s")
}

package multiproc_test

import (
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

var threads = proctest.Subject{
	Name: "threads",
	Open: func(o proctest.Options) multiproc.Executor {
		return multiproc.NewThreads(multiproc.ThreadsConfig{Workers: o.Workers, Grace: o.Grace, Retry: o.Retry})
	},
	Reuses: true,
}

func TestThreads(t *testing.T) { proctest.Conformance(t, threads) }

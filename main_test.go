package multiproc_test

import (
	"os"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

func TestMain(m *testing.M) {
	multiproc.Init()
	os.Exit(proctest.Run(m))
}

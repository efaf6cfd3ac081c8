package shared_test

import (
	"os"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

func TestMain(m *testing.M) {
	if os.Getenv(rawEnv) != "" {
		rawPeer()
		os.Exit(0)
	}
	multiproc.Init()
	os.Exit(proctest.Run(m))
}

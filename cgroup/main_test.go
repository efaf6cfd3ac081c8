package cgroup_test

import (
	"os"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// helperEnv has the name of what this program is to do instead of testing.
const helperEnv = "MULTIPROC_TEST_HELPER"

// helpers are what the program can do, by name.
var helpers = map[string]func(){}

func TestMain(m *testing.M) {
	multiproc.Init()
	if name := os.Getenv(helperEnv); name != "" {
		helpers[name]()
		os.Exit(0)
	}
	os.Exit(proctest.Run(m))
}

package multiproc_test

import (
	"os"
	"testing"

	"github.com/seed84f35039/multiproc"
)

func TestMain(m *testing.M) { multiproc.Init(); os.Exit(m.Run()) }

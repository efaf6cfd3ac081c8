//go:build linux

package multiproc_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

func init() { helpers["cpus"] = cpus }

// cpus is a program that says, for pools of several widths, how many workers they have and
// how many threads of each may run Go code.
func cpus() {
	for _, workers := range []int{0, 1, 2, 4, 9} {
		variable := fmt.Sprintf("CPUS_OF=%d of %d", workers, os.Getpid())
		pool := multiproc.NewPool(multiproc.PoolConfig{Workers: workers, Env: []string{variable}})
		err := pool.Start(context.Background())
		n := len(proctest.Strays(variable))
		view, err2 := proctest.Look.Call(context.Background(), pool, "")
		fmt.Println(workers, n, view.GOMAXPROCS, err, err2)
		pool.Close()
	}
}

// TestCPUsOfWorkers has the number of workers, and of the threads in each, follow the GOMAXPROCS of
// the program, which the runtime takes from the machine and from the quota of a container: together they
// have as many threads, and each has at least one.
func TestCPUsOfWorkers(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"=cpus", "GOMAXPROCS=6")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	proctest.Want(t, "Workers, workers, threads of each", strings.Split(strings.TrimSpace(string(out)), "\n"), []string{
		"0 6 1 <nil> <nil>",
		"1 1 6 <nil> <nil>",
		"2 2 3 <nil> <nil>",
		"4 4 1 <nil> <nil>",
		"9 9 1 <nil> <nil>",
	})
}

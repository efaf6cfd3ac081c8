package shared_test

import (
	"context"
	"os"
	"syscall"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
	"github.com/seed84f35039/multiproc/shared"
)

// made is memory and who made it.
type made struct {
	Memory shared.Memory
	PID    int
}

var maker = multiproc.Register("maker", func(_ context.Context, size int) (made, error) {
	m, err := shared.NewMemory(size)
	return made{m, os.Getpid()}, err
})

// TestMakerDies kills the process that has made memory, and another that has it: it stays as long as
// somebody else has it, and nothing in a directory is left of it (see TestMain).
func TestMakerDies(t *testing.T) {
	t.Parallel()
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
	defer pool.Close()
	m, err := maker.Call(proctest.Within(t), pool, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Memory.Close()
	kill := func(pid int) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		proctest.Eventually(t, proctest.Patience, "it has ended", func() bool { return !proctest.Running(pid) })
	}
	kill(m.PID)
	m.Memory.Bytes()[99] = 5
	keeper, err := proctest.KeepMemory.Call(proctest.Within(t), pool, m.Memory)
	if err != nil {
		t.Fatal(err)
	}
	kill(keeper)
	pid, err := proctest.Set.Call(proctest.Within(t), pool, proctest.Mark{Memory: m.Memory, At: 98, Byte: 6})
	if err != nil || pid == keeper || keeper == m.PID {
		t.Errorf("it was made by %d, kept by %d and written by %d, %v", m.PID, keeper, pid, err)
	}
	proctest.Want(t, "last bytes", m.Memory.Bytes()[98:], []byte{6, 5})
}

//go:build linux

package multiproc_test

import (
	"bytes"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestJoinBeforeReading waits for the end of processes before it looks at their results and at
// what they have said, which is far more than fits on the way.
func TestJoinBeforeReading(t *testing.T) {
	t.Parallel()
	in := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	p, err := proctest.Echo.Start(proctest.Within(t), in, multiproc.ProcessConfig{})
	if err != nil {
		t.Fatal(err)
	}
	proctest.Promptly(t, "a process with a large result", func() { <-p.Done() })
	if out, err := p.Wait(proctest.Within(t)); !bytes.Equal(out, in) || err != nil {
		t.Errorf("got %d bytes, %v", len(out), err)
	}

	var said bytes.Buffer
	q, err := proctest.Print.Start(proctest.Within(t), proctest.Text{Out: string(in) + "\n"}, multiproc.ProcessConfig{Stdout: &said})
	if err != nil {
		t.Fatal(err)
	}
	proctest.Promptly(t, "a process that says a lot", func() { <-q.Done() })
	proctest.Want(t, "bytes that it said", said.Len(), len(in)+1)
}

// TestSignalsDoNotInterrupt has large values go there and back while parent and worker get
// signals without an end.
func TestSignalsDoNotInterrupt(t *testing.T) {
	t.Parallel()
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGUSR2) // without a handler it would end this process
	defer signal.Stop(caught)
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
	defer pool.Close()
	worker := pidOf(t, pool)
	end, ended := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		defer func() { ended <- n }()
		for {
			select {
			case <-end:
				return
			default:
			}
			for pid, sig := range map[int]syscall.Signal{os.Getpid(): syscall.SIGUSR2, worker: syscall.SIGURG} {
				if err := syscall.Kill(pid, sig); err != nil {
					t.Errorf("process %d: %v", pid, err)
					return
				}
			}
			n++
		}
	}()
	in := bytes.Repeat([]byte{9}, 3<<20)
	for range 20 {
		if out, err := proctest.Echo.Call(proctest.Within(t), pool, in); !bytes.Equal(out, in) || err != nil {
			t.Errorf("got %d bytes, %v", len(out), err)
		}
	}
	close(end)
	if n := <-ended; n < 20 {
		t.Errorf("each got %d signals", n)
	}
	proctest.Want(t, "worker at the end", pidOf(t, pool), worker)
}

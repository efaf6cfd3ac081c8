// Program asynq does the jobs of the benchmark by hibiken/asynq, over a Redis of its own that keeps
// nothing on disk.
//
//	asynq versions
//	asynq rate|latency N
//
// It prints one JSON object of figures. A server of asynq that runs two tasks at a time is a process of
// its own; results are what its ResultWriter has written, and are asked for until they are there.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hibiken/asynq"

	"github.com/seed84f35039/multiproc/bench/peers/life"
)

func main() { life.Main(do) }

func do(args []string) (any, error) {
	if len(args) == 2 && args[0] == asWorker {
		return nil, work(args[1])
	}
	if len(args) == 1 && args[0] == "versions" {
		return versions()
	}
	if len(args) != 2 || args[0] != "rate" && args[0] != "latency" {
		return nil, errors.New("usage: asynq versions, or asynq rate|latency N")
	}
	n, err := strconv.Atoi(args[1])
	if err != nil || n < 1 {
		return nil, fmt.Errorf("%q is not how much there is to do", args[1])
	}
	dir, err := os.MkdirTemp("", "asynq-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "redis")
	stop, err := redis(dir, socket)
	if err != nil {
		return nil, err
	}
	defer stop()
	stopWorker, err := startWorker(socket)
	if err != nil {
		return nil, err
	}
	defer stopWorker()
	c := client{asynq.NewClient(at(socket)), asynq.NewInspector(at(socket))}
	defer c.tasks.Close()
	defer c.results.Close()
	if args[0] == "latency" {
		return life.Latencies(n, func(i int) error {
			id, err := c.enqueue(i)
			if err == nil {
				err = c.await(id, i)
			}
			return err
		})
	}
	return life.Rate(n, func() error { return c.all(n) })
}

const (
	queue    = "default"
	kind     = "square"
	asWorker = "worker"
	callers  = 16 // that enqueue, and then ask for results, at once
	patience = 30 * time.Second
)

func at(socket string) asynq.RedisClientOpt {
	return asynq.RedisClientOpt{Network: "unix", Addr: socket, PoolSize: callers}
}

type client struct {
	tasks   *asynq.Client
	results *asynq.Inspector
}

func (c client) enqueue(x int) (id string, err error) {
	info, err := c.tasks.Enqueue(asynq.NewTask(kind, []byte(strconv.Itoa(x))), asynq.Retention(time.Hour))
	if err != nil {
		return "", err
	}
	return info.ID, nil
}

// await asks for the result of a task until it is there.
func (c client) await(id string, x int) error {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		info, err := c.results.GetTaskInfo(queue, id)
		if err != nil {
			return err
		}
		if info.State == asynq.TaskStateCompleted {
			if want := strconv.Itoa(x * x); string(info.Result) != want {
				return fmt.Errorf("the square of %d came out as %s", x, info.Result)
			}
			return nil
		}
	}
	return fmt.Errorf("no result within %v", patience)
}

// all enqueues n tasks and gets their results.
func (c client) all(n int) error {
	ids, errs := make([]string, n), make([]error, callers)
	each := func(do func(i int) error) {
		var wg sync.WaitGroup
		for g := range callers {
			wg.Go(func() {
				for i := g; i < n && errs[g] == nil; i += callers {
					errs[g] = do(i)
				}
			})
		}
		wg.Wait()
	}
	each(func(i int) (err error) {
		ids[i], err = c.enqueue(i)
		return err
	})
	each(func(i int) error { return c.await(ids[i], i) })
	return errors.Join(errs...)
}

// work is what the process with the server of asynq does, until its standard input ends.
func work(socket string) error {
	s := asynq.NewServer(at(socket), asynq.Config{Concurrency: 2, TaskCheckInterval: time.Millisecond, LogLevel: asynq.FatalLevel})
	err := s.Start(asynq.HandlerFunc(func(_ context.Context, t *asynq.Task) error {
		x, err := strconv.Atoi(string(t.Payload()))
		if err == nil {
			_, err = t.ResultWriter().Write([]byte(strconv.Itoa(x * x)))
		}
		return err
	}))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
	return nil
}

func startWorker(socket string) (stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, asWorker, socket)
	cmd.Stderr = os.Stderr
	in, errIn := cmd.StdinPipe()
	out, errOut := cmd.StdoutPipe()
	if err := errors.Join(errIn, errOut); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		in.Close()
		cmd.Wait()
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		stop()
		return nil, fmt.Errorf("the worker: %w", err)
	}
	return stop, nil
}

// redis starts a Redis that listens at a socket.
func redis(dir, socket string) (stop func(), err error) {
	cmd := exec.Command("redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", dir)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return stop, nil
		}
	}
	stop()
	return nil, errors.New("redis-server did not start")
}

func versions() (map[string]string, error) {
	found, err := life.Versions(map[string]string{"github.com/hibiken/asynq": "asynq"})
	if err != nil {
		return nil, err
	}
	out, err := exec.Command("redis-server", "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("redis-server, which asynq needs: %w", err)
	}
	for _, word := range strings.Fields(string(out)) {
		if v, ok := strings.CutPrefix(word, "v="); ok {
			found["redis"] = v
		}
	}
	return found, nil
}

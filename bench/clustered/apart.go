package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/cluster"
	"github.com/seed84f35039/multiproc/internal/child"
)

// The first arguments of the processes that there are apart.
const (
	asServer = "server"
	asAgent  = "agent"
)

// serve runs a server until the process is killed, and prints where it is.
func serve(dir string) error {
	s, err := cluster.StartServer(cluster.ServerConfig{Listen: "127.0.0.1:0", Dir: dir})
	if err != nil {
		return err
	}
	fmt.Println(s.URL())
	select {}
}

// work runs an agent until the process is killed.
func work(ctx context.Context, url, dir string) error {
	fmt.Println("begins")
	return cluster.RunAgent(ctx, cluster.AgentConfig{
		URL: url, AllowUnsigned: true, CacheDir: dir, Pool: multiproc.PoolConfig{Workers: workers},
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
}

// apart starts a server and an agent. stop ends them, also after an error.
func apart() (url string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "clustered-")
	if err != nil {
		return "", func() {}, err
	}
	var started []*child.Child
	stop = func() {
		for _, c := range started {
			c.Signal(syscall.SIGKILL)
			c.Reap()
		}
		os.RemoveAll(dir)
	}
	start := func(args ...string) (line string, err error) {
		self, err := child.Self()
		if err != nil {
			return "", err
		}
		said := make(firstLine, 1)
		c, err := child.Start(child.Config{Path: self, Args: append([]string{self}, args...), Env: os.Environ(), Stdout: said, Stderr: os.Stderr})
		if err != nil {
			return "", err
		}
		started = append(started, c)
		select {
		case line := <-said:
			return line, nil
		case <-time.After(10 * time.Second):
			return "", errors.New(args[0] + " has not started within 10 s")
		}
	}
	if url, err = start(asServer, filepath.Join(dir, "server")); err == nil {
		_, err = start(asAgent, url, filepath.Join(dir, "cache"))
	}
	return url, stop, err
}

// firstLine takes the first line that a process prints.
type firstLine chan string

func (l firstLine) Write(line []byte) (int, error) {
	select {
	case l <- strings.TrimSpace(string(line)):
	default:
	}
	return len(line), nil
}

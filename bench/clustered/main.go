// Program clustered does the jobs of the benchmark by package cluster. It is a program of its own, as a NATS
// server is a large part of it, which the workers of the other rows are to be without.
//
//	clustered call N inside|apart
//	clustered map|unordered N inside|apart CALLS
//	clustered length|echo BYTES inside|apart
//
// It prints one JSON object of figures. With inside, server and agent are in this process; with apart each is a
// process, connected over TCP. CALLS is how many are sent together; 0 leaves it to the cluster.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/cluster"
	"github.com/seed84f35039/multiproc/internal/child"
)

var (
	square = multiproc.Register("square", func(_ context.Context, x int) (int, error) { return x * x, nil })
	echo   = multiproc.Register("echo", func(_ context.Context, b []byte) ([]byte, error) { return b, nil })
	length = multiproc.Register("length", func(_ context.Context, b []byte) (int, error) { return len(b), nil })
)

// workers is how many processes run calls.
const workers = 2

func main() {
	multiproc.Init()
	err := child.Arm(3) // ends with the benchmark
	if len(os.Args) > 1 && os.Args[1] == "-" {
		err = nil // by hand
		os.Args = append(os.Args[:1], os.Args[2:]...)
	}
	if err == nil {
		err = run(context.Background(), os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "clustered:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 2 && args[0] == asServer:
		return serve(args[1])
	case len(args) == 3 && args[0] == asAgent:
		return work(ctx, args[1], args[2])
	case len(args) < 3 || args[2] != "inside" && args[2] != "apart":
		return errors.New("usage: clustered call|map|unordered|length|echo N inside|apart [CALLS]")
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	batch := 0
	if len(args) > 3 {
		if batch, err = strconv.Atoi(args[3]); err != nil {
			return err
		}
	}
	cfg := cluster.Config{Pool: multiproc.PoolConfig{Workers: workers}}
	if args[2] == "apart" {
		url, stop, err := apart()
		defer stop()
		if err != nil {
			return err
		}
		cfg.URL = url
	}
	c, err := cluster.Dial(ctx, cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	measured, err := measure(ctx, c, args[0], n, batch)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(measured)
}

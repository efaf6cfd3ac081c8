// Program waits fetches texts from a server that takes its time, and prints how long that took as a
// JSON object. It is a program of its own as it is linked with package net, which what else
// the benchmark measures is to be without. As "waits serve WAIT" it is the server alone, for other
// programs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/seed84f35039/multiproc"
)

// answer is what the server says.
const answer = "a text\n"

var fetch = multiproc.Register("fetch", fetchFrom)

func fetchFrom(ctx context.Context, address string) (int, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return 0, err
	}
	text, err := io.ReadAll(conn)
	if err == nil && string(text) != answer {
		err = fmt.Errorf("the server said %q", text)
	}
	return len(text), errors.Join(err, conn.Close())
}

func main() {
	multiproc.Init()
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "waits:", err)
		os.Exit(1)
	}
}

const usage = "usage: waits processes|pool|threads|goroutines TIMES TEXTS WAIT WORKERS CONCURRENCY, or waits serve WAIT"

func run(ctx context.Context, args []string) error {
	if len(args) == 2 && args[0] == "serve" {
		return serveOthers(args[1])
	}
	if len(args) != 6 {
		return errors.New(usage)
	}
	wait, err := time.ParseDuration(args[3])
	if err != nil {
		return err
	}
	var n [4]int // TIMES, TEXTS, WORKERS, CONCURRENCY
	for i, arg := range slices.Delete(slices.Clone(args[1:]), 2, 3) {
		if n[i], err = strconv.Atoi(arg); err != nil {
			return err
		}
	}
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer server.Close()
	go serve(server, wait) // ends with the server, which run closes
	addresses := slices.Repeat([]string{server.Addr().String()}, n[1])

	var ex multiproc.Executor
	job := func() error {
		_, err := fetch.Map(ctx, ex, addresses)
		return err
	}
	switch cfg := (multiproc.PoolConfig{Workers: n[2], Concurrency: n[3]}); args[0] {
	case "processes":
		ex = multiproc.NewProcesses(cfg)
	case "pool":
		ex = multiproc.NewPool(cfg)
	case "threads":
		ex = multiproc.NewThreads(multiproc.ThreadsConfig{Workers: n[2]})
	case "goroutines":
		job = func() error { return onGoroutines(ctx, addresses) }
	default:
		return errors.New(usage)
	}
	if ex != nil {
		defer ex.Close()
	}
	took := make([]time.Duration, n[0]+1)
	for i := range took {
		began := time.Now()
		if err := job(); err != nil {
			return err
		}
		took[i] = time.Since(began)
	}
	took = took[1:] // the first is for what is started once
	slices.Sort(took)
	fmt.Printf(`{"seconds": %g}`+"\n", took[len(took)/2].Seconds())
	return nil
}

// onGoroutines fetches all at once.
func onGoroutines(ctx context.Context, addresses []string) error {
	errs := make([]error, len(addresses))
	var wg sync.WaitGroup
	for i, address := range addresses {
		wg.Go(func() { _, errs[i] = fetchFrom(ctx, address) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// serveOthers prints the port, and serves until standard input ends.
func serveOthers(wait string) error {
	d, err := time.ParseDuration(wait)
	if err != nil {
		return err
	}
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go serve(server, d) // ends with the server, which is closed below
	fmt.Println(server.Addr().(*net.TCPAddr).Port)
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, server.Close())
}

// serve answers everybody who connects, after a while.
func serve(server net.Listener, wait time.Duration) {
	for {
		conn, err := server.Accept()
		if err != nil {
			return // it is closed
		}
		time.AfterFunc(wait, func() {
			io.WriteString(conn, answer)
			conn.Close()
		})
	}
}

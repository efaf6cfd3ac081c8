// Command io-concurrency fetches texts from a server that takes its time, in four ways.
//
//	go run ./examples/io-concurrency -texts 64 -wait 20ms
//
// Those who fetch do nothing but wait. One process for each text has them all wait at once, and
// pays for the start of each; a pool whose workers run one call at a time pays for two starts, and
// has two wait at once. With PoolConfig.Concurrency many calls wait in each worker, so that there is
// no need to choose. The server is in this program, and answers on the loopback interface.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"time"

	"github.com/seed84f35039/multiproc"
)

// fetch returns what the server at the address has to say.
var fetch = multiproc.Register("fetch", func(ctx context.Context, address string) (string, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(conn)
	return string(text), errors.Join(err, conn.Close())
})

// workers is how many processes a pool has, and concurrency how many calls each of them runs at once
// where it may run several.
const workers, concurrency = 2, 16

func main() {
	multiproc.Init()
	texts := flag.Int("texts", 64, "number of texts to fetch")
	wait := flag.Duration("wait", 20*time.Millisecond, "how long the server takes for each")
	flag.Parse()
	if err := run(context.Background(), *texts, *wait); err != nil {
		log.Fatal(err)
	}
}

// run fetches the texts in each way, and compares how long that takes. The start of the
// processes is part of it.
func run(ctx context.Context, texts int, wait time.Duration) error {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer server.Close()
	go serve(server, wait) // ends with the server, which run closes

	var addresses []string
	for range texts {
		addresses = append(addresses, server.Addr().String())
	}
	var first time.Duration
	for _, way := range []struct {
		name  string
		fetch func(context.Context, []string) ([]string, error)
	}{
		{"a process for each", eachInAProcess},
		{"pool", func(ctx context.Context, addresses []string) ([]string, error) {
			return mapIn(ctx, multiproc.NewPool(multiproc.PoolConfig{Workers: workers}), addresses)
		}},
		{"pool, Concurrency 16", func(ctx context.Context, addresses []string) ([]string, error) {
			return mapIn(ctx, multiproc.NewPool(multiproc.PoolConfig{Workers: workers, Concurrency: concurrency}), addresses)
		}},
		{"threads", func(ctx context.Context, addresses []string) ([]string, error) {
			return mapIn(ctx, multiproc.NewThreads(multiproc.ThreadsConfig{Workers: workers * concurrency}), addresses)
		}},
	} {
		start := time.Now()
		got, err := way.fetch(ctx, addresses)
		if err != nil {
			return err
		}
		took := time.Since(start)
		if first == 0 {
			first = took
		}
		fmt.Printf("%-21s %3d texts in %.4f seconds, %.2f× as fast\n", way.name, count(got), took.Seconds(), first.Seconds()/took.Seconds())
	}
	return nil
}

// eachInAProcess starts a process for each address, all of them at once.
func eachInAProcess(ctx context.Context, addresses []string) (texts []string, err error) {
	var started []*multiproc.Process[string]
	for _, address := range addresses {
		p, err := fetch.Start(ctx, address, multiproc.ProcessConfig{})
		if err != nil {
			return nil, err
		}
		started = append(started, p)
	}
	for _, p := range started {
		text, err := p.Wait(ctx)
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, nil
}

// mapIn has an executor fetch the texts, and closes it.
func mapIn(ctx context.Context, ex multiproc.Executor, addresses []string) ([]string, error) {
	texts, err := fetch.Map(ctx, ex, addresses)
	return texts, errors.Join(err, ex.Close())
}

// count returns how many of the texts are what the server says.
func count(texts []string) (n int) {
	for _, text := range texts {
		if text == answer {
			n++
		}
	}
	return n
}

const answer = "a text"

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

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// What there is on the server.
const (
	taskSubject   = "task.a.b"
	resultSubject = "result.a"
)

// The first arguments of the processes that there are apart.
const (
	asServer = "server"
	asWorker = "worker"
	asEcho   = "echo"
)

// patience is how long anything may take.
const patience = time.Minute

// engine is a server, and a connection to it.
type engine struct {
	ctx     context.Context
	dir     string
	s       *server.Server // or nil
	url     string
	nc      *nats.Conn
	js      jetstream.JetStream
	storage jetstream.StorageType
	stops   []func()
}

// start starts a server and makes the streams.
func start(apart, file bool) (e *engine, err error) {
	e = &engine{}
	defer func() {
		if err != nil {
			e.stop()
		}
	}()
	var cancel context.CancelFunc
	e.ctx, cancel = context.WithTimeout(context.Background(), 2*patience)
	e.stops = append(e.stops, cancel)
	if e.dir, err = os.MkdirTemp("", "engine-"); err != nil {
		return e, err
	}
	e.stops = append(e.stops, func() { os.RemoveAll(e.dir) })
	if apart {
		e.url, err = e.spawn(asServer, e.dir, "-")
	} else if e.s, err = newServer(e.dir, false); err == nil {
		e.stops = append(e.stops, func() { e.s.Shutdown(); e.s.WaitForShutdown() })
	}
	if err != nil {
		return e, err
	}
	if e.nc, e.js, err = e.connect(); err != nil {
		return e, err
	}
	e.stops = append(e.stops, e.nc.Close)
	e.storage = jetstream.MemoryStorage
	if file {
		e.storage = jetstream.FileStorage
	}
	_, errTasks := e.js.CreateStream(e.ctx, jetstream.StreamConfig{
		Name: tasks, Subjects: []string{"task.>"}, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, MaxBytes: 1 << 30, Storage: e.storage,
	})
	_, errConsumer := e.js.CreateConsumer(e.ctx, tasks, jetstream.ConsumerConfig{
		Durable: workers, AckPolicy: jetstream.AckExplicitPolicy, AckWait: patience, MaxAckPending: -1,
	})
	_, errResults := e.js.CreateStream(e.ctx, jetstream.StreamConfig{
		Name: results, Subjects: []string{"result.>"}, Discard: jetstream.DiscardOld, MaxBytes: 256 << 20, Storage: e.storage,
	})
	return e, errors.Join(errTasks, errConsumer, errResults)
}

func (e *engine) stop() {
	for i := len(e.stops) - 1; i >= 0; i-- {
		e.stops[i]()
	}
}

func (e *engine) connect() (*nats.Conn, jetstream.JetStream, error) {
	if e.s != nil {
		return connect("", nats.InProcessServer(e.s))
	}
	return connect(e.url)
}

func connect(url string, options ...nats.Option) (*nats.Conn, jetstream.JetStream, error) {
	nc, err := nats.Connect(url, options...)
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(1<<12))
	return nc, js, err
}

func newServer(dir string, listen bool) (*server.Server, error) {
	s, err := server.NewServer(&server.Options{
		ServerName: "engine", Host: "127.0.0.1", Port: server.RANDOM_PORT, DontListen: !listen, NoSigs: true, NoLog: true, JetStream: true, StoreDir: dir,
	})
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		return nil, errors.New("the server did not start")
	}
	return s, nil
}

// serveApart is what the process of the server does, until it is killed.
func serveApart(dir string) error {
	s, err := newServer(dir, true)
	if err != nil {
		return err
	}
	fmt.Println(s.ClientURL())
	io.Copy(io.Discard, os.Stdin)
	s.Shutdown()
	return nil
}

// spawn starts this program as another process and returns the line that it prints.
func (e *engine) spawn(args ...string) (line string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(self, args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // its end ends the process
	if err != nil {
		return "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	e.stops = append(e.stops, func() {
		in.Close()
		cmd.Wait()
	})
	line, err = bufio.NewReader(out).ReadString('\n')
	return strings.TrimSpace(line), err
}

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// replySubject is where results go that do not go through a stream.
const replySubject = "reply.a"

// What a worker does with a message.
const (
	asIs    = "as-is"   // give it back
	handed  = "handed"  // give it to another process over a pipe, and what comes back by another pipe
	squared = "squared" // give back the squares of what is in it
)

// work starts a worker, here or apart.
func (e *engine) work(stream bool, how string) error {
	if e.s == nil {
		through := "reply"
		if stream {
			through = "stream"
		}
		_, err := e.spawn(asWorker, e.url, through, how)
		return err
	}
	nc, js, err := e.connect()
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	// ends with the connection, which stop closes and waits for
	go func() {
		defer close(ended)
		if err := work(nc, js, stream, how); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
			fmt.Fprintln(os.Stderr, "engine: worker:", err)
		}
	}()
	e.stops = append(e.stops, func() { nc.Close(); <-ended })
	return nil
}

// workApart is what the process of a worker does, until its standard input ends.
func workApart(url string, stream bool, how string) error {
	nc, js, err := connect(url)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	// ends with the program
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return work(nc, js, stream, how)
}

// pending is a result that the server does not have for sure, and what it is the result of.
type pending struct {
	task   *nats.Msg
	result jetstream.PubAckFuture
}

// work takes tasks until the connection ends. A task is acknowledged when its result is with the server.
func work(nc *nats.Conn, js jetstream.JetStream, stream bool, how string) error {
	p, err := pull(nc, tasks, workers, 64)
	if err != nil {
		return err
	}
	line := make(chan pending, 1<<12)
	defer close(line)
	// ends with the line
	go func() {
		for p := range line {
			select {
			case <-p.result.Ok():
				p.task.Respond([]byte("+ACK"))
			case <-p.result.Err():
				p.task.Respond([]byte("-NAK"))
			}
		}
	}()
	hand, end, err := handOver(how == handed)
	if err != nil {
		return err
	}
	defer end()
	for {
		m, err := p.next(patience)
		if errors.Is(err, nats.ErrTimeout) {
			continue
		} else if err != nil {
			return err
		}
		result := m.Data
		switch how {
		case squared:
			result = squares(m.Data)
		case handed:
			if result, err = hand(m.Data); err != nil {
				return err
			}
		}
		if !stream {
			if err := errors.Join(nc.Publish(replySubject, result), m.Respond([]byte("+ACK"))); err != nil {
				return err
			}
			continue
		}
		future, err := js.PublishAsync(resultSubject, result)
		if err != nil {
			return err
		}
		line <- pending{m, future}
	}
}

// handOver returns a function that has another process give data back, if there is to be one.
func handOver(is bool) (hand func(data []byte) ([]byte, error), end func(), err error) {
	if !is {
		return nil, func() {}, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(self, asEcho)
	in, errIn := cmd.StdinPipe()
	out, errOut := cmd.StdoutPipe()
	if err := errors.Join(errIn, errOut); err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	hand = func(data []byte) ([]byte, error) {
		if _, err := in.Write(data); err != nil {
			return nil, err
		}
		result := make([]byte, len(data))
		_, err := io.ReadFull(out, result)
		return result, err
	}
	return hand, func() { in.Close(); cmd.Wait() }, nil
}

// echo is what the process does that a worker hands data to.
func echo() error {
	_, err := io.Copy(struct{ io.Writer }{os.Stdout}, struct{ io.Reader }{os.Stdin}) // by read and write
	return err
}

// squares returns the squares of the numbers in data.
func squares(data []byte) []byte {
	out := make([]byte, 0, len(data))
	out = append(out, data[:8]...) // the number of the first
	for data = data[8:]; len(data) >= 8; data = data[8:] {
		x := binary.LittleEndian.Uint64(data)
		out = binary.LittleEndian.AppendUint64(out, x*x)
	}
	return out
}

const resultWait = 20 * time.Second

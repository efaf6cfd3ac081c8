// Program engine does the jobs of package cluster with nothing but NATS JetStream: it is what the
// engine itself can do.
//
//	engine versions
//	engine call N inside|apart memory|file reply|stream as-is|handed
//	engine map N inside|apart memory|file reply|stream CALLS
//	engine payload BYTES inside|apart memory|file 1|2
//
// It prints one JSON object of figures. Everything is warm before the clock runs. With inside, server, submitter and
// worker are in this process; with apart each is a process, connected over TCP. Results come back by
// a plain message, which is lost when the connection is, or through a stream.
package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/seed84f35039/multiproc/bench/peers/life"
)

func main() { life.Main(do) }

const usage = "usage: engine versions, or call|map|payload N inside|apart memory|file …; see its source"

func do(args []string) (any, error) {
	switch {
	case len(args) == 1 && args[0] == "versions":
		return life.Versions(map[string]string{"github.com/nats-io/nats-server/v2": "nats-server", "github.com/nats-io/nats.go": "nats.go"})
	case len(args) == 3 && args[0] == asServer:
		return nil, serveApart(args[1])
	case len(args) == 4 && args[0] == asWorker:
		return nil, workApart(args[1], args[2] == "stream", args[3])
	case len(args) == 1 && args[0] == asEcho:
		return nil, echo()
	case len(args) < 5:
		return nil, errors.New(usage)
	}
	n, err := strconv.Atoi(args[1])
	if err != nil || n < 1 {
		return nil, fmt.Errorf("%q is not how much there is to do", args[1])
	}
	e, err := start(args[2] == "apart", args[3] == "file")
	if err != nil {
		return nil, err
	}
	defer e.stop()
	switch {
	case args[0] == "call" && len(args) == 6:
		return e.call(n, args[4] == "stream", args[5])
	case args[0] == "map" && len(args) == 6:
		calls, err := strconv.Atoi(args[5])
		if err != nil || calls < 1 {
			return nil, fmt.Errorf("%q is not how many calls make a message", args[5])
		}
		return e.squares(n, args[4] == "stream", calls)
	case args[0] == "payload" && len(args) == 5:
		ways, err := strconv.Atoi(args[4])
		if err != nil || ways < 1 {
			return nil, fmt.Errorf("%q is not how often it goes there", args[4])
		}
		return e.payload(n, ways)
	}
	return nil, errors.New(usage)
}

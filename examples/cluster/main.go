// Command cluster counts prime numbers on many machines, or on this one.
//
//	go run ./examples/cluster
//
// Without -nats the cluster is this machine alone. With it the calls go to the agents that are connected to
// the NATS servers there ("multiproc agent"), which get this program from them and run it if they trust
// its signature:
//
//	go build -o primes ./examples/cluster
//	multiproc key sign primes
//	./primes -nats nats://10.0.0.1:4222
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/cluster"
)

// span is the numbers from From up to but not including To.
type span struct{ From, To int }

// counted is how many primes there are in a span, and who has counted them.
type counted struct {
	Primes int
	Host   string
	PID    int
}

// count counts by trial division. It does nothing to the world, so that it does not matter if it runs twice.
var count = multiproc.Register("count", func(ctx context.Context, s span) (counted, error) {
	host, err := os.Hostname()
	out := counted{Host: host, PID: os.Getpid()}
	for n := max(2, s.From); n < s.To && err == nil; n++ {
		if prime(n) {
			out.Primes++
		}
		err = ctx.Err() // a call that looks need not be killed when nobody wants it any more
	}
	return out, err
})

func prime(n int) bool {
	for d := 2; d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}

func main() {
	multiproc.Init()
	var cfg cluster.Config
	flag.StringVar(&cfg.URL, "nats", "", "where the NATS servers are (none: this machine is the cluster)")
	flag.StringVar(&cfg.Credentials, "creds", "", "file with the credentials of a NATS user")
	flag.DurationVar(&cfg.AgentTimeout, "wait", 0, "how long to wait for an agent (0: a minute)")
	to := flag.Int("to", 2_000_000, "count the primes below this number")
	parts := flag.Int("parts", 100, "in how many calls")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, cfg, *to, *parts); err != nil {
		log.Fatal(err)
	}
}

// run counts the primes below to, and says how many machines have done so.
func run(ctx context.Context, cfg cluster.Config, to, parts int) (err error) {
	if parts < 1 {
		return fmt.Errorf("-parts is %d, want at least 1", parts)
	}
	var spans []span
	for i := range parts {
		spans = append(spans, span{to / parts * i, to / parts * (i + 1)})
	}
	spans[parts-1].To = to

	c, err := cluster.Dial(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	start := time.Now()
	results, err := count.Map(ctx, c, spans)
	if err != nil {
		return err
	}
	took := time.Since(start)

	primes, machines, processes := 0, map[string]bool{}, map[string]bool{}
	for _, r := range results {
		primes += r.Primes
		machines[r.Host], processes[fmt.Sprint(r.Host, r.PID)] = true, true
	}
	fmt.Printf("%d primes below %d\n", primes, to)
	fmt.Printf("calls: %d, processes: %d, machines: %d, seconds: %.4f\n", parts, len(processes), len(machines), took.Seconds())
	return nil
}

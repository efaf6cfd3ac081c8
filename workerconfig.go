package multiproc

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/seed84f35039/multiproc/internal/child"
)

// workerConfig is what a worker has to know of its executor's configuration. It travels in
// the environment.
type workerConfig struct {
	timeout     time.Duration // how long a call may run; 0: for ever
	cpuTime     time.Duration // how much CPU time it may take; 0: any
	grace       time.Duration // how long it may go on after that
	concurrency int           // calls that run at once
	limits      child.Limits  // of the process
	log         slog.Leveler  // the lowest level of what is logged to the parent; nil: nothing is
}

// limited reports whether there are limits for calls.
func (c workerConfig) limited() bool { return c.timeout > 0 || c.cpuTime > 0 }

// String returns the text that parseWorkerConfig reads; empty for the defaults.
func (c workerConfig) String() string {
	var fields []string
	for _, f := range []struct {
		name string
		d    time.Duration
	}{{"timeout", c.timeout}, {"cputime", c.cpuTime}, {"grace", c.grace}} {
		if f.d > 0 && c.limited() {
			fields = append(fields, f.name+"="+f.d.String())
		}
	}
	if c.concurrency > 1 {
		fields = append(fields, "concurrency="+strconv.Itoa(c.concurrency))
	}
	if s := c.limits.String(); s != "" {
		fields = append(fields, "limits="+s)
	}
	if c.log != nil {
		fields = append(fields, "log="+strconv.Itoa(int(c.log.Level())))
	}
	return strings.Join(fields, ",")
}

// parseWorkerConfig reads what String has made.
func parseWorkerConfig(s string) (c workerConfig, err error) {
	c.concurrency = 1
	for field := range strings.SplitSeq(s, ",") {
		if field == "" {
			continue
		}
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "timeout":
			c.timeout, err = time.ParseDuration(value)
		case "cputime":
			c.cpuTime, err = time.ParseDuration(value)
		case "grace":
			c.grace, err = time.ParseDuration(value)
		case "limits":
			c.limits, err = child.ParseLimits(value)
		case "concurrency":
			c.concurrency, err = strconv.Atoi(value)
		case "log":
			var level int
			level, err = strconv.Atoi(value)
			c.log = slog.Level(level)
		default:
			err = fmt.Errorf("unknown setting %q", name)
		}
		if err != nil {
			return c, fmt.Errorf("%s: %w", envConfig, err)
		}
	}
	if c.timeout < 0 || c.cpuTime < 0 || c.grace < 0 || c.concurrency < 1 {
		return c, fmt.Errorf("%s: %q is out of range", envConfig, s)
	}
	return c, nil
}

package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// terms are how a job wants its calls to be run: what of its PoolConfig travels to agents.
type terms struct {
	Setup, Teardown                 rawSetup
	CallTimeout, KillGrace, CPUTime time.Duration
	Attempts, MaxCrashes, MaxTasks  int
	Backoff, MaxBackoff             time.Duration
	MaxAge, IdleTimeout             time.Duration
	MaxRSS, MemoryLimit             int64
	Concurrency, OpenFiles, Nice    int
}

// rawSetup is a multiproc.Setup, encoded. Without a function it is none.
type rawSetup struct {
	Func string
	Arg  []byte
}

// maxTerms is how many bytes the terms may have, as every agent gets them again and again.
const maxTerms = 64 << 10

// termsOf returns what of a configuration travels. The error names what cannot.
func termsOf(c *multiproc.PoolConfig) (t terms, err error) {
	t = terms{
		CallTimeout: c.CallTimeout, KillGrace: c.KillGrace, CPUTime: c.CPUTime, Attempts: c.Retry.Attempts, MaxCrashes: c.MaxCrashes,
		MaxTasks: c.MaxTasks, Backoff: c.Retry.Backoff, MaxBackoff: c.Retry.MaxBackoff, MaxAge: c.MaxAge, IdleTimeout: c.IdleTimeout,
		MaxRSS: c.MaxRSS, MemoryLimit: c.MemoryLimit, Concurrency: c.Concurrency, OpenFiles: c.OpenFiles, Nice: c.Nice,
	}
	var errs []error
	for name, s := range map[string]struct {
		from *multiproc.Setup
		to   *rawSetup
	}{"Setup": {c.Setup, &t.Setup}, "Teardown": {c.Teardown, &t.Teardown}} {
		if s.from == nil {
			continue
		}
		if s.to.Func, s.to.Arg, err = s.from.Encode(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	if c.Retry.If != nil {
		errs = append(errs, fmt.Errorf("%s is a function, which cannot travel to agents; leave it nil, or decide in the function that is called", "Retry.If"))
	}
	if len(c.Env) > 0 { // it could have a signed program load what is not
		errs = append(errs, fmt.Errorf("%s does not travel to agents; put it into the argument of Setup", "Env"))
	}
	if c.Cage != nil || len(c.CPUs) > 0 || c.Dir != "" {
		errs = append(errs, fmt.Errorf("%s, CPUs and Dir are of this machine, and do not travel to agents; leave them out", "Cage"))
	}
	if data, err := wire.Encode(nil, &t); err != nil {
		errs = append(errs, err)
	} else if len(data) > maxTerms {
		errs = append(errs, fmt.Errorf("%s and Teardown have %d bytes, encoded, and may have %d; put what is large into a file or a store", "Setup", len(data), maxTerms))
	}
	return t, errors.Join(errs...)
}

// key tells jobs that can share workers from others.
func (t *terms) key(program string) string {
	data, err := wire.Encode(nil, t)
	if err != nil {
		return "" // it was decoded, so it can be encoded
	}
	sum := sha256.Sum256(data)
	return program + "/" + hex.EncodeToString(sum[:])
}

// functions returns the names of those that are run besides the calls.
func (t *terms) functions() []string {
	return slices.DeleteFunc([]string{t.Setup.Func, t.Teardown.Func}, func(name string) bool { return name == "" })
}

// apply returns the configuration of an agent's workers for a job: of limits, the stricter one holds. Nonsense in the
// terms is reported by the pool.
func (t *terms) apply(c multiproc.PoolConfig) multiproc.PoolConfig {
	stricter(&c.CallTimeout, t.CallTimeout)
	stricter(&c.KillGrace, t.KillGrace)
	stricter(&c.CPUTime, t.CPUTime)
	stricter(&c.MaxTasks, t.MaxTasks)
	stricter(&c.MaxAge, t.MaxAge)
	stricter(&c.IdleTimeout, t.IdleTimeout)
	stricter(&c.MaxRSS, t.MaxRSS)
	stricter(&c.MemoryLimit, t.MemoryLimit)
	stricter(&c.OpenFiles, t.OpenFiles)
	stricter(&c.MaxCrashes, t.MaxCrashes)
	c.Nice = max(c.Nice, t.Nice)
	c.Concurrency = max(c.Concurrency, t.Concurrency)
	if t.Attempts > 1 {
		c.Retry = multiproc.Retry{Attempts: t.Attempts, Backoff: t.Backoff, MaxBackoff: t.MaxBackoff}
	}
	if t.Setup.Func != "" {
		c.Setup = t.Setup.decode()
	}
	if t.Teardown.Func != "" {
		c.Teardown = t.Teardown.decode()
	}
	return c
}

// stricter sets a limit to another one if that is lower; 0 means none.
func stricter[T time.Duration | int | int64](limit *T, other T) {
	if *limit == 0 || other != 0 && other < *limit {
		*limit = other
	}
}

func (s rawSetup) decode() *multiproc.Setup { return multiproc.NewRawSetup(s.Func, s.Arg) }

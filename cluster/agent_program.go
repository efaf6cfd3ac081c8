package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/seed84f35039/multiproc"
)

// end ends the workers, when they are there.
func (p *programPool) end() {
	<-p.ready // bounded: by the agent's context
	if p.err == nil {
		p.pool.Kill()
		p.release()
	}
}

// poolOf returns the pool that runs the calls of a chunk. done must be called when it has.
func (a *agent) poolOf(ctx context.Context, c *chunk, terms *lease) (pool *multiproc.Pool, done func(), err error) {
	var program Program
	if c.Program != terms.Program.Hash {
		return nil, nil, errors.New("the calls are for another program than the job")
	} else if c.Program == selfProgram && !a.within {
		return nil, nil, errors.New("the program is not said")
	} else if c.Program != selfProgram {
		if program, err = a.admit(terms, c.Func); err != nil {
			return nil, nil, err
		}
	}
	a.mu.Lock()
	if a.pools == nil {
		a.mu.Unlock()
		return nil, nil, multiproc.ErrClosed
	}
	p := a.pools[c.Program]
	if p == nil {
		p = &programPool{ready: make(chan struct{})}
		a.pools[c.Program] = p
		a.going.Go(func() { a.open(p, c.Program, program) }) // ends with the transfer, which is bounded
	}
	p.users++
	a.mu.Unlock()
	done = func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		p.users--
		p.used = time.Now()
	}
	select {
	case <-p.ready:
		err = p.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return p.pool, done, nil
}

// open makes the pool of a program. If that fails the next chunk tries again.
func (a *agent) open(p *programPool, hash string, program Program) {
	defer close(p.ready)
	cfg := a.cfg.Pool
	cfg.Command = nil
	p.release = func() {}
	if hash != selfProgram {
		var path string
		if path, p.release, p.err = a.cache.fetch(a.ctx, a.store, program); p.err != nil {
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.pools[hash] == p {
				delete(a.pools, hash)
			}
			return
		}
		cfg.Command = []string{path}
		if cfg.IdleTimeout == 0 {
			cfg.IdleTimeout = restAfter
		}
		a.cfg.Logger.Info("runs a program", "name", program.Name, "hash", hash)
	}
	p.pool = multiproc.NewPool(cfg)
}

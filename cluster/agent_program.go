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
func (a *agent) poolOf(ctx context.Context, c *chunk, terms *lease) (pool workers, done func(), err error) {
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
		a.going.Go(func() { a.open(p, c.Job, c.Program, program) }) // ends with the transfer, which is bounded
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

// open has workers be hired for a program. If that fails the next chunk tries again.
func (a *agent) open(p *programPool, job, hash string, program Program) {
	defer close(p.ready)
	if p.pool, p.release, p.err = a.hire(job, program); p.err != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.pools[hash] == p {
			delete(a.pools, hash)
		}
	}
}

// hirePool returns a pool for a program, which its user has put into the store; without a hash: for this program.
func (a *agent) hirePool(l *natsLink, job string, program Program) (workers, func(), error) {
	cfg := a.cfg.Pool
	cfg.Command = nil
	if program.Hash == "" {
		return multiproc.NewPool(cfg), func() {}, nil
	}
	store, err := l.objects(a.ctx, programsBucket+userOf(job))
	if err != nil {
		return nil, nil, err
	}
	path, release, err := a.cache.fetch(a.ctx, store, program)
	if err != nil {
		return nil, nil, err
	}
	cfg.Command = []string{path}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = restAfter
	}
	a.cfg.Logger.Info("runs a program", "name", program.Name, "hash", program.Hash, "user", userOf(job))
	return multiproc.NewPool(cfg), release, nil
}

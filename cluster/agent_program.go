package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/seed84f35039/multiproc"
)

// end ends the workers, when they are there, and what they still run when ctx ends.
func (p *programPool) end(ctx context.Context) {
	<-p.ready // bounded: by the agent's context
	if p.err == nil {
		p.pool.Shutdown(ctx) // nobody waits for what it gives up
		p.release()
	}
}

// poolOf returns the pool that runs the calls of a chunk. done must be called when it has.
func (a *agent) poolOf(ctx context.Context, c *chunk, l *lease) (pool workers, done func(), err error) {
	var program Program
	if c.Program != l.Program.Hash {
		return nil, nil, errors.New("the calls are for another program than the job")
	} else if c.Program == selfProgram && !a.within {
		return nil, nil, errors.New("the program is not said")
	} else if c.Program != selfProgram {
		began := a.began(c.Job)
		if program, err = a.admit(l, c.Func, began); err != nil {
			return nil, nil, err
		}
		a.begins(c.Job, l, began)
	}
	a.mu.Lock()
	if a.pools == nil {
		a.mu.Unlock()
		return nil, nil, multiproc.ErrClosed
	}
	key := l.Terms.key(userOf(c.Job) + "/" + c.Program) // users do not share workers
	p := a.pools[key]
	if p == nil {
		a.makeRoom()
		p = &programPool{ready: make(chan struct{})}
		a.pools[key] = p
		a.going.Go(func() { a.open(p, key, c.Job, program, &l.Terms) }) // ends with the transfer, which is bounded
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

// maxIdlePools is how many pools are kept that run nothing, so that jobs, each with terms of its own, do not fill a machine with
// workers that rest.
const maxIdlePools = 16

// makeRoom ends the pool that has run nothing for the longest time, if there are too many. a.mu is held.
func (a *agent) makeRoom() {
	idle, oldest := 0, ""
	for key, p := range a.pools {
		if p.users > 0 {
			continue
		}
		if idle++; oldest == "" || p.used.Before(a.pools[oldest].used) {
			oldest = key
		}
	}
	if idle >= maxIdlePools {
		p := a.pools[oldest]
		delete(a.pools, oldest)
		a.going.Go(func() { p.end(a.ctx) }) // ends when its workers have
	}
}

// open has workers be hired for a program. If that fails the next chunk tries again.
func (a *agent) open(p *programPool, key, job string, program Program, t *terms) {
	defer close(p.ready)
	if p.pool, p.release, p.err = a.hire(job, program, t); p.err != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.pools[key] == p {
			delete(a.pools, key)
		}
	}
}

// hirePool returns a pool for a program, which its user has put into the store; without a hash: for this program.
func (a *agent) hirePool(l *natsLink, job string, program Program, t *terms) (workers, func(), error) {
	cfg := a.cfg.Pool
	cfg.Command = nil
	if program.Hash == "" {
		return multiproc.NewPool(cfg), func() {}, nil
	}
	bucket := programsBucket + userOf(job)
	ctx, cancel := l.guardObjects(a.ctx, bucket)
	defer cancel()
	store, err := l.objects(ctx, bucket)
	if err != nil {
		return nil, nil, blame(ctx, err)
	}
	path, release, err := a.cache.fetch(ctx, store, program)
	if err != nil {
		return nil, nil, blame(ctx, err)
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = restAfter
	}
	cfg = t.apply(cfg)
	cfg.Command = []string{path}
	a.cfg.Logger.Info("runs a program", "name", program.Name, "hash", program.Hash, "user", userOf(job))
	return multiproc.NewPool(cfg), release, nil
}

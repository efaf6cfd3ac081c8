package multiproc

import (
	"context"
	"errors"
)

// Processes runs each call in a process of its own, a number of them at a time:
// nothing that a call leaves behind, in memory or elsewhere in its process, meets
// another call. Each call costs the start of a process: 1.3 ms for a small program (docs/performance.md).
//
// [Func.Start] does the same for a single call and gives a handle on the process.
type Processes struct{ pool Pool }

// NewProcesses returns an executor with a process for each call. It starts nothing;
// what is wrong with the configuration is the error of the first call.
func NewProcesses(cfg PoolConfig) *Processes {
	p := &Processes{}
	cfg.MaxTasks = 1
	p.pool.configure(cfg)
	if cfg.Concurrency > 1 {
		p.pool.bad = errors.Join(p.pool.bad, errors.New("PoolConfig: Concurrency: each call of Processes has a process of its own; raise Workers"))
	}
	return p
}

// Start starts a process for each of as many calls as run at a time, and the spares, and
// returns when they are ready; see [Pool.Start]. It is not needed.
func (p *Processes) Start(ctx context.Context) error { return p.pool.Start(ctx) }

// Submit implements [Executor].
func (p *Processes) Submit(b *Batch) error { return p.pool.Submit(b) }

// Window implements [Executor]: twice the number of processes.
func (p *Processes) Window(string) int { return 2 * p.pool.cfg.Workers }

// Shutdown implements [Executor], as [Pool.Shutdown] does.
func (p *Processes) Shutdown(ctx context.Context) error { return p.pool.Shutdown(ctx) }

// Stop drops the calls that have not begun, and waits for the others, as [Pool.Stop] does.
func (p *Processes) Stop(ctx context.Context) error { return p.pool.Stop(ctx) }

// Close implements [Executor], as [Pool.Close] does.
func (p *Processes) Close() error { return p.pool.Close() }

// Kill ends everything at once, as [Pool.Kill] does.
func (p *Processes) Kill() { p.pool.Kill() }

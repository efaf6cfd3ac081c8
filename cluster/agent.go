package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// AgentConfig configures [RunAgent].
type AgentConfig struct {
	// URL is where the NATS servers are, such as "nats://10.0.0.1:4222,nats://10.0.0.2:4222". It has to be given.
	URL string

	// Credentials is a file with the credentials of a NATS user: a JWT with its key (as nsc makes it), or the seed of an
	// NKey. Empty means none.
	Credentials string

	// TLS are files for encrypted connections. The zero value means what the system knows.
	TLS TLS

	// Options are further options of the connection, such as nats.Secure.
	Options []nats.Option

	// Name is what the agent is called in errors and by [Cluster.Agents]. Empty means the name of the host.
	Name string

	// Pool configures the workers for each program. Workers is how many calls the agent runs at
	// once, of all programs together; 0 means runtime.GOMAXPROCS(0). Command is not used. What a job says of its workers
	// ([Config].Pool) counts besides: of limits the stricter one, and the job's Setup and Teardown if it has any.
	Pool multiproc.PoolConfig

	// Trust has the keys whose programs the agent runs. Without any, AllowUnsigned has to be set.
	Trust Trust

	// AllowUnsigned lets the agent run programs that nobody has signed: whoever may send it
	// calls can then run anything as its user.
	AllowUnsigned bool

	// CacheDir is where executables are kept. Empty means multiproc/programs in the user's cache
	// directory.
	CacheDir string

	// CacheLimit is how many bytes of executables are kept that nobody uses. 0 means 4 GiB.
	CacheLimit int64

	// Logger gets what the agent has to say of itself. nil means slog.Default.
	Logger *slog.Logger

	// Grace is how long calls that run may go on when the agent is to end. Then they are given
	// back, and other agents run them again. 0 means 10 seconds.
	Grace time.Duration
}

// selfProgram stands for the executable of the process that the agent is in.
const selfProgram = "self"

// agent runs chunks.
type agent struct {
	cfg     AgentConfig
	id      string // its key in the bucket of agents
	running bool   // it has got that far
	within  bool   // it is in the process of the submitter
	host    string
	link    agentLink
	cache   *cache
	slots   int                                                            // how many chunks run at once
	hire    func(job string, p Program, t *terms) (workers, func(), error) // returns the workers of a program, and what gives it back
	going   sync.WaitGroup
	pulling context.Context // ends when no more chunks are to be taken
	stop    context.CancelFunc
	pulled  chan struct{}   // closed when the last pull has ended
	suspect chan struct{}   // has an element while a chunk runs that may end the agent
	ctx     context.Context // ends when everything is to
	end     context.CancelFunc

	mu     sync.Mutex
	having int             // chunks that it was handed, and is not done with
	early  int64           // how many bytes of arguments may still be fetched for chunks without a slot
	vacant int             // slots
	line   []chan struct{} // chunks that wait for one, in the order in which they came; closed when it is their turn
	held   map[place]*held
	free   chan struct{} // has an element when pull may ask for more
	jobs   map[string]*job
	done   uint64                  // chunks
	pace   time.Duration           // how long a chunk takes, rather too long than too short; 0: not known
	pools  map[string]*programPool // by the hash of the executable and the terms
}

// programPool runs the calls of a program under some terms.
type programPool struct {
	pool    workers
	release func()    // of the executable
	users   int       // chunks
	used    time.Time // when there was one last
	ready   chan struct{}
	err     error // read after ready is closed
}

// workers are a *multiproc.Pool.
type workers interface {
	Submit(*multiproc.Batch) error
	Shutdown(context.Context) error
}

// place is where a chunk belongs.
type place struct {
	job string
	id  uint64
}

// job is what the agent knows of a submitter that is alive.
type job struct {
	said     []byte    // the lease, encoded
	lease    *lease    // that others read while they do not hold a.mu
	unwanted []stretch // chunks that may still come, in order
	stopped  bool      // all that may still come are to be given back
	refused  string    // why calls were refused last
	began    time.Time // when its program was found good first
}

// held is a chunk that the agent has.
type held struct {
	msg    delivery
	cancel context.CancelCauseFunc
	said   time.Time // when the engine heard last that the agent has it
	begun  bool      // its calls run
	told   bool      // the submitter knows, who has been stopped
}

// RunAgent runs calls of the cluster's programs until ctx ends. Then it takes no more, waits for
// those that run, and gives back what is left after the grace. It waits for servers that cannot be reached; the errors say
// what is wrong with the configuration, or what the servers do not allow.
func RunAgent(ctx context.Context, cfg AgentConfig) error {
	if ctx == nil {
		return errors.New("cluster: RunAgent: the context is nil; pass context.Background()")
	}
	if cfg.URL == "" {
		return errors.New("cluster: AgentConfig: URL is empty; give that of the NATS servers")
	}
	a, err := startAgent(ctx, cfg, false)
	if ctx.Err() != nil && err != nil {
		return nil // it waited for the cluster
	}
	if err != nil {
		return fmt.Errorf("cluster: agent: %w", err)
	}
	select {
	case <-ctx.Done():
	case <-a.link.life().Done():
		err = fmt.Errorf("cluster: agent: %w", context.Cause(a.link.life()))
	}
	return errors.Join(err, a.close())
}

// startAgent returns an agent that runs.
func startAgent(ctx context.Context, cfg AgentConfig, within bool) (a *agent, err error) {
	if cfg.Pool.Workers == 0 {
		cfg.Pool.Workers = runtime.GOMAXPROCS(0)
	}
	if cfg.Grace == 0 {
		cfg.Grace = 10 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.CacheLimit == 0 {
		cfg.CacheLimit = 4 << 30
	}
	if cfg.CacheDir == "" && !within {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("AgentConfig: CacheDir is empty, and there is no cache directory of the user: %w", err)
		}
		cfg.CacheDir = filepath.Join(dir, "multiproc", "programs")
	}
	if len(cfg.Trust) == 0 && !cfg.AllowUnsigned && !within {
		return nil, errors.New("AgentConfig: Trust has no key, so that no program would be run; add one (multiproc key trust), or set AllowUnsigned")
	}
	if cfg.Grace < 0 {
		return nil, fmt.Errorf("AgentConfig: Grace is %v; give how long to wait, or 0 for 10 seconds", cfg.Grace)
	}
	if cfg.Pool.Workers < 0 || cfg.Pool.Workers > maxSlots {
		return nil, fmt.Errorf("AgentConfig: Pool.Workers is %d; give 1 to %d, or 0 for as many as there are CPUs", cfg.Pool.Workers, maxSlots)
	}
	if err := cfg.Pool.Validate(); err != nil {
		return nil, fmt.Errorf("AgentConfig: %w", err)
	}
	a = newAgent(cfg, within)
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	if !within {
		if a.cache, err = newCache(cfg.CacheDir, cfg.CacheLimit); err != nil {
			return a, err
		}
	}
	l, err := a.connect(ctx)
	if err != nil {
		return a, err
	}
	l.within = within
	a.link = l
	a.hire = func(job string, p Program, t *terms) (workers, func(), error) { return a.hirePool(l, job, p, t) }
	return a, a.start(ctx)
}

// connect returns a connection, as soon as there is a server.
func (a *agent) connect(ctx context.Context) (*natsLink, error) {
	to := access{a.cfg.URL, a.cfg.Credentials, a.cfg.TLS, append(slices.Clip(a.cfg.Options), outages(a.cfg.Logger))}
	for told := false; ; told = true {
		l, err := connect(ctx, to, "multiproc agent "+a.cfg.Name, agentsInbox)
		if err == nil || a.within || ctx.Err() != nil || !unreachable(err) {
			return l, err
		}
		if !told {
			a.cfg.Logger.Warn("waits for a server", "error", err)
		}
		sleep(ctx, pause)
	}
}

// newAgent returns an agent without a link. The configuration is complete, but for the name.
func newAgent(cfg AgentConfig, within bool) *agent {
	host, _ := os.Hostname()
	if cfg.Name == "" {
		cfg.Name = host
	}
	a := &agent{
		cfg: cfg, id: rand.Text(), host: host, within: within, slots: cfg.Pool.Workers, vacant: cfg.Pool.Workers,
		held: map[place]*held{}, jobs: map[string]*job{}, pools: map[string]*programPool{}, free: make(chan struct{}, 1),
		pulled: make(chan struct{}), suspect: make(chan struct{}, 1), early: maxEarly,
	}
	a.ctx, a.end = context.WithCancel(context.Background())
	a.pulling, a.stop = context.WithCancel(a.ctx)
	return a
}

// start begins to run calls, as soon as there is a cluster.
func (a *agent) start(ctx context.Context) error {
	for told := false; ; told = true {
		err := a.link.bind(ctx)
		if err == nil {
			break
		}
		if a.within || ctx.Err() != nil || a.link.life().Err() != nil {
			return err
		}
		if !told {
			a.cfg.Logger.Info("waits for the first program that uses the cluster, or for multiproc setup", "error", err)
		}
		sleep(ctx, pause)
	}
	if err := a.link.watchControl(a.onControl); err != nil {
		return err
	}
	if err := a.beat(ctx); err != nil && (ctx.Err() != nil || a.link.life().Err() != nil) {
		return err // otherwise live says it again
	}
	a.running = true
	a.going.Go(func() { a.link.watchLeases(a.ctx, a.onLease) })
	a.going.Go(a.pull)
	a.going.Go(a.live)
	return nil
}

// close ends the agent, when the chunks that it has are answered or the grace is over.
func (a *agent) close() error {
	a.stop()
	ctx, cancel := context.WithTimeout(context.Background(), a.cfg.Grace)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	if a.running && a.holds() {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		a.beat(ctx) // others send it no more
		cancel()
	}
	for a.holds() && ctx.Err() == nil && a.link.life().Err() == nil { // else nobody gets the answers
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	if a.running {
		<-a.pulled
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		a.link.leave(ctx, a.id) // others learn of it sooner than by its silence
		cancel()
	}
	a.mu.Lock()
	for _, h := range a.held {
		h.cancel(multiproc.ErrClosed)
	}
	pools := a.pools
	a.pools = nil
	a.mu.Unlock()
	a.end()
	for _, p := range pools {
		a.going.Go(func() { p.end(ctx) }) // ends with the workers
	}
	a.going.Wait()
	if a.link != nil {
		a.link.close()
	}
	return nil
}

// holds reports whether the agent has chunks.
func (a *agent) holds() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.having > 0
}

// beat says that the agent is there.
func (a *agent) beat(ctx context.Context) error {
	a.mu.Lock()
	data, err := encodePresence(&presence{
		Name: a.cfg.Name, Host: a.host, Platform: here, Slots: a.slots, Held: len(a.held), Done: a.done, Version: wire.Version,
		Leaving: a.pulling.Err() != nil,
	})
	a.mu.Unlock()
	if err == nil {
		err = a.link.beat(ctx, a.id, data)
	}
	return err
}

// live says that the agent is there, and works at its chunks.
func (a *agent) live() {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-a.ctx.Done():
			return
		}
		if a.pulling.Err() == nil || a.holds() {
			ctx, cancel := context.WithTimeout(a.ctx, beatEvery)
			a.beat(ctx) // if it is late, others wait no longer for this agent, and come back when it does
			cancel()
		}
		a.mu.Lock()
		for _, h := range a.held {
			if time.Since(h.said) > ackWait/4 {
				h.said = time.Now()
				h.msg.working()
			}
		}
		for key, p := range a.pools {
			if p.users == 0 && time.Since(p.used) > forgetAfter {
				delete(a.pools, key)
				a.going.Go(func() { p.end(a.ctx) }) // ends when its idle workers have
			}
		}
		a.mu.Unlock()
	}
}

// forgetAfter is how long the agent keeps an executable open that nobody uses, and restAfter when
// its workers end.
const (
	forgetAfter = 10 * time.Minute
	restAfter   = time.Minute
)

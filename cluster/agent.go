package cluster

import (
	"bytes"
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
	// URL is where the NATS servers are.
	URL string

	// Credentials is a file with the credentials of a NATS user: a JWT with its key (as nsc makes it), or the seed of an
	// NKey. Empty means none.
	Credentials string

	// TLS are files for encrypted connections.
	TLS TLS

	// Options are further options of the connection, such as nats.Secure.
	Options []nats.Option

	// Name is what the agent is called in errors and lists. Empty means the name of the host.
	Name string

	// Pool configures the workers for each program. Workers is how many calls the agent runs at
	// once, of all programs together; 0 means runtime.GOMAXPROCS(0). Command is not used. What a job says of its workers
	// ([Config].Pool) counts besides: of limits the stricter one, and the job's Setup and Teardown if it has any.
	Pool multiproc.PoolConfig

	// Trust has the keys whose programs the agent runs.
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
	Kill()
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
}

// held is a chunk that the agent has.
type held struct {
	msg    delivery
	cancel context.CancelCauseFunc
	said   time.Time // when the engine heard last that the agent has it
}

// RunAgent runs calls of the cluster's programs until ctx ends. Then it takes no more, waits for
// those that run, and gives back what is left after the grace.
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
	if cfg.Pool.Workers < 0 || cfg.Pool.Workers > maxSlots {
		return nil, fmt.Errorf("AgentConfig: Pool.Workers is %d; give 1 to %d, or 0 for as many as there are CPUs", cfg.Pool.Workers, maxSlots)
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
	l, err := connect(ctx, access{cfg.URL, cfg.Credentials, cfg.TLS, cfg.Options}, "multiproc agent "+a.cfg.Name, agentsInbox)
	if err != nil {
		return a, err
	}
	a.link = l
	a.hire = func(job string, p Program, t *terms) (workers, func(), error) { return a.hirePool(l, job, p, t) }
	return a, a.start(ctx)
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
		pulled: make(chan struct{}), suspect: make(chan struct{}, 1),
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
	deadline := time.NewTimer(a.cfg.Grace)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for over := false; !over; {
		a.mu.Lock()
		over = len(a.held) == 0
		a.mu.Unlock()
		if over {
			break
		}
		select {
		case <-deadline.C:
			over = true
		case <-tick.C:
		}
	}
	if a.running {
		<-a.pulled
	}
	if a.running {
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
		p.end()
	}
	a.going.Wait()
	if a.link != nil {
		a.link.close()
	}
	return nil
}

// beat says that the agent is there.
func (a *agent) beat(ctx context.Context) error {
	a.mu.Lock()
	data, err := encodePresence(&presence{
		Name: a.cfg.Name, Host: a.host, Platform: here, Slots: a.slots, Held: len(a.held), Done: a.done, Version: wire.Version,
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
		if a.pulling.Err() == nil {
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
				a.going.Go(p.end) // ends when its idle workers have
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

// onLease notes the lease of a job, or ends its chunks when its submitter is gone.
func (a *agent) onLease(name string, data []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if data == nil {
		delete(a.jobs, name)
		a.drop(name, func(uint64) bool { return true })
	} else if j := a.jobs[name]; j != nil && bytes.Equal(j.said, data) {
		return // as ever
	} else if l, err := decodeLease(data); err == nil {
		j := a.jobOf(name)
		j.said, j.lease = data, &l
	}
}

// errWithdrawn is why calls end that nobody wants any more.
var errWithdrawn = errors.New("the submitter does not want the call any more")

// drop ends chunks of a job. a.mu is held.
func (a *agent) drop(job string, which func(id uint64) bool) {
	for at, h := range a.held {
		if at.job == job && which(at.id) {
			h.cancel(errWithdrawn)
		}
	}
}

// jobOf returns what is known of a job. a.mu is held.
func (a *agent) jobOf(name string) *job {
	j := a.jobs[name]
	if j == nil {
		j = &job{}
		a.jobs[name] = j
	}
	return j
}

// maxUnwanted is how many stretches of chunks of a job that are not wanted an agent remembers. The submitter says it again and
// again.
const maxUnwanted = 1 << 16

// onControl does what a submitter says.
func (a *agent) onControl(name string, data []byte) {
	var c control
	if wire.Decode(data, &c) != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []stretch
	for pair := range slices.Chunk(c.Cancel, 2) {
		if len(pair) == 2 && pair[0] <= pair[1] {
			list = append(list, stretch{pair[0], pair[1]})
		}
	}
	list = join(nil, list)
	a.drop(name, func(id uint64) bool { return within(list, id) })
	if j := a.jobs[name]; j != nil {
		if j.unwanted = join(j.unwanted, list); len(j.unwanted) > maxUnwanted {
			j.unwanted = list
		}
	}
}

// maxPull is how many chunks are asked for at a time: they have 48 MiB at most, and a server closes connections that do not
// take 64 MiB.
const maxPull = 128

// pull takes chunks, no more than the agent can run soon.
func (a *agent) pull() {
	defer close(a.pulled)
	for a.pulling.Err() == nil {
		a.mu.Lock()
		want := min(a.slots+a.prefetch()-a.having, maxPull)
		a.mu.Unlock()
		if want <= 0 {
			select {
			case <-a.free:
			case <-a.pulling.Done():
			}
			continue
		}
		err := a.link.pull(a.pulling, want, func(d delivery) {
			turn := a.queueUp()
			a.going.Go(func() { a.take(d, turn) }) // ends with the chunk, or the agent
		})
		if err != nil {
			sleep(a.pulling, pause)
		}
	}
}

// prefetchTime is how long chunks wait at an agent for a slot, about, so that a slot has not to wait for the next.
const prefetchTime = 100 * time.Millisecond

// prefetch returns how many chunks are asked for beyond those that have slots: none where they take long, as other agents
// may have slots for them sooner. a.mu is held.
func (a *agent) prefetch() int {
	if a.pace == 0 {
		return 0
	}
	return int(min(int64(a.slots), int64(a.slots)*int64(prefetchTime)/int64(a.pace)))
}

// maxDeliveries is how often a chunk is handed out as any other. One that was lost with so many agents may be what ends them:
// an agent tells the submitter before it runs it, and runs no other such chunk beside it, so that it is known which
// of them ended the agent.
const maxDeliveries = 2

// queueUp returns what is closed when the next chunk has a slot.
func (a *agent) queueUp() (turn chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.having++
	turn = make(chan struct{})
	a.line = append(a.line, turn)
	a.letIn()
	return turn
}

// leave gives a slot back, or the place in the line.
func (a *agent) leave(turn chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.having--
	select {
	case a.free <- struct{}{}:
	default:
	}
	if at := slices.Index(a.line, turn); at >= 0 {
		a.line = slices.Delete(a.line, at, at+1)
		return
	}
	a.vacant++
	a.letIn()
}

// letIn gives slots to those who are first. a.mu is held.
func (a *agent) letIn() {
	for ; a.vacant > 0 && len(a.line) > 0; a.vacant-- {
		close(a.line[0])
		a.line = a.line[1:]
	}
}

// take runs a chunk.
func (a *agent) take(m delivery, turn chan struct{}) {
	defer a.leave(turn)
	c, err := decodeChunk(m.data())
	if err != nil {
		m.drop("not a chunk: " + err.Error())
		return
	}
	if job, id, ok := m.task(); !ok || job != c.Job || id != c.ID { // who may not submit as this user
		m.drop("it says that it is of another job than it was sent for")
		return
	}
	ctx, cancel := context.WithCancelCause(a.ctx)
	defer cancel(nil)
	at := place{c.Job, c.ID}
	a.mu.Lock()
	if _, twice := a.held[at]; twice {
		a.mu.Unlock()
		m.back(ackWait / 4) // it was given to this agent once more, which is at it
		return
	}
	a.held[at] = &held{m, cancel, time.Now()}
	var terms *lease
	if known := a.jobs[c.Job]; known != nil {
		terms = known.lease
		if within(known.unwanted, c.ID) {
			cancel(errWithdrawn)
		}
	}
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.held, at)
		a.done++
		a.mu.Unlock()
	}()
	if ctx.Err() != nil {
		a.giveUp(ctx, &c, m)
		return
	}
	if terms == nil { // or the news of it has not come yet
		data, err := a.link.lease(ctx, c.Job)
		if errors.Is(err, errNoLease) {
			m.drop(err.Error())
			return
		}
		if err != nil {
			m.back(pause)
			return
		}
		l, err := decodeLease(data)
		if err != nil {
			a.say(ctx, &c, m, &outcome{Refused: fmt.Sprintf("the lease of the job is not understood: %v; is the submitter of another version?", err)}, true)
			return
		}
		terms = &l
	}
	pool, done, err := a.poolOf(ctx, &c, terms)
	switch {
	case err != nil && ctx.Err() != nil:
		a.giveUp(ctx, &c, m)
		return
	case err != nil:
		a.cfg.Logger.Warn("refused calls", "function", c.Func, "program", terms.Program.Name, "error", err)
		a.say(ctx, &c, m, &outcome{Refused: err.Error()}, true)
		return
	}
	defer done()
	args := c.Args
	if c.Blob != "" {
		err = persist(ctx, c.BlobLen, func() (err error) {
			args, err = a.link.getBlob(ctx, c.Job, c.Blob, c.BlobLen)
			return err
		})
		if err != nil {
			a.failAll(ctx, &c, m, fmt.Errorf("fetch the arguments: %w", err))
			return
		}
	}
	each, err := splitArgs(args, c.N)
	if err != nil {
		a.failAll(ctx, &c, m, err)
		return
	}
	select {
	case <-turn:
	case <-ctx.Done():
		a.giveUp(ctx, &c, m)
		return
	}
	if m.deliveries() > maxDeliveries {
		select {
		case a.suspect <- struct{}{}:
			defer func() { <-a.suspect }()
		case <-ctx.Done():
			a.giveUp(ctx, &c, m)
			return
		}
		a.say(ctx, &c, m, &outcome{Begun: true}, false)
	}
	a.run(ctx, &c, m, pool, each)
}

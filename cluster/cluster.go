package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// Config configures [Dial]. The zero value works: it makes a cluster of this machine alone.
type Config struct {
	// URL is where the NATS servers are, such as "nats://10.0.0.1:4222,nats://10.0.0.2:4222"; nats, tls, ws and wss
	// are possible. Empty means a server and an agent within this process, which end with the Cluster.
	URL string

	// Credentials is a file with the credentials of a NATS user: a JWT with its key (as nsc makes it), or the seed of an
	// NKey. Empty means none.
	Credentials string

	// TLS are files for encrypted connections. The zero value means that what the system knows is enough.
	TLS TLS

	// Options are further options of the connection, such as nats.Secure. nil means none.
	Options []nats.Option

	// User is under which name this program submits, 1 to 32 letters, digits, - and _. The permissions of NATS users are
	// given by it; streams and buckets are of one user each. Empty means "default".
	User string

	// Replicas is how many servers keep each message, 1, 3 or 5: 3 survive the loss of one. 0 means 1. It is for
	// what this Dial has to make; see [Setup].
	Replicas int

	// Pool configures the workers. Of the agent within this process, where there is one, all of it counts but Command.
	//
	// To other agents travel Setup, Teardown, CallTimeout, KillGrace, CPUTime, Retry, MaxCrashes, Concurrency, MaxTasks,
	// MaxAge, MaxRSS, IdleTimeout, MemoryLimit, OpenFiles and Nice. Where an agent has a limit as well, the stricter one
	// holds: one of "multiproc agent" has an IdleTimeout of a minute and no other. Then Env, Dir, CPUs, Cage and Retry.If are
	// errors of Dial, and so are Setup and Teardown of more than 64 KiB. The rest says nothing to agents: they have Workers,
	// Heartbeat, StartTimeout, Spares and so on of their own, and what workers print and log goes to the output of their agent.
	//
	// KillGrace also is how long Close waits for a call to end before it gives up.
	Pool multiproc.PoolConfig

	// Key signs this program, so that agents run it that trust the key. The zero value means that there
	// is a signature beside the executable (see "multiproc key sign"), or that agents run unsigned programs.
	Key PrivateKey

	// Logger is told when the connection to the servers is lost, when it is back, and when an agent refuses calls that others may
	// run. Its handler must not wait for calls of this cluster. nil means that nothing is said.
	Logger *slog.Logger

	// AgentTimeout is how long calls wait while there is no agent for this platform. Then they
	// get [ErrNoAgents]. 0 means a minute; less than 0 is an error.
	AgentTimeout time.Duration
}

// ErrNoAgents is the error of calls for which no agent has come in time.
var ErrNoAgents = errors.New("no agent of the cluster can run this program")

// ErrPoison is the error of a call after which one agent after the other was gone.
var ErrPoison = errors.New("the call is given up, as each agent that had it was gone before it answered")

// RefusedError is the error of calls that no agent runs: each that is there has refused them, this one last.
type RefusedError struct {
	Agent  string // its name
	Reason string
}

// Error returns the name of the agent and its reason.
func (e *RefusedError) Error() string { return "agent " + e.Agent + " refused it: " + e.Reason }

// AgentError is what has kept an agent from running a call, other than the call.
type AgentError struct {
	Agent   string // its name
	Message string
}

// Error returns the name of the agent and the message.
func (e *AgentError) Error() string { return "agent " + e.Agent + ": " + e.Message }

// Cluster runs calls on the agents of a cluster. It implements [multiproc.Executor]. A call runs at least once: when
// an agent is gone before it has answered, another runs the call again, and the first answer counts.
type Cluster struct {
	cfg     Config
	link    submitterLink
	server  *embedded // or nil
	agent   *agent    // or nil
	job     string
	program string // the hash of the executable
	lease   []byte // encoded

	ctx      context.Context // of the goroutines
	end      context.CancelFunc
	going    sync.WaitGroup
	fetchers sync.WaitGroup // of objects with answers

	alive  context.Context // of what renews the lease
	die    context.CancelFunc
	living sync.WaitGroup

	over struct { // batches whose contexts have ended
		sync.Mutex
		entries []*entry
	}

	mu       sync.Mutex
	queue    []span
	queued   int // calls in it
	chunks   map[uint64]*sent
	nextID   uint64
	costs    map[string]*cost
	present  map[string]presence   // agents, by id
	slots    int                   // of all of them
	refusals map[refusal]time.Time // when which of them have refused which functions last
	alone    time.Time             // since when there has been no agent
	open     int                   // calls submitted and not answered
	last     time.Time             // when one was answered last
	closing  bool                  // Submit refuses calls
	ending   bool                  // somebody waits for those that are open
	stopped  time.Time             // since when what no agent has begun is answered with ErrClosed, or zero
	empty    chan struct{}         // closed when open is 0, once closing
	closed   chan struct{}         // closed when release has ended
	closeErr error                 // read after that
	more     chan struct{}         // has an element when send has something to look at
	unstored int                   // chunks sent that the server has not acknowledged
	strays   map[uint64]bool       // chunks that the server had when it was asked last, and that were not waited for
	litter   []string              // blobs that nobody is to get any more
	fetches  chan struct{}         // has an element for each object with answers that is being fetched
	lapsed   time.Time             // when what was sent before may have been lost without any call being to blame
	renewed  time.Time             // when the lease was
}

var (
	_ multiproc.Executor = (*Cluster)(nil)
	_ multiproc.Stopper  = (*Cluster)(nil)
)

// span is calls of a batch that are to be sent.
type span struct {
	e        *entry
	i, n     int
	attempt  int
	refused  int             // how often, by agents
	refusers map[string]bool // agents, by id; nil: none
}

// entry is a batch that was submitted.
type entry struct {
	b     *multiproc.Batch
	stop  func() bool // has its context not be watched any more
	since time.Time   // when that was
	left  int         // calls that are not answered
}

// sent is calls that agents have been sent together.
type sent struct {
	span
	answered []bool
	left     int
	stored   bool            // the server has it
	since    time.Time       // when it was sent
	at       time.Time       // likewise, or when it was heard of last
	resting  bool            // it is to be sent again after a pause: neither the server nor an agent has it
	missing  bool            // the server has it no more, and no answer has come so far
	blob     string          // the object with the arguments, or empty
	unwanted error           // why it is not wanted any more, or nil
	told     time.Time       // when agents were told so first
	begun    map[string]bool // by which agents, after it was lost with others; nil: none
	running  string          // the agent that says so, after Stop
	ran      time.Time       // when it still was there
	fetching bool            // an object with answers is being fetched
	fetched  map[string]bool // objects with answers that have been, or are about to be; nil: none
	later    []outcome       // that have come meanwhile
}

// cost is how long calls of a function take.
type cost struct {
	ran time.Duration // moving average; 0: not known
}

// Dial returns a Cluster, when it is connected. The errors say what is wrong with the
// configuration, or that no server answers before ctx ends. Where that has no deadline, servers are given 10 seconds to be
// reached, and 30 to make what there is not.
func Dial(ctx context.Context, cfg Config) (*Cluster, error) {
	if ctx == nil {
		return nil, errors.New("cluster: Dial: the context is nil; pass context.Background()")
	}
	if cfg.User == "" {
		cfg.User = defaultUser
	}
	if cfg.AgentTimeout == 0 {
		cfg.AgentTimeout = time.Minute
	}
	if cfg.Pool.KillGrace == 0 {
		cfg.Pool.KillGrace = defaultKillGrace
	}
	errs := []error{checkReplicas(&cfg.Replicas), checkName("User", cfg.User), cfg.Pool.Validate()}
	if cfg.AgentTimeout < 0 {
		errs = append(errs, fmt.Errorf("%s is %v; give how long to wait, or 0 for a minute", "AgentTimeout", cfg.AgentTimeout))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("cluster: Config: %w", err)
	}
	if !multiproc.Initialized() { // agents would run main
		return nil, fmt.Errorf("cluster: Dial: %w", multiproc.ErrNotInitialized)
	}
	c := newCluster(cfg)
	if err := c.connect(ctx); err != nil {
		return nil, fmt.Errorf("cluster: %w", errors.Join(err, c.release(ctx)))
	}
	return c, nil
}

// defaultKillGrace is that of multiproc.PoolConfig.
const defaultKillGrace = 5 * time.Second

// newCluster returns a Cluster without a connection. The configuration is complete.
func newCluster(cfg Config) *Cluster {
	c := &Cluster{
		cfg: cfg, job: jobName(cfg.User, rand.Text()), chunks: map[uint64]*sent{}, costs: map[string]*cost{}, present: map[string]presence{}, refusals: map[refusal]time.Time{},
		empty: make(chan struct{}), closed: make(chan struct{}), more: make(chan struct{}, 1), fetches: make(chan struct{}, maxFetches), alone: time.Now(), renewed: time.Now(),
	}
	c.ctx, c.end = context.WithCancel(context.Background())
	c.alive, c.die = context.WithCancel(c.ctx)
	return c
}

func (c *Cluster) connect(ctx context.Context) (err error) {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	var mine lease
	options, storage := c.cfg.Options, jetstream.FileStorage
	if c.cfg.URL == "" {
		if c.server, err = embed(); err != nil {
			return err
		}
		options, storage = append(slices.Clip(options), c.server.option()), jetstream.MemoryStorage
		mine.Program.Hash = selfProgram
	} else if mine, err = leaseOf(exe, c.cfg.Key, &c.cfg.Pool); err != nil {
		return err
	}
	if c.cfg.Logger != nil {
		options = append(slices.Clip(options), outages(c.cfg.Logger))
	}
	l, err := connect(ctx, access{c.cfg.URL, c.cfg.Credentials, c.cfg.TLS, options}, "multiproc "+c.job, userInbox+c.cfg.User)
	if err != nil {
		return err
	}
	l.replicas, l.storage, l.user = c.cfg.Replicas, storage, c.cfg.User
	if c.server == nil {
		l.ship = func(ctx context.Context, l *natsLink) error {
			store, err := l.objects(ctx, programsBucket+c.cfg.User)
			if err != nil {
				return err
			}
			return upload(ctx, store, exe, mine.Program)
		}
	}
	c.link = l
	if err := c.start(ctx, mine); err != nil {
		return err
	}
	if c.server != nil {
		c.agent, err = startAgent(ctx, AgentConfig{Options: options, Pool: c.cfg.Pool, Name: "here", Grace: embeddedGrace}, true)
	}
	return err
}

// embeddedGrace is how long an agent within this process waits for calls that nobody waits for.
const embeddedGrace = 200 * time.Millisecond

// start begins to submit over the link, with that lease.
func (c *Cluster) start(ctx context.Context, l lease) (err error) {
	c.program = l.Program.Hash
	if c.lease, err = wire.Encode(nil, &l); err != nil {
		return err
	}
	if err := c.link.prepare(ctx); err != nil {
		return err
	}
	if err := c.link.renew(ctx, c.job, c.lease); err != nil {
		return err
	}
	c.renewed = time.Now()
	c.going.Add(1)
	if err := c.link.outcomes(c.ctx, c.job, c.onOutcome, c.going.Done); err != nil {
		c.going.Done()
		return err
	}
	c.going.Go(func() { c.link.watchAgents(c.ctx, c.agentSays) })
	c.going.Go(c.send)
	c.going.Go(c.look)
	c.living.Go(c.live)
	c.going.Go(c.clean)
	return nil
}

// Submit implements [multiproc.Executor].
func (c *Cluster) Submit(b *multiproc.Batch) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return multiproc.ErrClosed
	}
	if life := c.link.life(); life.Err() != nil {
		return fmt.Errorf("cluster: %w", context.Cause(life))
	}
	if b.Len() == 0 {
		return nil
	}
	e := &entry{b: b, left: b.Len(), since: time.Now()}
	e.stop = context.AfterFunc(b.Context(), func() { c.cancelled(e) })
	c.queue = append(c.queue, span{e: e, n: b.Len()})
	c.queued += b.Len()
	c.open += b.Len()
	if b.Len() == 1 && len(c.queue) == 1 && c.room() {
		c.sendNext() // saves the way by another goroutine
	} else {
		c.poke()
	}
	return nil
}

// Window implements [multiproc.Executor]: as many calls as agents can be sent at once.
func (c *Cluster) Window(function string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ahead() * max(1, min(c.cost(function).chunk(c.chunkTime()), 1<<14))
}

// ahead is how many chunks may be sent and not answered: some for each slot, so that none
// has to wait for the next. c.mu is held.
func (c *Cluster) ahead() int { return max(4, 3*c.slots) }

func (c *Cluster) cost(function string) *cost {
	k := c.costs[function]
	if k == nil {
		k = &cost{}
		c.costs[function] = k
	}
	return k
}

// How much work a chunk is to make, at least and for each slot of all agents, and how much is not divided among slots. With
// 20,000 chunks a second all slots are busy, of which an engine manages some more.
const (
	chunkTime    = 20 * time.Millisecond
	chunkPerSlot = 50 * time.Microsecond
	worthSharing = 200 * time.Microsecond
)

// chunkTime returns how much work a chunk is to make. c.mu is held.
func (c *Cluster) chunkTime() time.Duration {
	return max(chunkTime, time.Duration(c.slots)*chunkPerSlot)
}

// chunk returns how many calls make that much work.
func (k *cost) chunk(work time.Duration) int {
	if k.ran == 0 {
		return 1
	}
	return int(max(1, min(work/k.ran, 1<<15)))
}

// note notes how long n calls have taken.
func (k *cost) note(n int, ran time.Duration) {
	if n == 0 || ran == 0 {
		return
	}
	each := max(ran/time.Duration(n), 1)
	if k.ran == 0 {
		k.ran = each
	}
	k.ran = max(1, k.ran+(each-k.ran)/2)
}

// poke has send look. c.mu is held.
func (c *Cluster) poke() {
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// Shutdown implements [multiproc.Executor].
func (c *Cluster) Shutdown(ctx context.Context) error {
	if ctx == nil {
		return errors.New("cluster: Shutdown: the context is nil; pass context.Background()")
	}
	return c.shutdown(ctx, 0, false)
}

// Stop implements [multiproc.Stopper]: calls that no agent has begun get ErrClosed, those that run are waited for as by
// Shutdown. Calls that agents have been sent together with one that runs count as begun, which is about 20 ms of work. Those of which
// no agent says that they run, as all are busy with other calls or none is there, are given up after twice KillGrace and 6 to 9 seconds;
// where the servers cannot be reached, after AgentTimeout.
func (c *Cluster) Stop(ctx context.Context) error {
	if ctx == nil {
		return errors.New("cluster: Stop: the context is nil; pass context.Background()")
	}
	c.mu.Lock()
	if c.closing = true; c.stopped.IsZero() {
		c.stopped = time.Now()
	}
	c.tellStopped()
	c.poke()
	c.mu.Unlock()
	return c.shutdown(ctx, 0, true)
}

// Close implements [multiproc.Executor]: it waits until every call has ended, but not for longer
// than KillGrace after the last one did.
func (c *Cluster) Close() error { return c.shutdown(context.Background(), c.cfg.Pool.KillGrace, false) }

var errNoProgress = errors.New("no call ended in time")

// shutdown waits for what is open and releases everything. Only the first one does; others wait for it, and if they insist it
// waits no longer either when their context ends.
func (c *Cluster) shutdown(ctx context.Context, stall time.Duration, insist bool) error {
	c.mu.Lock()
	if c.ending {
		c.mu.Unlock()
		select {
		case <-c.closed:
			return c.closeErr
		case <-ctx.Done():
			if insist {
				c.abandon(multiproc.ErrClosed)
				<-c.closed // bounded, as there is nothing left but to release
			}
			return context.Cause(ctx)
		}
	}
	c.ending, c.closing, c.last = true, true, time.Now()
	c.check()
	c.mu.Unlock()
	cause := c.drain(ctx, stall)
	lost := 0
	if cause != nil {
		lost = c.abandon(multiproc.ErrClosed)
		ended, cancel := context.WithCancel(ctx)
		cancel()
		ctx = ended // there is no time left
	}
	err := c.release(ctx)
	if cause != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		err = nil // which is no news
	}
	switch {
	case cause == nil:
	case errors.Is(cause, errNoProgress):
		err = errors.Join(fmt.Errorf("cluster: close: no call ended for %v; %d calls were given up", stall, lost), err)
	default:
		err = errors.Join(fmt.Errorf("cluster: shutdown: %w", cause), err)
	}
	c.closeErr = err
	close(c.closed)
	return err
}

// drain waits until every call is answered.
func (c *Cluster) drain(ctx context.Context, stall time.Duration) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-c.empty:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			c.mu.Lock()
			late := stall > 0 && time.Since(c.last) > stall
			c.mu.Unlock()
			if late {
				return errNoProgress
			}
		}
	}
}

// check notes that there are no calls left. c.mu is held.
func (c *Cluster) check() {
	if c.closing && c.open == 0 {
		select {
		case <-c.empty:
		default:
			close(c.empty)
		}
	}
}

// finishTime is how long a cluster that ends tries to remove what it has on the servers, and releaseTime how long it does so when the
// context of who ends it has ended. What stays goes with its lease, or by its age.
const (
	finishTime  = 3 * time.Second
	releaseTime = time.Second
)

// release ends everything, when no call is left.
func (c *Cluster) release(caller context.Context) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(caller), finishTime)
	defer cancel()
	defer context.AfterFunc(caller, func() { time.AfterFunc(releaseTime, cancel) })()
	c.die()
	c.living.Wait() // bounded, as it takes no longer than beatEvery
	if c.link != nil {
		if err = c.link.finish(ctx, c.job); errors.Is(err, errNotPrepared) { // what was to be removed is lost
			err = nil
		}
	}
	c.mu.Lock() // so that onOutcome begins with no object any more
	c.end()
	c.mu.Unlock()
	c.fetchers.Wait() // bounded, as their context has ended
	if c.link != nil {
		c.sweep(ctx)
	}
	if c.agent != nil {
		err = errors.Join(err, c.agent.close())
	}
	if c.link != nil {
		c.link.close()
	}
	c.going.Wait()
	c.abandon(multiproc.ErrClosed) // what was on its way between two of those that have ended
	if c.server != nil {
		err = errors.Join(err, c.server.close())
	}
	return err
}

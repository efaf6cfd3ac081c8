package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed84f35039/multiproc"
)

// Config configures [Dial]. The zero value works: it makes a cluster of this machine alone.
type Config struct {
	// URL is where the NATS servers are, such as "nats://10.0.0.1:4222,nats://10.0.0.2:4222".
	// Empty means a server and an agent within this process, which end with the Cluster.
	URL string

	// Credentials is a file with the credentials of a NATS user. Empty means none.
	Credentials string

	// Options are further options of the connection, such as nats.Secure.
	Options []nats.Option

	// Replicas is how many servers keep each message: 3 survive the loss of one. 0 means 1.
	Replicas int

	// Pool configures the workers of the agent within this process, where there is one;
	// KillGrace also is how long Close waits for a call to end before it gives up. Command
	// is not used.
	Pool multiproc.PoolConfig

	// Key signs this program, so that agents run it that trust the key. The zero value means that there
	// is a signature beside the executable (see "multiproc key sign"), or that agents run unsigned programs.
	Key PrivateKey

	// AgentTimeout is how long calls wait while there is no agent for this platform. Then they
	// get [ErrNoAgents]. 0 means a minute.
	AgentTimeout time.Duration
}

// ErrNoAgents is the error of calls for which no agent has come in time.
var ErrNoAgents = errors.New("no agent of the cluster can run this program")

// ErrPoison is the error of a call after which one agent after the other was gone.
var ErrPoison = errors.New("the call is given up, as each agent that had it was gone before it answered")

// RefusedError is the error of calls that an agent did not run.
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
	nc      *nats.Conn
	js      jetstream.JetStream
	tasks   jetstream.Stream
	results jetstream.Stream
	leases  jetstream.KeyValue
	agents  jetstream.KeyValue
	blobs   jetstream.ObjectStore
	server  *embedded // or nil
	agent   *agent    // or nil
	job     string
	lease   lease

	ctx   context.Context // of the goroutines
	end   context.CancelFunc
	going sync.WaitGroup

	mu       sync.Mutex
	queue    []span
	queued   int // calls in it
	chunks   map[uint64]*sent
	nextID   uint64
	costs    map[string]*cost
	present  map[string]presence // agents, by name
	slots    int                 // of all of them
	alone    time.Time           // since when there has been no agent
	open     int                 // calls submitted and not answered
	last     time.Time           // when one was answered last
	closing  bool
	empty    chan struct{} // closed when open is 0, once closing
	closed   chan struct{} // closed when release has ended
	closeErr error         // read after that
	more     chan struct{} // has an element when send has something to look at
	acks     chan pending
}

var _ multiproc.Executor = (*Cluster)(nil)

// span is calls of a batch that are to be sent.
type span struct {
	e       *entry
	i, n    int
	attempt int
}

// entry is a batch that was submitted.
type entry struct {
	b    *multiproc.Batch
	stop func() bool // has its context not be watched any more
	left int         // calls that are not answered
}

// sent is calls that agents have been sent together.
type sent struct {
	span
	answered []bool
	left     int
	seq      uint64    // of the message, or 0 while that is not known
	at       time.Time // when it was sent, or last heard of
	missing  bool      // the message is gone, and no answer has come so far
	blob     string    // the object with the arguments, or empty
	unwanted error     // why it is not wanted any more, or nil
}

// pending is a message whose acknowledgement is to come.
type pending struct {
	id     uint64
	future jetstream.PubAckFuture
}

// cost is how long calls of a function take.
type cost struct {
	ran time.Duration // moving average; 0: not known
}

// Dial returns a Cluster, when it is connected. The errors say what is wrong with the
// configuration, or that no server answers before ctx ends.
func Dial(ctx context.Context, cfg Config) (*Cluster, error) {
	if cfg.Replicas == 0 {
		cfg.Replicas = 1
	}
	if cfg.AgentTimeout == 0 {
		cfg.AgentTimeout = time.Minute
	}
	if cfg.Pool.KillGrace == 0 {
		cfg.Pool.KillGrace = 5 * time.Second
	}
	var errs []error
	if cfg.Replicas < 0 || cfg.Replicas > 5 {
		errs = append(errs, fmt.Errorf("%s is %d; give 1, 3 or 5, or 0 for 1", "Replicas", cfg.Replicas))
	}
	if cfg.AgentTimeout < 0 {
		errs = append(errs, fmt.Errorf("%s is %v; give how long to wait, or 0 for a minute", "AgentTimeout", cfg.AgentTimeout))
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("cluster: Config: %w", errors.Join(errs...))
	}
	c := &Cluster{
		cfg: cfg, job: rand.Text(), chunks: map[uint64]*sent{}, costs: map[string]*cost{}, present: map[string]presence{},
		empty: make(chan struct{}), closed: make(chan struct{}), more: make(chan struct{}, 1), acks: make(chan pending, 1<<12),
		alone: time.Now(),
	}
	c.ctx, c.end = context.WithCancel(context.Background())
	if err := c.connect(ctx); err != nil {
		return nil, fmt.Errorf("cluster: %w", errors.Join(err, c.release()))
	}
	return c, nil
}

func (c *Cluster) connect(ctx context.Context) (err error) {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	storage := jetstream.FileStorage
	options := c.cfg.Options
	if c.cfg.URL == "" {
		if c.server, err = embed(); err != nil {
			return err
		}
		options = append(options, c.server.option())
		storage = jetstream.MemoryStorage
		c.lease.Program.Hash = selfProgram
	} else if c.lease, err = leaseOf(exe, c.cfg.Key); err != nil {
		return err
	}
	if c.nc, c.js, err = connect(ctx, c.cfg.URL, "multiproc "+c.job, c.cfg.Credentials, options); err != nil {
		return err
	}
	if err = plant(ctx, c.js, c.cfg.Replicas, storage, here); err != nil {
		return err
	}
	if c.tasks, err = c.js.Stream(ctx, tasksStream); err != nil {
		return err
	}
	if c.results, err = c.js.Stream(ctx, resultsStream); err != nil {
		return err
	}
	if c.leases, err = c.js.KeyValue(ctx, leaseBucket); err != nil {
		return err
	}
	if c.agents, err = c.js.KeyValue(ctx, agentBucket); err != nil {
		return err
	}
	if c.blobs, err = c.js.ObjectStore(ctx, blobBucket); err != nil {
		return err
	}
	if c.server == nil {
		store, err := c.js.ObjectStore(ctx, programBucket)
		if err != nil {
			return err
		}
		if err := upload(ctx, store, exe, c.lease.Program); err != nil {
			return err
		}
	}
	if err := c.renew(ctx); err != nil {
		return err
	}
	consumer, err := c.listener(ctx, 1)
	if err != nil {
		return err
	}
	watcher, err := c.agents.WatchAll(c.ctx)
	if err != nil {
		return err
	}
	c.going.Go(func() { c.listen(consumer) })
	c.going.Go(func() { c.watchAgents(watcher) })
	c.going.Go(c.send)
	c.going.Go(c.awaitAcks)
	c.going.Go(c.look)
	if c.server != nil {
		c.agent, err = startAgent(ctx, AgentConfig{Options: options, Pool: c.cfg.Pool, Name: "here"}, true)
	}
	return err
}

// connect returns a connection that does not give up.
func connect(ctx context.Context, url, name, credentials string, options []nats.Option) (*nats.Conn, jetstream.JetStream, error) {
	wait := startTimeout
	if at, ok := ctx.Deadline(); ok {
		wait = time.Until(at)
	}
	options = append([]nats.Option{
		nats.Name(name), nats.MaxReconnects(-1), nats.ReconnectWait(200 * time.Millisecond), nats.ReconnectJitter(100*time.Millisecond, time.Second),
		nats.PingInterval(5 * time.Second), nats.MaxPingsOutstanding(2), nats.Timeout(max(wait, time.Millisecond)),
	}, options...)
	if credentials != "" {
		options = append(options, nats.UserCredentials(credentials))
	}
	nc, err := nats.Connect(url, options...)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to %q: %w", url, err)
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(1<<12), jetstream.WithPublishAsyncTimeout(publishTimeout))
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return nc, js, nil
}

// publishTimeout is how long the acknowledgement of a message may take.
const publishTimeout = 10 * time.Second

// Submit implements [multiproc.Executor].
func (c *Cluster) Submit(b *multiproc.Batch) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return multiproc.ErrClosed
	}
	if b.Len() == 0 {
		return nil
	}
	e := &entry{b: b, left: b.Len()}
	e.stop = context.AfterFunc(b.Context(), func() { c.cancelled(e) })
	c.queue = append(c.queue, span{e: e, n: b.Len()})
	c.queued += b.Len()
	c.open += b.Len()
	c.poke()
	return nil
}

// Window implements [multiproc.Executor]: as many calls as agents can be sent at once.
func (c *Cluster) Window(function string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ahead() * max(1, min(c.cost(function).chunk(), 1<<14))
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

// chunkTime is how much work a chunk is to make, and worthSharing how much is not divided
// among slots.
const (
	chunkTime    = 20 * time.Millisecond
	worthSharing = 200 * time.Microsecond
)

// chunk returns how many calls make one.
func (k *cost) chunk() int {
	if k.ran == 0 {
		return 1
	}
	return int(max(1, min(chunkTime/k.ran, 1<<15)))
}

// note notes how long n calls have taken.
func (k *cost) note(n int, ran time.Duration) {
	if n == 0 {
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
	return c.shutdown(ctx, 0)
}

// Close implements [multiproc.Executor]: it waits until every call has ended, but not for longer
// than KillGrace after the last one did.
func (c *Cluster) Close() error { return c.shutdown(context.Background(), c.cfg.Pool.KillGrace) }

var errNoProgress = errors.New("no call ended in time")

func (c *Cluster) shutdown(ctx context.Context, stall time.Duration) error {
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		select {
		case <-c.closed:
			return c.closeErr
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	c.closing, c.last = true, time.Now()
	c.check()
	c.mu.Unlock()
	cause := c.drain(ctx, stall)
	lost := 0
	if cause != nil {
		lost = c.abandon(multiproc.ErrClosed)
	}
	err := c.release()
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

// release ends everything, when no call is left.
func (c *Cluster) release() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if c.leases != nil {
		err = c.leases.Purge(ctx, c.job) // agents end what they still run
	}
	c.end()
	if c.agent != nil {
		err = errors.Join(err, c.agent.close())
	}
	if c.server == nil && c.results != nil { // otherwise all of it goes
		err = errors.Join(err, c.results.Purge(ctx, jetstream.WithPurgeSubject(resultSubject+c.job)),
			c.tasks.Purge(ctx, jetstream.WithPurgeSubject(taskSubject+here+"."+c.job)))
	}
	if c.nc != nil {
		c.nc.Close()
	}
	c.going.Wait()
	if c.server != nil {
		err = errors.Join(err, c.server.close())
	}
	return err
}

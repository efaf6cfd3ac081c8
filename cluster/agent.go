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
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// AgentConfig configures [RunAgent].
type AgentConfig struct {
	// URL is where the NATS servers are.
	URL string

	// Credentials is a file with the credentials of a NATS user. Empty means none.
	Credentials string

	// Options are further options of the connection, such as nats.Secure.
	Options []nats.Option

	// Name is what the agent is called in errors and lists. Empty means the name of the host.
	Name string

	// Pool configures the workers for each program. Workers is how many calls the agent runs at
	// once, of all programs together; 0 means runtime.GOMAXPROCS(0). Command is not used.
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
	nc      *nats.Conn
	js      jetstream.JetStream
	leases  jetstream.KeyValue
	agents  jetstream.KeyValue
	blobs   jetstream.ObjectStore
	store   jetstream.ObjectStore // of programs
	cache   *cache
	slots   int // how many chunks run at once
	going   sync.WaitGroup
	pulling context.Context // ends when no more chunks are to be taken
	stop    context.CancelFunc
	pulled  chan struct{}   // closed when the last pull has ended
	ctx     context.Context // ends when everything is to
	end     context.CancelFunc

	mu     sync.Mutex
	vacant int             // slots
	line   []chan struct{} // chunks that wait for one, in the order in which they came; closed when it is their turn
	held   map[place]*held
	free   chan struct{} // has an element when pull may ask for more
	jobs   map[string]*job
	done   uint64                  // chunks
	pools  map[string]*programPool // by the hash of the executable
}

// programPool runs the calls of a program.
type programPool struct {
	pool    *multiproc.Pool
	release func()    // of the executable
	users   int       // chunks
	used    time.Time // when there was one last
	ready   chan struct{}
	err     error // read after ready is closed
}

// place is where a chunk belongs.
type place struct {
	job string
	id  uint64
}

// job is what the agent knows of a submitter that is alive.
type job struct {
	lease    lease
	unwanted map[uint64]bool // chunks that may still come, or nil
}

// held is a chunk that the agent has.
type held struct {
	msg    jetstream.Msg
	cancel context.CancelCauseFunc
}

// RunAgent runs calls of the cluster's programs until ctx ends. Then it takes no more, waits for
// those that run, and gives back what is left after the grace.
func RunAgent(ctx context.Context, cfg AgentConfig) error {
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
	<-ctx.Done()
	return a.close()
}

// startAgent returns an agent that runs.
func startAgent(ctx context.Context, cfg AgentConfig, within bool) (a *agent, err error) {
	if cfg.Pool.Workers == 0 {
		cfg.Pool.Workers = runtime.GOMAXPROCS(0)
	}
	if cfg.Grace == 0 {
		cfg.Grace = 10 * time.Second
	}
	host, _ := os.Hostname()
	if cfg.Name == "" {
		cfg.Name = host
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
	a = &agent{
		cfg: cfg, id: rand.Text(), within: within, slots: cfg.Pool.Workers, vacant: cfg.Pool.Workers,
		held: map[place]*held{}, jobs: map[string]*job{}, pools: map[string]*programPool{}, free: make(chan struct{}, 1),
		pulled: make(chan struct{}),
	}
	a.ctx, a.end = context.WithCancel(context.Background())
	a.pulling, a.stop = context.WithCancel(a.ctx)
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
	if a.nc, a.js, err = connect(ctx, cfg.URL, "multiproc agent "+cfg.Name, cfg.Credentials, cfg.Options); err != nil {
		return a, err
	}
	var consumer jetstream.Consumer
	for told := false; ; told = true {
		if consumer, err = a.bind(ctx); err == nil {
			break
		}
		if within || ctx.Err() != nil {
			return a, err
		}
		if !told {
			a.cfg.Logger.Info("waits for the first program that uses the cluster, or for multiproc server", "error", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	if _, err = a.nc.Subscribe(controlSubject+"*", a.onControl); err != nil {
		return a, err
	}
	watcher, err := a.leases.WatchAll(a.ctx)
	if err != nil {
		return a, err
	}
	if err := a.beat(ctx, host); err != nil {
		return a, err
	}
	a.running = true
	a.going.Go(func() { a.watchLeases(watcher) })
	a.going.Go(func() { a.pull(consumer) })
	a.going.Go(func() { a.live(host) })
	return a, nil
}

// bind finds what the agent needs on the server.
func (a *agent) bind(ctx context.Context) (consumer jetstream.Consumer, err error) {
	var errs [5]error
	a.leases, errs[0] = a.js.KeyValue(ctx, leaseBucket)
	a.agents, errs[1] = a.js.KeyValue(ctx, agentBucket)
	a.blobs, errs[2] = a.js.ObjectStore(ctx, blobBucket)
	a.store, errs[3] = a.js.ObjectStore(ctx, programBucket)
	consumer, errs[4] = a.js.Consumer(ctx, tasksStream, consumerOf(here))
	return consumer, errors.Join(errs[:]...)
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
	if a.agents != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		a.agents.Purge(ctx, a.id) // others learn of it sooner than by its silence
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
	if a.nc != nil {
		a.nc.Close()
	}
	return nil
}

// beat says that the agent is there.
func (a *agent) beat(ctx context.Context, host string) error {
	a.mu.Lock()
	data, err := wire.Encode(nil, &presence{
		Name: a.cfg.Name, Host: host, Platform: here, Slots: a.slots, Held: len(a.held), Done: a.done, Version: wire.Version,
	})
	a.mu.Unlock()
	if err == nil {
		_, err = a.agents.Put(ctx, a.id, data)
	}
	return err
}

// live says that the agent is there, and works at its chunks.
func (a *agent) live(host string) {
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
			a.beat(ctx, host) // if it is late, others wait no longer for this agent, and come back when it does
			cancel()
		}
		a.mu.Lock()
		for _, h := range a.held {
			h.msg.InProgress()
		}
		for hash, p := range a.pools {
			if p.users == 0 && time.Since(p.used) > forgetAfter {
				delete(a.pools, hash)
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

// watchLeases ends the chunks of jobs whose submitter is gone.
func (a *agent) watchLeases(watcher jetstream.KeyWatcher) {
	defer watcher.Stop()
	for {
		select {
		case entry, ok := <-watcher.Updates():
			if !ok {
				return
			}
			if entry == nil {
				continue
			}
			there := entry.Operation() == jetstream.KeyValuePut
			a.mu.Lock()
			if there {
				l, err := decodeLease(entry.Value())
				if err == nil {
					a.jobOf(entry.Key()).lease = l
				}
			} else {
				delete(a.jobs, entry.Key())
				a.drop(entry.Key(), func(uint64) bool { return true })
			}
			a.mu.Unlock()
		case <-a.ctx.Done():
			return
		}
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

// maxUnwanted is how many chunks of a job an agent remembers that are not wanted and that it does
// not have. The submitter says it again and again.
const maxUnwanted = 1 << 16

// onControl does what a submitter says.
func (a *agent) onControl(m *nats.Msg) {
	var c control
	if wire.Decode(m.Data, &c) != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	name := strings.TrimPrefix(m.Subject, controlSubject)
	a.drop(name, func(id uint64) bool { return slices.Contains(c.Cancel, id) })
	j := a.jobs[name]
	if j == nil {
		return
	}
	if j.unwanted == nil || len(j.unwanted) > maxUnwanted {
		j.unwanted = map[uint64]bool{}
	}
	for _, id := range c.Cancel {
		if a.held[place{name, id}] == nil {
			j.unwanted[id] = true
		}
	}
}

// pull takes chunks, no more than the agent can run soon.
func (a *agent) pull(consumer jetstream.Consumer) {
	defer close(a.pulled)
	for a.pulling.Err() == nil {
		a.mu.Lock()
		want := min(2*a.slots-len(a.held), fetchMost/2)
		a.mu.Unlock()
		if want <= 0 {
			select {
			case <-a.free:
			case <-a.pulling.Done():
			}
			continue
		}
		ctx, cancel := context.WithTimeout(a.pulling, fetchWait)
		batch, err := consumer.Fetch(want, jetstream.FetchContext(ctx), jetstream.FetchMaxBytes(fetchBytes), jetstream.FetchHeartbeat(fetchWait/4))
		if err != nil {
			cancel()
			select {
			case <-time.After(pause):
			case <-a.pulling.Done():
			}
			continue
		}
		a.takeAll(batch)
		cancel()
	}
}

// takeAll takes the chunks of a pull until there are no more, or the agent is to end.
func (a *agent) takeAll(batch jetstream.MessageBatch) {
	for {
		select {
		case m, ok := <-batch.Messages():
			if !ok {
				return
			}
			turn := a.queueUp()
			a.going.Go(func() { a.take(m, turn) }) // ends with the chunk, or the agent
		case <-a.pulling.Done():
			for m := range batch.Messages() { // bounded: the pull ends now. What is on its way comes again after ackWait
				m.Nak()
			}
			return
		}
	}
}

// maxDeliveries is how often a chunk is handed out before it is taken to be what ends agents.
const maxDeliveries = 4

// queueUp returns what is closed when the next chunk has a slot.
func (a *agent) queueUp() (turn chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	turn = make(chan struct{})
	a.line = append(a.line, turn)
	a.letIn()
	return turn
}

// leave gives a slot back, or the place in the line.
func (a *agent) leave(turn chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
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
func (a *agent) take(m jetstream.Msg, turn chan struct{}) {
	defer a.leave(turn)
	c, err := decodeChunk(m.Data())
	if err != nil {
		m.TermWithReason("not a chunk: " + err.Error())
		return
	}
	ctx, cancel := context.WithCancelCause(a.ctx)
	defer cancel(nil)
	at := place{c.Job, c.ID}
	a.mu.Lock()
	if _, twice := a.held[at]; twice {
		a.mu.Unlock()
		m.NakWithDelay(ackWait / 4) // it was given to this agent once more, which is at it
		return
	}
	a.held[at] = &held{m, cancel}
	var terms *lease
	if known := a.jobs[c.Job]; known != nil {
		terms = &known.lease
		if known.unwanted[c.ID] {
			delete(known.unwanted, c.ID)
			cancel(errWithdrawn)
		}
	}
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.held, at)
		a.done++
		a.mu.Unlock()
		select {
		case a.free <- struct{}{}:
		default:
		}
	}()
	if ctx.Err() != nil {
		a.giveUp(ctx, &c, m)
		return
	}
	if terms == nil { // or the news of it has not come yet
		entry, err := a.leases.Get(ctx, c.Job)
		if errors.Is(err, jetstream.ErrKeyNotFound) || errors.Is(err, jetstream.ErrKeyDeleted) {
			m.TermWithReason("its submitter is gone")
			return
		}
		var l lease
		if err == nil {
			l, err = decodeLease(entry.Value())
		}
		if err != nil {
			m.NakWithDelay(pause)
			return
		}
		terms = &l
	}
	if meta, err := m.Metadata(); err == nil && meta.NumDelivered > maxDeliveries {
		a.say(ctx, &c, m, &outcome{Poison: true}, true)
		return
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
		if args, err = fetchBlob(ctx, a.blobs, c.Blob, c.BlobLen); err != nil {
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
	a.run(ctx, &c, m, pool, each)
}

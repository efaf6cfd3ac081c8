package cluster

import (
	"context"
	"errors"
	"time"
)

// A submitterLink is a connection to the engine, as a submitter needs it, and an agentLink is one as an
// agent does: all that scheduling knows of NATS. Their one implementation outside of tests is natsLink; tests have one in
// memory, in which a thousand agents fit. The methods may be called from several goroutines at once. Functions that they
// are given are called from one goroutine at a time, until ctx ends.
type submitterLink interface {
	// prepare makes what the engine lacks for calls of this user, and puts the program there.
	prepare(ctx context.Context) error

	// submit sends a chunk. If the error is nil, stored is called once, by another goroutine, when the engine
	// has it, or with why it has not.
	submit(job string, id uint64, data []byte, stored func(error)) error

	// pending returns the chunks of a job that the engine has: those that wait, and those that agents hold. When it returns
	// without an error, all outcomes of the others have been taken. The error is errNotPrepared where it has lost what prepare makes.
	pending(ctx context.Context, job string) (map[uint64]bool, error)

	// outcomes has take get each outcome of a job from the first on, in order, and returns when it listens; end is
	// called when it does not any more, after ctx has ended.
	outcomes(ctx context.Context, job string, take func(data []byte), end func()) error

	// renew keeps a job alive: without that its lease ends after leaseTTL.
	renew(ctx context.Context, job string, data []byte) error

	// finish ends the lease of a job, and removes what is left of it. The error is errNotPrepared where the engine has
	// lost that.
	finish(ctx context.Context, job string) error

	// tell sends a control message to all agents that are there.
	tell(job string, data []byte)

	// watchAgents has say get what each agent says of itself, and nil when it is gone. It returns
	// when ctx has ended.
	watchAgents(ctx context.Context, say func(id string, data []byte))

	link
}

type agentLink interface {
	// bind returns when all that an agent needs is there, or why it is not.
	bind(ctx context.Context) error

	// pull asks for at most n chunks and has take get them as they come. It returns after a while, or when ctx
	// ends; what comes after that is given back.
	pull(ctx context.Context, n int, take func(delivery)) error

	// answer sends an outcome, and returns when the engine has it.
	answer(ctx context.Context, job string, data []byte) error

	// beat says that the agent is there, and leave that it is not.
	beat(ctx context.Context, id string, data []byte) error
	leave(ctx context.Context, id string) error

	// watchLeases has say get the lease of each job when it is renewed, and nil when it has ended. It returns when
	// ctx has ended.
	watchLeases(ctx context.Context, say func(job string, data []byte))

	// lease returns that of a job; the error is errNoLease where there is none, and errNoLeaseYet where that may be so because
	// the connection was lost.
	lease(ctx context.Context, job string) ([]byte, error)

	// watchControl has say get control messages.
	watchControl(say func(job string, data []byte)) error

	link
}

// link is what both have. Blobs are what is too large for messages; the bytes that getBlob returns are as many as it was asked for.
type link interface {
	// life ends when the connection is closed, or of no use, with the reason as its cause.
	life() context.Context
	close()

	putBlob(ctx context.Context, job, name string, data []byte) error
	getBlob(ctx context.Context, job, name string, size int64) ([]byte, error)
	dropBlob(ctx context.Context, job, name string)
}

// A delivery is a chunk that an agent was handed. The methods do not wait, and what they say may get lost.
type delivery interface {
	data() []byte
	task() (job string, id uint64, ok bool) // which chunk that was sent as
	deliveries() int                        // how often it has been handed out, as far as the engine remembers
	working()                               // the agent holds it still
	ack()                                   // it is answered
	back(after time.Duration)               // another agent, or this one, is to have it
	drop(reason string)                     // nobody is
}

var (
	errNotPrepared = errors.New("the streams or buckets of the cluster are not there")
	errNoLease     = errors.New("the submitter is gone")
	errNoLeaseYet  = errors.New("the submitter is gone, or has not come back yet")
)

// PermissionError is the error of all that the NATS servers do not allow to the user of a connection.
type PermissionError struct {
	Reason string // as the server told it
}

// Error returns the reason and what to do.
func (e *PermissionError) Error() string {
	return e.Reason + "; the operator of the NATS servers has to allow it (deploy/nats/nats.conf is a ready configuration)"
}

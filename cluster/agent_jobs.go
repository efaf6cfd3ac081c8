package cluster

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/seed84f35039/multiproc/internal/wire"
)

// onLease notes the lease of a job, or ends its chunks when its submitter is gone.
func (a *agent) onLease(name string, data []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if data == nil {
		delete(a.jobs, name)
		a.drop(name, errWithdrawn, func(uint64, *held) bool { return true })
	} else if j := a.jobs[name]; j != nil && bytes.Equal(j.said, data) {
		return // as ever
	} else if l, err := decodeLease(data); err == nil {
		j := a.jobOf(name)
		if j.lease != nil && !bytes.Equal(j.lease.Signed.Manifest, l.Signed.Manifest) { // it is another program now
			j.began = time.Time{}
		}
		j.said, j.lease = data, &l
	}
}

// errWithdrawn is why calls end that nobody wants any more.
var errWithdrawn = errors.New("the submitter does not want the call any more")

// errStopped is why chunks are given back that have not begun.
var errStopped = errors.New("the submitter has been stopped")

// drop ends chunks of a job. a.mu is held.
func (a *agent) drop(job string, why error, which func(id uint64, h *held) bool) {
	for at, h := range a.held {
		if at.job == job && which(at.id, h) {
			h.cancel(why)
		}
	}
}

// sayRunning tells the submitter, who has been stopped, that a chunk runs.
func (a *agent) sayRunning(job string, id uint64) {
	ctx, cancel := context.WithTimeout(a.ctx, leaseTTL)
	defer cancel()
	if a.tell(ctx, &chunk{Job: job, ID: id}, nil, &outcome{Running: true}, false) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if h := a.held[place{job, id}]; h != nil {
		h.told = false
	}
}

// begin notes that the calls of a chunk are about to run, and reports whether they still may.
func (a *agent) begin(ctx context.Context, at place) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	a.held[at].begun = true
	return true
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
	a.drop(name, errWithdrawn, func(id uint64, _ *held) bool { return within(list, id) })
	if c.Stop {
		a.drop(name, errStopped, func(id uint64, h *held) bool {
			if h.begun && !h.told {
				h.told = true
				a.going.Go(func() { a.sayRunning(name, id) }) // ends soon, or with the agent
			}
			return !h.begun
		})
	}
	j := a.jobs[name]
	for at := range a.held {
		if j == nil && at.job == name { // the news of its lease has not come yet
			j = a.jobOf(name)
		}
	}
	if j != nil {
		j.stopped = j.stopped || c.Stop
		if j.unwanted = join(j.unwanted, list); len(j.unwanted) > maxUnwanted {
			j.unwanted = list
		}
	}
}

// began returns when calls of a job were run here first, which may be now: a program that was started in time may go on.
func (a *agent) began(job string) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if j := a.jobs[job]; j != nil && !j.began.IsZero() {
		return j.began
	}
	return time.Now()
}

// begins notes that a job's program, as it was signed, was found good at that time.
func (a *agent) begins(job string, l *lease, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if j := a.jobs[job]; j != nil && j.lease == l && j.began.IsZero() {
		j.began = at
	}
}

// refusesFirst notes that calls of a job are refused, and reports whether the last ones were not, or for another reason.
func (a *agent) refusesFirst(job, reason string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	j := a.jobs[job]
	if j == nil || j.refused == reason {
		return j == nil
	}
	j.refused = reason
	return true
}

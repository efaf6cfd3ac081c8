package multiproc

// An Event is something that has happened to a worker or a call of a [Pool]: see
// PoolConfig.Observe.
type Event struct {
	Kind EventKind
	PID  int // of the worker; 0 where it had none

	// Err is the call's error, or what ended the worker: a *CrashError, or why it could not
	// be started.
	Err error

	// Planned is true of the end of a worker that was told to end.
	Planned bool
}

// EventKind says what has happened.
type EventKind int

// The kinds of events.
const (
	WorkerStarted  EventKind = iota + 1 // a worker is ready for calls
	WorkerEnded                         // a worker has ended and been reaped
	CallFailed                          // a call has failed for good
	CallRetried                         // a call has failed and will be run again
	TeardownFailed                      // a worker's Teardown has failed
)

// String returns the name of the kind, such as "worker started".
func (k EventKind) String() string {
	switch k {
	case WorkerStarted:
		return "worker started"
	case WorkerEnded:
		return "worker ended"
	case CallFailed:
		return "call failed"
	case CallRetried:
		return "call retried"
	case TeardownFailed:
		return "teardown failed"
	}
	return "unknown"
}

// observe tells the observer. p.mu must not be held.
func (p *Pool) observe(e Event) {
	if p.cfg.Observe != nil {
		p.cfg.Observe(e)
	}
}

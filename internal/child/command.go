package child

import (
	"context"
	"io"
	"syscall"
	"time"
)

// A Command is a program of somebody else's that runs once: it has nothing on standard input, its output is passed on
// as it is, byte for byte, and it knows nothing of [Arm]. It runs in a process group of its own. When it has ended, what
// is left of the group is killed on Linux, and there too the group does not outlive this process, however that ends.
type Command struct {
	Path   string        // of the program
	Args   []string      // its arguments, the name of the program first
	Env    []string      // its environment, complete, each variable once
	Dir    string        // its working directory; empty: that of this process
	Stdout io.Writer     // nil: the null device. Called by one goroutine at a time
	Stderr io.Writer     // nil: the null device. Likewise, the same one as for Stdout
	Grace  time.Duration // how long the group has from SIGTERM, when the context has ended, to SIGKILL
}

// Exit is how a command has ended.
type Exit struct {
	Code   int            // exit code, or -1 where a signal ended it
	Signal syscall.Signal // that ended it, or 0
	Killed bool           // the context had ended before it did
}

// endWith has signal called with SIGTERM when ctx ends, and with SIGKILL after the grace.
func endWith(ctx context.Context, grace time.Duration, signal func(syscall.Signal)) (stop func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	over := make(chan struct{})
	unwatch := context.AfterFunc(ctx, func() { // ends with the command, or after the grace
		signal(syscall.SIGTERM)
		late := time.NewTimer(grace)
		defer late.Stop()
		select {
		case <-late.C:
			signal(syscall.SIGKILL)
		case <-over:
		}
	})
	return func() {
		unwatch()
		close(over)
	}
}

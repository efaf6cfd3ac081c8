package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// stopped is the cause of a context that a signal ended.
type stopped struct{ by syscall.Signal }

func (s stopped) Error() string { return fmt.Sprintf("stopped by signal %d (%v)", int(s.by), s.by) }

// code is the exit code, as shells have it.
func (s stopped) code() int { return 128 + int(s.by) }

// untilSignal returns a context that the first SIGINT, SIGTERM or SIGHUP ends. The second one ends
// the program at once, after abandon: worker processes die with the program. Signals that the
// program was started to ignore, as nohup does with SIGHUP, stay ignored. release undoes it all.
func untilSignal(parent context.Context, abandon func()) (ctx context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	// Stopped by release, through done, which waits for it, through ended.
	go func() {
		defer close(ended)
		for first := true; ; first = false {
			select {
			case s := <-signals:
				signo, _ := s.(syscall.Signal)
				if !first {
					abandon()
					os.Exit(stopped{signo}.code())
				}
				cancel(stopped{signo})
			case <-done:
				return
			}
		}
	}()
	return ctx, sync.OnceFunc(func() {
		signal.Stop(signals)
		close(done)
		<-ended
		cancel(nil)
	})
}

package multiproc

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// A Stopper is an executor that can be stopped in the midst of its work: [Threads],
// [Processes], [Pool], and cluster.Cluster.
type Stopper interface {
	// Stop refuses new calls, answers those that have not begun with ErrClosed, and waits for
	// those that run. When ctx ends first they are given up and their workers killed.
	Stop(ctx context.Context) error
}

// SignalError is the cause of the end of a context of [StopOnSignal].
type SignalError struct{ Signal os.Signal }

// Error names the signal.
func (e *SignalError) Error() string { return fmt.Sprintf("signal: %v", e.Signal) }

// StopOnSignal makes a program end in an orderly way on SIGINT (Ctrl-C) and SIGTERM. The
// first signal stops the executors: calls that wait get ErrClosed, those that run end. The
// second one kills what still runs and ends the context that is returned, with a
// *SignalError as its cause. The third one ends the program, as without this.
//
//	ctx, stop := multiproc.StopOnSignal(context.Background(), pool)
//	defer stop()
//	out, err := square.Map(ctx, pool, inputs)
//
// Workers do not get the signals of a terminal: they are in process groups of their own.
// stop, which must be called, takes all this back, and waits for nothing but executors that
// a signal has begun to stop. It is safe for concurrent use.
func StopOnSignal(ctx context.Context, executors ...Stopper) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done, over := make(chan struct{}), make(chan struct{})
	go func() { // ends when stop is called; waited for by it
		defer close(over)
		stopOnSignal(signals, done, executors, cancel)
		signal.Stop(signals)
	}()
	return ctx, sync.OnceFunc(func() {
		close(done)
		<-over // bounded: killed executors end
		cancel(nil)
	})
}

func stopOnSignal(signals <-chan os.Signal, done <-chan struct{}, executors []Stopper, cancel context.CancelCauseFunc) {
	select {
	case <-signals:
	case <-done:
		return
	}
	hard, kill := context.WithCancelCause(context.Background())
	defer kill(nil)
	var stopping sync.WaitGroup
	for _, ex := range executors {
		stopping.Go(func() { ex.Stop(hard) })
	}
	second := func(sig os.Signal) {
		err := &SignalError{sig}
		kill(err)
		cancel(err)
		signal.Reset(os.Interrupt, syscall.SIGTERM)
	}
	stopped := make(chan struct{})
	go func() { // ends when the executors have stopped; waited for below
		stopping.Wait()
		close(stopped)
	}()
	select {
	case sig := <-signals:
		second(sig)
	case <-stopped:
		select { // the program may have more to do
		case sig := <-signals:
			cancel(&SignalError{sig})
		case <-done:
		}
	case <-done:
		select {
		case sig := <-signals:
			second(sig)
		case <-stopped:
		}
	}
	<-stopped // bounded as the calls that run are, or killed
}

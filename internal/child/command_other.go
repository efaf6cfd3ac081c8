//go:build !linux

package child

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
)

// Run starts the command and waits until it has ended. All that it has written has been passed on then. The error says
// why it could not be started, or what could not be passed on.
func (c Command) Run(ctx context.Context) (exit Exit, err error) {
	cmd := &exec.Cmd{
		Path: c.Path, Args: c.Args, Env: c.Env, Dir: c.Dir, Stdout: c.Stdout, Stderr: c.Stderr, SysProcAttr: ownGroup(),
		WaitDelay: pumpTimeout,
	}
	if err := cmd.Start(); err != nil {
		return Exit{}, fmt.Errorf("start %s: %w", c.Path, err)
	}
	var mu sync.Mutex
	reaped, killed := false, false
	stop := endWith(ctx, c.Grace, func(sig syscall.Signal) {
		mu.Lock()
		defer mu.Unlock()
		if !reaped {
			killed = true
			signalGroup(cmd.Process, sig)
		}
	})
	err = cmd.Wait()
	mu.Lock()
	reaped = true
	mu.Unlock()
	stop()
	var ended *exec.ExitError
	if errors.As(err, &ended) || errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return Exit{Code: cmd.ProcessState.ExitCode(), Signal: endedBy(cmd.ProcessState), Killed: killed}, err
}

//go:build linux

package multiproc_test

import (
	"context"
	"errors"
	"io"
	"os"
	ossignal "os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// start starts a process, whose noise is dropped.
func start(t testing.TB, task proctest.Task, cfg multiproc.ProcessConfig) *multiproc.Process[int] {
	t.Helper()
	cfg.Stderr = proctest.Quiet
	p, err := proctest.Do.Start(context.Background(), task, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestProcess looks at a process before, while and after its call runs.
func TestProcess(t *testing.T) {
	t.Parallel()
	gate := proctest.NewGate(t)
	p := start(t, proctest.Task{X: 7, Gate: gate.Path}, multiproc.ProcessConfig{Name: "seven"})
	v := gate.Next()
	proctest.Want(t, "process", p.PID(), v.PID)
	proctest.Want(t, "name", p.Name(), "seven")
	proctest.Want(t, "alive", p.Alive(), true)
	if state := p.ExitState(); state != nil {
		t.Errorf("it has the exit state %v while it is alive", state)
	}
	for _, ctx := range []context.Context{proctest.Ended(), short(t)} {
		_, err := p.Wait(ctx)
		proctest.WantErr(t, err, ctx.Err())
		proctest.Want(t, "alive after a Wait without time", p.Alive(), true)
	}
	select {
	case <-p.Done():
		t.Error("done while it is alive")
	default:
	}
	if err := p.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("Signal: %v", err)
	}

	v.Release()
	<-p.Done()
	for range 2 {
		if out, err := p.Wait(proctest.Within(t)); out != 49 || err != nil {
			t.Errorf("got %d, %v", out, err)
		}
	}
	if out, err := p.Wait(proctest.Ended()); out != 49 || err != nil {
		t.Errorf("after the end, with a context that has ended: got %d, %v", out, err)
	}
	proctest.Want(t, "alive", p.Alive(), false)
	proctest.Want(t, "process", p.PID(), v.PID)
	if state := p.ExitState(); state == nil || state.ExitCode() != 0 || state.Pid() != v.PID || state.SysUsage() == nil {
		t.Errorf("exit state %v", state)
	}
	for name, signal := range map[string]func() error{"Terminate": p.Terminate, "Kill": p.Kill, "Signal": func() error { return p.Signal(syscall.Signal(0)) }} {
		if err := signal(); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("%s after the end: %v", name, err)
		}
	}
	if start(t, proctest.Task{}, multiproc.ProcessConfig{}).Name() != "do" {
		t.Error("a process without a name does not have that of its function")
	}
}

func short(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	t.Cleanup(cancel)
	<-ctx.Done()
	return ctx
}

// TestExitStatus ends processes in every way.
func TestExitStatus(t *testing.T) {
	t.Parallel()
	signal := func(sig syscall.Signal) func(*multiproc.Process[int]) error {
		return func(p *multiproc.Process[int]) error { return p.Signal(sig) }
	}
	for name, c := range map[string]struct {
		task  proctest.Task
		kill  func(*multiproc.Process[int]) error
		exit  int
		sig   syscall.Signal
		check func(error) bool
	}{
		"returns":    {proctest.Task{}, nil, 0, 0, func(err error) bool { return err == nil }},
		"exit(8)":    {proctest.Task{End: "exit 8"}, nil, 8, 0, isCrash},
		"exit(0)":    {proctest.Task{End: "exit 0"}, nil, 0, 0, isCrash},
		"error":      {proctest.Task{End: "error"}, nil, 1, 0, func(err error) bool { return errors.Is(err, proctest.ErrTask) }},
		"panic":      {proctest.Task{End: "panic"}, nil, 1, 0, is[*multiproc.PanicError]},
		"goexit":     {proctest.Task{End: "goexit"}, nil, 1, 0, is[*multiproc.PanicError]},
		"overflow":   {proctest.Task{End: "overflow"}, nil, 2, 0, isCrash},
		"terminated": {proctest.Task{}, (*multiproc.Process[int]).Terminate, -1, syscall.SIGTERM, isCrash},
		"killed":     {proctest.Task{}, (*multiproc.Process[int]).Kill, -1, syscall.SIGKILL, isCrash},
		"interrupt":  {proctest.Task{}, signal(syscall.SIGINT), -1, syscall.SIGINT, isCrash},
		"hup":        {proctest.Task{}, signal(syscall.SIGHUP), -1, syscall.SIGHUP, isCrash},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.sig == syscall.SIGHUP && ossignal.Ignored(c.sig) {
				t.Skip("run under nohup, which processes inherit")
			}
			gate := proctest.NewGate(t)
			c.task.Gate = gate.Path
			p := start(t, c.task, multiproc.ProcessConfig{})
			v := gate.Next()
			if c.kill == nil {
				v.Release()
			} else if err := c.kill(p); err != nil {
				t.Error(err)
			}
			_, err := p.Wait(proctest.Within(t))
			if !c.check(err) {
				t.Errorf("got %v", err)
			}
			state := p.ExitState()
			if state == nil {
				t.Fatal("no exit state")
			}
			proctest.Want(t, "exit code", state.ExitCode(), c.exit)
			status := state.Sys().(syscall.WaitStatus)
			proctest.Want(t, "signaled", status.Signaled(), c.sig != 0)
			if crash, ok := errors.AsType[*multiproc.CrashError](err); ok {
				proctest.Want(t, "exit code of the error", crash.ExitCode, c.exit)
				proctest.Want(t, "signal of the error", crash.Signal, c.sig)
				proctest.Want(t, "process of the error", crash.PID, p.PID())
			}
		})
	}
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

var isCrash = is[*multiproc.CrashError]

// TestProcessContext ends the context of processes.
func TestProcessContext(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		task proctest.Task
		cfg  multiproc.ProcessConfig
	}{
		"sees it":  {proctest.Task{}, multiproc.ProcessConfig{KillGrace: time.Hour}},
		"deaf":     {proctest.Task{Deaf: true, End: "hang"}, multiproc.ProcessConfig{KillGrace: grace}},
		"stopped":  {proctest.Task{Deaf: true, End: "signal 19"}, multiproc.ProcessConfig{KillGrace: grace}},
		"computes": {proctest.Task{Deaf: true, End: "spin"}, multiproc.ProcessConfig{KillGrace: grace}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gate := proctest.NewGate(t)
			c.task.Gate = gate.Path
			ctx, cancel := context.WithCancelCause(context.Background())
			p, err := proctest.Do.Start(ctx, c.task, c.cfg)
			if err != nil {
				t.Fatal(err)
			}
			v := gate.Next()
			if c.task.Deaf {
				v.Release()
			}
			began := time.Now()
			cancel(errEnough)
			_, err = p.Wait(proctest.Within(t))
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(began); took > within {
				t.Errorf("it ended after %v", took)
			}
			if proctest.Running(p.PID()) {
				t.Error("it is alive")
			}
		})
	}
	// At any moment of its start.
	for i := range 20 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*500*time.Microsecond)
		defer cancel()
		p, err := proctest.Do.Start(ctx, proctest.Task{End: ""}, multiproc.ProcessConfig{KillGrace: time.Hour})
		if err == nil {
			_, err = p.Wait(proctest.Within(t))
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := proctest.Do.Start(proctest.Ended(), proctest.Task{}, multiproc.ProcessConfig{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Start with a context that has ended: %v", err)
	}
}

// TestManyProcesses starts 100 processes and kills them, some before they have got
// anywhere.
func TestManyProcesses(t *testing.T) {
	t.Parallel()
	const n = 100
	gate := proctest.NewGate(t)
	processes := make([]*multiproc.Process[int], n)
	for i := range processes {
		processes[i] = start(t, proctest.Task{X: i, Gate: gate.Path}, multiproc.ProcessConfig{})
		if i%2 == 0 {
			gate.Next()
		}
		if i >= 20 { // not too many at once
			if err := processes[i-20].Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	for _, p := range processes[n-20:] {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	}
	var wg sync.WaitGroup
	for _, p := range processes {
		wg.Go(func() {
			_, err := p.Wait(proctest.Within(t))
			if crash, ok := errors.AsType[*multiproc.CrashError](err); !ok || crash.Signal != syscall.SIGKILL || crash.PID != p.PID() {
				t.Errorf("process %d: got %v", p.PID(), err)
			}
			if status, ok := p.ExitState().Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
				t.Errorf("process %d: exit state %v", p.PID(), p.ExitState())
			}
		})
	}
	wg.Wait()
}

// TestKillGroup has the signals of a handle reach what its process has started.
func TestKillGroup(t *testing.T) {
	t.Parallel()
	gate := proctest.NewGate(t)
	p := start(t, proctest.Task{Gate: gate.Path, End: "child 1"}, multiproc.ProcessConfig{})
	gate.Next().Release()
	proctest.Eventually(t, proctest.Patience, "it has a child", func() bool { return len(proctest.Group(p.PID())) == 2 })
	if err := p.Terminate(); err != nil {
		t.Error(err)
	}
	_, err := p.Wait(proctest.Within(t))
	proctest.Want(t, "signal", proctest.CrashOf(t, err, -1).Signal, syscall.SIGTERM)
	proctest.Eventually(t, time.Second, "its child is gone", func() bool { return len(proctest.Group(p.PID())) == 0 })
}

// TestNobodyWaits leaves processes alone: nothing is left of them.
func TestNobodyWaits(t *testing.T) {
	t.Parallel()
	gate := proctest.NewGate(t)
	for range 3 {
		p, err := proctest.Do.Start(context.Background(), proctest.Task{Gate: gate.Path, End: "panic"}, multiproc.ProcessConfig{Stderr: io.Discard})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			proctest.Eventually(t, proctest.Patience, "it is gone", func() bool { return !p.Alive() && !proctest.Running(p.PID()) })
		}()
		gate.Next().Release()
	}
}

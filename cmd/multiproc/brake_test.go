package main

import (
	"context"
	"errors"
	"testing"

	"github.com/seed84f35039/multiproc/cmd/multiproc/internal/jobs"
)

func TestBrake(t *testing.T) {
	ends := func(ok bool, code int) func(context.Context) (bool, int) {
		return func(context.Context) (bool, int) { return ok, code }
	}
	good, bad := ends(true, 0), ends(false, 7)
	for _, test := range []struct {
		halt jobs.Halt
		jobs []func(context.Context) (bool, int)
		ran  int
		code int
	}{
		{jobs.Halt{}, []func(context.Context) (bool, int){bad, good, bad}, 3, 2},
		{jobs.Halt{Failed: 1}, []func(context.Context) (bool, int){good, bad, good}, 2, 1},
		{jobs.Halt{Failed: 2, Now: true}, []func(context.Context) (bool, int){bad, good, ends(false, 9), good}, 3, 9},
		{jobs.Halt{Succeed: 1}, []func(context.Context) (bool, int){bad, good, bad}, 2, 0},
		{jobs.Halt{Done: 2}, []func(context.Context) (bool, int){bad, good, bad}, 2, 1},
	} {
		b := newBrake(test.halt)
		for _, job := range test.jobs {
			if err := b.run(t.Context(), job); err != nil && !errors.Is(err, errHalted) {
				t.Fatal(err)
			}
		}
		if b.count() != test.ran || b.exitCode() != test.code {
			t.Errorf("%+v: %d jobs have run, exit code %d; want %d, %d", test.halt, b.count(), b.exitCode(), test.ran, test.code)
		}
	}
}

func TestBrakeEndsWhatRuns(t *testing.T) {
	b := newBrake(jobs.Halt{Failed: 1, Now: true})
	begun, ended := make(chan struct{}), make(chan error, 1)
	go func() { // ends with the brake
		ended <- b.run(t.Context(), func(ctx context.Context) (bool, int) {
			close(begun)
			<-ctx.Done()
			return false, -1
		})
	}()
	<-begun
	b.ended(false, 3)
	if err := <-ended; !errors.Is(err, errHalted) {
		t.Errorf("the job that ran ended with %v", err)
	}
	if b.count() != 1 || b.exitCode() != 3 {
		t.Errorf("%d jobs count, exit code %d; want 1, 3", b.count(), b.exitCode())
	}
}

func TestCountOfFailuresIsBounded(t *testing.T) {
	b := newBrake(jobs.Halt{})
	for range 300 {
		b.ended(false, 1)
	}
	if b.exitCode() != 101 {
		t.Errorf("exit code %d, want 101", b.exitCode())
	}
}

func TestNumbers(t *testing.T) {
	var n numbers
	if a, b, c := n.take(), n.take(), n.take(); a != 1 || b != 2 || c != 3 {
		t.Fatalf("numbers %d %d %d", a, b, c)
	}
	n.free(2)
	if a, b := n.take(), n.take(); a != 2 || b != 4 {
		t.Errorf("numbers %d %d, want 2 and 4", a, b)
	}
}

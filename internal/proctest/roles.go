package proctest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/seed84f35039/multiproc"
)

// Square returns x*x.
var Square = multiproc.Register("square", func(_ context.Context, x int) (int, error) { return x * x, nil })

// Task says what a call of [Do] does, in the order of the fields.
type Task struct {
	X    int    // number of the call; its result is X*X
	Log  string // file to which it appends a line; see ReadLog
	Say  string // what it writes to standard error
	Gate string // path of the gate that it stops at
	Deaf bool   // it stops there even when its context ends
	End  string // how it ends; "": with its result. See Do
	Pad  []byte // makes it large
	Any  any    // has to be encoded
}

// ErrTask is what a call with End "error" wraps.
var ErrTask = multiproc.RegisterError("proctest.ErrTask", errors.New("task failed"))

// Do does what the task says. Besides those of die, which take the process along, it
// knows these ends:
//
//	error       returns an error that wraps ErrTask
//	large error returns one of 1 MiB
//	panic       panics with a string
//	panic error panics with an error that wraps ErrTask
//	goexit      ends its goroutine
//	late        appends to the log once more before it returns
//	spin        computes for ever
//	hang        waits for ever
var Do = multiproc.Register("do", func(ctx context.Context, task Task) (int, error) {
	if err := task.log(); err != nil {
		return 0, err
	}
	os.Stderr.WriteString(task.Say)
	if task.Gate != "" {
		gate := ctx
		if task.Deaf {
			gate = context.Background()
		}
		conn, err := enter(gate, task.Gate, task.X)
		if conn != nil {
			defer conn.Close()
		}
		if err != nil {
			if task.End == "late" {
				task.log()
			}
			return 0, err
		}
	}
	return task.X * task.X, task.end()
})

func (task Task) log() error {
	if task.Log == "" {
		return nil
	}
	f, err := os.OpenFile(task.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, "%d %d\n", task.X, os.Getpid())
	return err
}

func (task Task) end() error {
	switch task.End {
	case "":
		return nil
	case "error":
		return fmt.Errorf("item %d: %w", task.X, ErrTask)
	case "large error":
		return errors.New(strings.Repeat("x", 1<<20))
	case "panic":
		panic(fmt.Sprintf("panic of item %d", task.X))
	case "panic error":
		panic(fmt.Errorf("item %d: %w", task.X, ErrTask))
	case "goexit":
		runtime.Goexit()
	case "late":
		return task.log()
	case "spin":
		for i := 1; i != 0; {
			i = i*3 | 1
		}
	case "hang":
		select {}
	}
	return die(task.End)
}

// Tasks returns n tasks, numbered from 0, that do what the model does.
func Tasks(n int, model Task) []Task {
	tasks := make([]Task, n)
	for i := range tasks {
		tasks[i] = model
		tasks[i].X = i
	}
	return tasks
}

// Echo returns its argument.
var Echo = multiproc.Register("echo", func(_ context.Context, b []byte) ([]byte, error) { return b, nil })

// Any returns its argument, whatever it is.
var Any = multiproc.Register("any", func(_ context.Context, v any) (any, error) { return v, nil })

// Opaque returns something that cannot be encoded.
var Opaque = multiproc.Register("opaque", func(_ context.Context, x int) (any, error) {
	return struct{ Opaque int }{x}, nil
})

// View is what a worker sees of its surroundings.
type View struct {
	PID        int
	GOMAXPROCS int
	Dir        string
	Env        string
	Files      []string // what its descriptors are, in order
}

// Look describes the process that it runs in; its argument is the name of the
// variable for View.Env.
var Look = multiproc.Register("look", func(_ context.Context, name string) (View, error) {
	dir, err := os.Getwd()
	if err != nil {
		return View{}, err
	}
	return View{
		PID: os.Getpid(), GOMAXPROCS: runtime.GOMAXPROCS(0), Dir: dir, Env: os.Getenv(name), Files: files(),
	}, nil
})

// Nest has a worker of its own do the same, until it is that many workers deep. It
// returns how deep it got.
var Nest *multiproc.Func[int, int]

func init() { Nest = multiproc.Register("nest", nest) } // in a declaration it would refer to itself

func nest(ctx context.Context, levels int) (int, error) {
	if levels <= 1 {
		return levels, nil
	}
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
	defer pool.Close()
	n, err := Nest.Call(ctx, pool, levels-1)
	return n + 1, err
}

// Text is what Print prints.
type Text struct{ Out, Err string }

// Print writes to standard output and standard error.
var Print = multiproc.Register("print", func(_ context.Context, text Text) (int, error) {
	_, err := os.Stdout.WriteString(text.Out)
	if err == nil {
		_, err = os.Stderr.WriteString(text.Err)
	}
	return os.Getpid(), err
})

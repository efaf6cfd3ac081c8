// Program small is a program as small as one that uses multiproc can be, which is what the starts
// of processes are measured with. It prints what it measured as a JSON object.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/seed84f35039/multiproc"
)

var square = multiproc.Register("square", func(_ context.Context, x int) (int, error) { return x * x, nil })

// writeFile creates a file of one line.
var writeFile = multiproc.Register("writeFile", func(_ context.Context, name string) (struct{}, error) {
	f, err := os.Create(name)
	if err != nil {
		return struct{}{}, err
	}
	_, err = f.WriteString("line 0\n")
	return struct{}{}, errors.Join(err, f.Close())
})

func main() {
	multiproc.Init()
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "small:", err)
		os.Exit(1)
	}
}

const usage = "usage: small result|wait|spare|pool TIMES, or small files TIMES DIR FILES WORKERS SPARES"

func run(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New(usage)
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var took []time.Duration
	switch args[0] {
	case "result":
		took, err = starts(ctx, n, nil, (*multiproc.Process[int]).Result)
	case "wait":
		took, err = starts(ctx, n, nil, (*multiproc.Process[int]).Wait)
	case "spare":
		spares := multiproc.NewSpares(1, multiproc.ProcessConfig{})
		defer spares.Close()
		took, err = starts(ctx, n, spares, (*multiproc.Process[int]).Result)
	case "pool":
		took, err = pools(ctx, n)
	case "files":
		var more [3]int
		if len(args) != 6 {
			return errors.New(usage)
		}
		for i := range more {
			if more[i], err = strconv.Atoi(args[3+i]); err != nil {
				return err
			}
		}
		took, err = files(ctx, n, args[2], more[0], multiproc.PoolConfig{Workers: more[1], Spares: more[2]})
	default:
		return errors.New(usage)
	}
	if err != nil || len(took) == 0 {
		return errors.Join(err, ctx.Err())
	}
	slices.Sort(took)
	p50, p99 := took[len(took)/2].Seconds(), took[len(took)*99/100].Seconds()
	fmt.Printf(`{"p50": %g, "p99": %g, "seconds": %g}`+"\n", p50, p99, p50)
	return nil
}

// starts times Func.Start to the result of the call, which get returns. What comes after that, and
// that a spare is ready again, is waited for off the clock.
func starts(ctx context.Context, n int, spares *multiproc.Spares, get func(*multiproc.Process[int], context.Context) (int, error)) (took []time.Duration, err error) {
	for i := range n {
		if spares != nil {
			if err := spares.Start(ctx); err != nil {
				return nil, err
			}
		}
		began := time.Now()
		p, err := square.Start(ctx, i, multiproc.ProcessConfig{Spares: spares})
		if err != nil {
			return nil, err
		}
		x, err := get(p, ctx)
		took = append(took, time.Since(began))
		if err := check(i, x, err); err != nil {
			return nil, err
		}
		if _, err := p.Wait(ctx); err != nil {
			return nil, err
		}
	}
	return took, nil
}

// pools times new pools to their first result, and closes them off the clock.
func pools(ctx context.Context, n int) (took []time.Duration, err error) {
	for i := range n {
		began := time.Now()
		pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
		x, err := square.Call(ctx, pool, i)
		took = append(took, time.Since(began))
		if err := errors.Join(check(i, x, err), pool.Close()); err != nil {
			return nil, err
		}
	}
	return took, nil
}

// files times the writing of files in dir, one process for each.
func files(ctx context.Context, n int, dir string, number int, cfg multiproc.PoolConfig) (took []time.Duration, err error) {
	ex := multiproc.NewProcesses(cfg)
	defer ex.Close()
	names := make([]string, number)
	for i := range names {
		names[i] = filepath.Join(dir, strconv.Itoa(i))
	}
	for range n {
		if cfg.Spares > 0 {
			if err := ex.Start(ctx); err != nil {
				return nil, err
			}
		}
		began := time.Now()
		_, err := writeFile.Map(ctx, ex, names)
		took = append(took, time.Since(began))
		for _, name := range names {
			err = errors.Join(err, os.Remove(name))
		}
		if err != nil {
			return nil, err
		}
	}
	return took, nil
}

// check returns what is wrong with the answer to a call of square.
func check(i, x int, err error) error {
	if err == nil && x != i*i {
		err = fmt.Errorf("the square of %d came out as %d", i, x)
	}
	return err
}

package shared_test

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
	"github.com/seed84f35039/multiproc/shared"
)

// refused is what the errors of NewMemory say where something has run out.
type refused struct {
	Says []string // what the errors said
}

// starve makes memory in a process of its own, without descriptors, with files that may not
// be that large, and then with all that it takes.
var starve = multiproc.Register("starve", func(_ context.Context, size int) (r refused, err error) {
	var files, sizes syscall.Rlimit
	if err := errors.Join(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files), syscall.Getrlimit(syscall.RLIMIT_FSIZE, &sizes)); err != nil {
		return r, err
	}
	try := func(resource int, limit syscall.Rlimit, low uint64, want error) {
		few := limit
		few.Cur = low
		if e := syscall.Setrlimit(resource, &few); e != nil {
			err = errors.Join(err, e)
			return
		}
		m, e := shared.NewMemory(size)
		if !errors.Is(e, want) {
			err = errors.Join(err, e, errors.New("want "+want.Error()))
		}
		if e != nil {
			r.Says = append(r.Says, e.Error())
		}
		m.Close()
		err = errors.Join(err, syscall.Setrlimit(resource, &limit))
	}
	try(syscall.RLIMIT_NOFILE, files, 3, syscall.EMFILE)
	try(syscall.RLIMIT_FSIZE, sizes, uint64(size)-1, syscall.EFBIG)
	m, e := shared.NewMemory(size)
	return r, errors.Join(err, e, m.Close())
})

// TestMemoryRunsOut has memory be refused for lack of descriptors and for its size: the
// error says what to do, and it can be had as soon as there is enough.
func TestMemoryRunsOut(t *testing.T) {
	t.Parallel()
	p, err := starve.Start(proctest.Within(t), 100_000, multiproc.ProcessConfig{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.Wait(proctest.Within(t))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"ulimit -n", "ulimit -f"} {
		if i >= len(r.Says) || !strings.Contains(r.Says[i], want) {
			t.Errorf("got %q, want %s in number %d", r.Says, want, i)
		}
	}
}

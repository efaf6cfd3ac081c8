package transport

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// filesPairs are the ways to make two connected ends.
var filesPairs = map[string]func(t *testing.T) (a, b Files){
	"socket": func(t *testing.T) (a, b Files) {
		x, y, err := pairOf(unix.SOCK_SEQPACKET)
		if err != nil {
			t.Fatal(err)
		}
		return socketFiles{x}, socketFiles{y}
	},
	"queue": func(*testing.T) (a, b Files) { return newQueues() },
}

// TestFiles sends files both ways: each Take returns what one Send has sent, in order,
// and none waits.
func TestFiles(t *testing.T) {
	for name, pair := range filesPairs {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err := a.Take(); err == nil {
				t.Error("took what was not sent")
			}
			many := make([]*os.File, 253)
			for i := range many {
				many[i] = w
			}
			if err := errors.Join(a.Send([]*os.File{w}), a.Send(many), b.Send([]*os.File{r, w}), a.Send(many)); err != nil {
				t.Fatal(err)
			}
			w.Close()
			for _, test := range []struct {
				end  Files
				want int
			}{{b, 1}, {b, 253}, {a, 2}} {
				files, err := test.end.Take()
				if err != nil || len(files) != test.want {
					t.Fatalf("got %d files, %v, want %d", len(files), err, test.want)
				}
				flags, err := unix.FcntlInt(files[0].Fd(), unix.F_GETFD, 0)
				if err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("a program that is started inherits it: %b, %v", flags, err)
				}
				closeAll(files)
			}
			if err := errors.Join(a.Close(), b.Close()); err != nil { // with what was not taken
				t.Error(err)
			}
			if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Error("somebody can still write to the pipe")
			}
			if err := a.Send([]*os.File{r}); err == nil {
				t.Error("sent to an end that is closed")
			}
		})
	}
}

// TestFilesOfAPeerThatIsGone are there all the same.
func TestFilesOfAPeerThatIsGone(t *testing.T) {
	a, b := filesPairs["socket"](t)
	defer b.Close()
	for range 2 {
		if err := a.Send([]*os.File{os.Stdin}); err != nil {
			t.Fatal(err)
		}
	}
	a.Close()
	for range 2 {
		files, err := b.Take()
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		closeAll(files)
	}
	if _, err := b.Take(); err == nil {
		t.Error("took more than was sent")
	}
}

// TestFilesAreNotTaken sends until the peer would have to take some: that is an error,
// and far from 32 times, which is what callers rely on.
func TestFilesAreNotTaken(t *testing.T) {
	a, b := filesPairs["socket"](t)
	defer a.Close()
	defer b.Close()
	many := make([]*os.File, 253)
	for i := range many {
		many[i] = os.Stdin
	}
	sent := 0
	for ; a.Send(many) == nil; sent++ {
		if sent > 100_000 {
			t.Fatal("there is no end to it")
		}
	}
	if sent < 64 {
		t.Errorf("sent %d times", sent)
	}
	if err := a.Send(make([]*os.File, 254)); err == nil {
		t.Error("sent more than the kernel takes")
	}
}

// TestOpenWithFiles opens the worker's end of a connection that has a way for files.
func TestOpenWithFiles(t *testing.T) {
	conn, theirs, err := New()
	if err != nil {
		t.Fatal(err)
	}
	if conn, theirs, err = AddFiles(conn, theirs); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if len(theirs) != 3 {
		t.Skip("this system has no memory without a name that processes could share")
	}
	low := 600
	for ; ; low += 3 {
		if errors.Join(dup(theirs[0], low), dup(theirs[1], low+1), dup(theirs[2], low+2)) == nil {
			break
		}
	}
	closeAll(theirs)
	worker, err := Open(uintptr(low), 3)
	if err != nil {
		t.Fatal(err)
	}
	defer worker.Close()
	if err := FilesOf(worker).Send([]*os.File{os.Stdin}); err != nil {
		t.Fatal(err)
	}
	files, err := FilesOf(conn).Take()
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	closeAll(files)
	if FilesOf(NewStream(nil)) != nil {
		t.Error("a stream has a way for files")
	}
}

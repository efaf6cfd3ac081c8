package multiproc

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/seed84f35039/multiproc/internal/child"
	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// touch makes a file.
var touch = Register("build.touch", func(_ context.Context, path string) (int, error) {
	return 0, os.WriteFile(path, nil, 0o600)
})

// TestOtherBuild starts workers whose parent seems to be another program. They refuse to
// serve, and do not run the call that is there already.
func TestOtherBuild(t *testing.T) {
	version := strconv.Itoa(wire.Version)
	for parent, says := range map[string]string{
		version + " " + build():       "",
		version + " 17-12345":         "another build",
		version:                       "another build",
		"1 " + build():                "version 1 of the protocol",
		"x":                           "version x of the protocol",
		version + " " + build() + " ": "another build",
	} {
		conn, theirs, err := transport.New()
		if err != nil {
			t.Fatal(err)
		}
		path, err := child.Self()
		if err != nil {
			t.Fatal(err)
		}
		c, err := child.Start(child.Config{
			Path: path, Env: append(workerEnv(nil, build(), 1, len(theirs), workerConfig{}), envWorker+"="+parent), Files: theirs, Tail: stderrTail,
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range theirs {
			f.Close()
		}
		file := filepath.Join(t.TempDir(), "touched")
		call, err := singleCall(1, touch.name, touch.With(file).encode, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Send(call, nil, transport.Now); err != nil {
			t.Error(err)
		}
		var kinds []wire.Kind
		for len(kinds) < 3 {
			f, err := transport.Recv(conn)
			if err != nil {
				break
			}
			kinds = append(kinds, f.Kind)
		}
		_, err = os.Stat(file)
		ended := c.Reap()
		conn.Close()
		switch {
		case says == "" && (len(kinds) != 3 || kinds[2] != wire.Result || err != nil):
			t.Errorf("%q: the worker says %v, and %v", parent, kinds, err)
		case says != "" && (len(kinds) > 0 || err == nil || ended.ExitCode() != 2 || !strings.Contains(ended.Reason, says)):
			t.Errorf("%q: the worker says %v, ends with %d, %q; the call ran: %v", parent, kinds, ended.ExitCode(), ended.Reason, err == nil)
		}
	}
}

package lint

import (
	"go/token"
	"strconv"
	"strings"
	"testing"
)

// A reporter takes what is wrong at pos, and what to do about it.
type reporter func(pos token.Pos, format string, args ...any)

// A rule checks one file at a time.
type rule struct {
	name    string
	check   func(*file, reporter)
	samples []sample
}

// A sample has sources that a rule must refuse, with one finding each, and others that it must
// accept. They stand for a file at path and go without their package clause.
type sample struct {
	path string
	bad  []string
	good []string
}

var rules = []rule{
	{"imports", checkImports, []sample{
		{
			path: "internal/wire/x.go",
			bad: []string{
				`import "github.com/seed84f35039/multiproc"`,
				`import "github.com/seed84f35039/multiproc/internal/transport"`,
				`import "github.com/google/go-cmp/cmp"`,
				`import "golang.org/x/sys/unix"`,
			},
			good: []string{`import "github.com/fxamacker/cbor/v2"`, `import "github.com/seed84f35039/multiproc/internal/shm"`, `import "encoding/binary"`},
		},
		{
			path: "internal/wire/x_test.go",
			bad:  []string{`import "github.com/seed84f35039/multiproc/internal/child"`},
			good: []string{
				`import "github.com/seed84f35039/multiproc/internal/wire"`,
				`import "github.com/seed84f35039/multiproc/internal/proctest"`,
				`import "github.com/google/go-cmp/cmp"`,
			},
		},
		{
			path: "cmd/multiproc/x.go",
			bad:  []string{`import "github.com/seed84f35039/multiproc/internal/proctest"`, `import "go.uber.org/goleak"`},
			good: []string{`import "github.com/seed84f35039/multiproc"`, `import "github.com/spf13/cobra"`},
		},
		{
			path: "cgroup/x.go",
			bad:  []string{`import "github.com/seed84f35039/multiproc/internal/child"`, `import "github.com/godbus/dbus/v5"`},
			good: []string{`import "github.com/seed84f35039/multiproc"`, `import "github.com/containerd/cgroups/v3/cgroup2"`},
		},
		{
			path: "cluster/x.go",
			bad:  []string{`import "github.com/seed84f35039/multiproc/internal/child"`, `import "github.com/nats-io/jwt/v2"`},
			good: []string{
				`import "github.com/seed84f35039/multiproc"`, `import "github.com/seed84f35039/multiproc/internal/wire"`,
				`import "github.com/nats-io/nats.go/jetstream"`, `import "github.com/nats-io/nats-server/v2/server"`, `import "github.com/nats-io/nkeys"`,
			},
		},
		{
			path: "examples/first/x.go",
			bad:  []string{`import "github.com/seed84f35039/multiproc/internal/wire"`},
			good: []string{`import "github.com/seed84f35039/multiproc/shared"`},
		},
	}},
	{"sole users", checkSoleUsers, []sample{
		{
			path: "internal/transport/x.go",
			bad:  []string{`import "unsafe"`, `import "os/exec"`, `import "github.com/nats-io/nats.go/jetstream"`},
			good: []string{`import "os"`},
		},
		{path: "x_test.go", bad: []string{`import "unsafe"`, `import "github.com/containerd/cgroups/v3"`, `import "github.com/nats-io/nats.go"`}, good: []string{`import "os/exec"`}},
		{path: "cgroup/x.go", bad: []string{`import "os/exec"`}, good: []string{`import "github.com/containerd/cgroups/v3/cgroup1"`}},
		{path: "internal/shm/x.go", bad: []string{`import "os/exec"`}, good: []string{`import "unsafe"`}},
		{path: "internal/child/x.go", bad: []string{`import "unsafe"`}, good: []string{`import "os/exec"`}},
	}},
	{"sleep", checkSleep, []sample{
		{
			path: "x_test.go",
			bad: []string{
				`import "time"; func f() { time.Sleep(1) }`,
				`import clock "time"; var f = clock.Sleep`,
				"import \"time\"\nfunc f() {\n// Give it time.\ntime.Sleep(1)\n}",
				"import \"time\"\nfunc f() {\n// sleep:\ntime.Sleep(1)\n}",
				"import \"time\"\nfunc f() {\n// sleep: for another line\n\ntime.Sleep(1)\n}",
			},
			good: []string{
				"import \"time\"\nfunc f() { time.Sleep(1) } // sleep: the clock is that of synctest",
				"import \"time\"\nfunc f() {\n// sleep: the kernel tells nobody when\n// it has gone.\ntime.Sleep(1)\n}",
				`import "example.com/other/time"; func f() { time.Sleep(1) }`,
			},
		},
		{path: "internal/proctest/x.go", bad: []string{`import "time"; func f() { time.Sleep(1) }`}},
		{path: "x.go", good: []string{`import "time"; func f() { time.Sleep(1) }`}},
	}},
	{"go statements", checkGo, []sample{
		{
			path: "x.go",
			bad: []string{
				`func f() { go f() }`,
				"func f() {\nx := 1 // a number\ngo f()\n}",
				"func f() {\n//nolint:all\ngo f()\n}",
				"func f() {\n// Ends with f.\n\ngo f()\n}",
			},
			good: []string{
				"func f() {\n// Started by f, stopped by closing c,\n// waited for by Close.\ngo f()\n}",
				"func f() {\ngo f() // ends with ctx; Close waits\n}",
			},
		},
		{path: "x_test.go", good: []string{`func f() { go f() }`}},
	}},
	{"init", checkInit, []sample{
		{path: "x.go", bad: []string{`func init() {}`}, good: []string{`type t int; func (t) init() {}`}},
		{path: "cmd/multiproc/x.go", good: []string{`func init() {}`}},
	}},
	{"skip", checkSkip, []sample{
		{
			path: "x_test.go",
			bad: []string{
				`import "testing"; func TestX(t *testing.T) { t.Skip() }`,
				`import "testing"; func TestX(t *testing.T) { t.SkipNow() }`,
				`import "testing"; func TestX(t *testing.T) { t.Skip("too slow") }`,
				`import "testing"; func TestX(t *testing.T) { t.Skip(reason) }`,
				`import "testing"; func BenchmarkX(b *testing.B) { b.Skipf("%s", why) }`,
				`import "testing"; func need(tb testing.TB) { func() { tb.Skip("no") }() }`,
			},
			good: []string{
				`import "testing"; func TestX(t *testing.T) { t.Skip("memfd_create is for Linux alone") }`,
				`import "testing"; func TestX(t *testing.T) { t.Skipf("needs a cgroup of our own: %v", err) }`,
				`import "encoding/json"; func f(d *json.Decoder) { d.Skip() }`,
			},
		},
	}},
	{"length", checkLength, []sample{
		{path: "x.go", bad: []string{strings.Repeat("\n", maxLines)}, good: []string{strings.Repeat("\n", maxLines-2)}},
	}},
	{"doc comments", checkDocs, []sample{
		{
			path: "x.go",
			bad: []string{
				`func F() {}`,
				`type T int`,
				`type ( T int )`,
				"// T is a type.\ntype T int\nfunc (T) M() {}",
				"// T is a type.\ntype T[V any] int\nfunc (*T[V]) M() {}",
				"// T is a type.\ntype T interface {\nM()\n}",
				"// XConfig is a type.\ntype XConfig struct {\nF int\n}",
				`const C = 1`,
				"var (\nV = 1\n)",
			},
			good: []string{
				`func f() {}`,
				`type t int; func (t) M() {}`,
				"// T is a type.\ntype T struct { F int }",
				"// XConfig is a type.\ntype XConfig struct {\n// F is a field.\nF int\ng int\nH int // H is another.\n}",
				"// C is a number.\nconst C = 1",
				"// Colours.\nconst (\nRed = 1\nBlue = 2\n)",
			},
		},
		{path: "scale/x.go", bad: []string{`func F() {}`}},
		{path: "cgroup/x.go", bad: []string{`func F() {}`}},
		{path: "internal/wire/x.go", good: []string{`func F() {}`}},
		{path: "x_test.go", good: []string{`func F() {}`}},
	}},
}

func TestSources(t *testing.T) {
	repo := load(t)
	if len(repo.files) == 0 {
		t.Fatal("found no Go file to check")
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, f := range repo.files {
				r.check(f, func(pos token.Pos, format string, args ...any) {
					at := f.path + ":" + strconv.Itoa(f.line(pos))
					t.Errorf("%s: "+format, append([]any{at}, args...)...)
				})
			}
		})
	}
}

// TestRules has every rule look at sources whose verdict is known.
func TestRules(t *testing.T) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, s := range r.samples {
				expect := func(want int, sources []string) {
					for _, src := range sources {
						got := 0
						r.check(parse(s.path, "package x\n"+src+"\n"), func(token.Pos, string, ...any) { got++ })
						if got != want {
							t.Errorf("%d findings, want %d, in %s:\n%s", got, want, s.path, src)
						}
					}
				}
				expect(1, s.bad)
				expect(0, s.good)
			}
		})
	}
}

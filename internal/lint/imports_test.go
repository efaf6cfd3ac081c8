package lint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// A row says what a package may import besides the standard library. Packages of this module are
// named by their folder ("." is the root package), others by their path, which takes in what is
// below it.
type row struct {
	pkg   string   // a folder; "folder/..." takes in what is below it
	may   []string // what its code may import
	tests []string // what its tests may import beyond that, beyond the package itself and testTools
}

const anything = "*"

var (
	natsClient = "github.com/nats-io/nats.go"
	natsServer = "github.com/nats-io/nats-server/v2"
	natsKeys   = "github.com/nats-io/nkeys"
	cgroups    = "github.com/containerd/cgroups/v3"
	xsys       = "golang.org/x/sys"
)

// table is the architecture: its arrows point one way, and the adapters of the root package
// (shared, cgroup, cluster) do not know each other. A row may stand before its package does.
var table = []row{
	{pkg: ".", may: []string{"internal/wire", "internal/transport", "internal/handover", "internal/child", "internal/shm"}},
	{pkg: "shared", may: []string{"internal/handover", "internal/shm"}, tests: []string{".", "github.com/fxamacker/cbor/v2", xsys}},
	{pkg: "cgroup", may: []string{".", cgroups, "github.com/opencontainers/runtime-spec"}},
	{pkg: "cluster", may: []string{".", "internal/wire", natsClient, natsServer, natsKeys}, tests: []string{"github.com/nats-io/jwt/v2"}},
	{pkg: "scale"},
	{pkg: "cmd/multiproc/...", may: []string{anything}},
	{pkg: "internal/wire", may: []string{"internal/shm", "github.com/fxamacker/cbor/v2"}},
	{pkg: "internal/transport", may: []string{"internal/wire", "internal/shm", xsys}},
	{pkg: "internal/handover", may: []string{"internal/shm"}, tests: []string{"github.com/fxamacker/cbor/v2", xsys}},
	{pkg: "internal/shm", may: []string{xsys}},
	{pkg: "internal/child", may: []string{xsys}},
	{
		pkg: "internal/proctest",
		may: append([]string{
			".", "shared", "internal/wire", "internal/transport", "internal/child", "internal/shm", xsys,
		}, testTools...),
	},
	{pkg: "internal/lint"},
	{pkg: "bench/clustered", may: []string{".", "cluster", "internal/child"}}, // the other programs, and their workers, are to be without NATS
	{pkg: "bench/...", may: []string{".", "shared", "internal/child"}},
	{pkg: "examples/...", may: []string{".", "shared", "cluster", "scale"}},
}

// testTools are for tests alone: any test may import them, and no other code.
var testTools = []string{
	"internal/proctest",
	"github.com/google/go-cmp",
	"github.com/rogpeppe/go-internal",
	"go.uber.org/goleak",
	"pgregory.net/rapid",
}

// soleUsers are the packages that only one package may import.
var soleUsers = []struct {
	path    string
	user    string
	tests   bool // whether the rule binds tests as well
	instead string
}{
	{"unsafe", "internal/shm", true, "give internal/shm a typed function that does it"},
	{"os/exec", "internal/child", false, "start and stop processes through internal/child"},
	{"github.com/nats-io", "cluster", true, "go through package cluster"},
	{"github.com/containerd/cgroups", "cgroup", true, "go through a multiproc.Cage, which package cgroup makes"},
	{"github.com/opencontainers/runtime-spec", "cgroup", true, "go through a multiproc.Cage, which package cgroup makes"},
}

// unreachable are the packages that the root package must not reach, however indirectly: they
// would cost every program that imports it, and each worker at its start: net makes a program
// link the C library where there is a C compiler.
var unreachable = []string{"net", "net/http", "regexp", "testing", natsClient, natsServer, natsKeys, cgroups, cgroups + "/cgroup1", cgroups + "/cgroup2"}

func rowOf(f *file) (row, bool) {
	i := slices.IndexFunc(table, func(r row) bool { return f.in(r.pkg) })
	if i < 0 {
		return row{}, false
	}
	return table[i], true
}

// folder returns the name that table has for a package: a folder for those of this module.
func folder(importPath string) string {
	if importPath == module {
		return "."
	}
	return strings.TrimPrefix(importPath, module+"/")
}

// covers reports whether name, as folder gives it, is one of the entries or is below one that
// belongs to another module.
func covers(entries []string, name string) bool {
	return slices.ContainsFunc(entries, func(entry string) bool {
		return name == entry || isForeign(entry) && strings.HasPrefix(name, entry+"/")
	})
}

// isForeign reports whether name is a package of another module, the standard library aside: the
// first element of such a path is a host.
func isForeign(name string) bool {
	host, _, _ := strings.Cut(name, "/")
	return name != "." && strings.Contains(host, ".")
}

// checkImports holds a file to the row of its package.
func checkImports(f *file, report reporter) {
	r, ok := rowOf(f)
	if !ok {
		return // for TestEveryPackageHasARow
	}
	for p, pos := range f.imports() {
		name := folder(p)
		if p == name && !isForeign(name) {
			continue // the standard library
		}
		allowed := covers(r.may, name) || slices.Contains(r.may, anything) && !covers(testTools, name)
		if f.isTest() {
			allowed = allowed || name == f.dir || covers(testTools, name) || covers(r.tests, name)
		}
		if !allowed {
			report(pos, "%s may not import %s: move the code to a package that may, or change the table in internal/lint and docs/architecture.md", r.pkg, name)
		}
	}
}

// checkSoleUsers holds a file to soleUsers.
func checkSoleUsers(f *file, report reporter) {
	for p, pos := range f.imports() {
		for _, s := range soleUsers {
			bound := s.tests || !f.isTestCode()
			if bound && f.dir != s.user && (p == s.path || isForeign(s.path) && strings.HasPrefix(p, s.path+"/")) {
				report(pos, "only %s may import %s: %s", s.user, s.path, s.instead)
			}
		}
	}
}

func TestEveryPackageHasARow(t *testing.T) {
	for dir, files := range load(t).packages() {
		if _, ok := rowOf(files[0]); !ok {
			t.Errorf("%s is not in the import table: add a row for it in internal/lint, and a line in docs/architecture.md", dir)
		}
	}
}

func TestRootReachesLittle(t *testing.T) {
	load(t) // the sources decide the answer: have the test cache know them
	for _, name := range []string{"go.mod", "go.sum"} {
		if _, err := os.ReadFile(root + "/" + name); err != nil {
			t.Fatal(err)
		}
	}
	for _, goos := range []string{"linux", "darwin", "windows"} {
		t.Run(goos, func(t *testing.T) {
			imports := dependencies(t, goos, ".")
			if len(imports[module]) == 0 {
				t.Fatal("go list knows no import of the root package: does it build?")
			}
			for _, chain := range chains(imports, module) {
				if last := chain[len(chain)-1]; slices.Contains(unreachable, last) {
					t.Errorf("the root package must not reach %s: break the chain %s", last, strings.Join(chain, " -> "))
				}
			}
		})
	}
}

// TestCommandReachesNoCgroups keeps the command as small as it is: whoever wants cgroups imports the package.
func TestCommandReachesNoCgroups(t *testing.T) {
	load(t)
	imports := dependencies(t, "linux", "./cmd/multiproc")
	if len(imports[module+"/cmd/multiproc"]) == 0 {
		t.Fatal("go list knows no import of the command: does it build?")
	}
	for _, chain := range chains(imports, module+"/cmd/multiproc") {
		if last := chain[len(chain)-1]; last == module+"/cgroup" || strings.HasPrefix(last, cgroups) {
			t.Errorf("the command must not reach %s: break the chain %s", last, strings.Join(chain, " -> "))
		}
	}
}

func TestChains(t *testing.T) {
	imports := map[string][]string{"a": {"b", "c"}, "b": {"d"}, "c": {"d", "a"}, "e": {"a"}}
	want := [][]string{{"a"}, {"a", "b"}, {"a", "c"}, {"a", "b", "d"}}
	if got := chains(imports, "a"); !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// dependencies asks the go command what each package that pkg reaches imports.
func dependencies(t *testing.T, goos, pkg string) map[string][]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	list := exec.CommandContext(ctx, "go", "list", "-e", "-deps", "-json=ImportPath,Imports", pkg)
	list.Dir = root
	list.Env = append(list.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	var stderr strings.Builder
	list.Stderr = &stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", list, err, stderr.String())
	}
	imports := make(map[string][]string)
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var pkg struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&pkg); errors.Is(err, io.EOF) {
			return imports
		} else if err != nil {
			t.Fatalf("%v: %v", list, err)
		}
		imports[pkg.ImportPath] = pkg.Imports
	}
}

// chains returns a shortest chain of imports from start to each package it reaches.
func chains(imports map[string][]string, start string) [][]string {
	queue := [][]string{{start}}
	seen := map[string]bool{start: true}
	for i := 0; i < len(queue); i++ {
		chain := queue[i]
		for _, next := range imports[chain[len(chain)-1]] {
			if !seen[next] {
				seen[next] = true
				queue = append(queue, append(slices.Clone(chain), next))
			}
		}
	}
	return queue
}

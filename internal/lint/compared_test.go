package lint

import (
	"go/ast"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// compared is the document that says which test proves what.
const compared = "docs/compared.md"

// TestComparedNamesTests has each row of the document's tables name a test, or say "none", and every test that it
// names exist.
func TestComparedNamesTests(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(compared)))
	if err != nil {
		t.Fatal(err)
	}
	proofs := proofColumn(string(text))
	if len(proofs) == 0 {
		t.Fatalf("%s has no table whose last column is \"test\"", compared)
	}
	files := load(t).files
	for _, proof := range proofs {
		if problem := checkProof(proof, files); problem != "" {
			t.Errorf("%s: %s", compared, problem)
		}
	}
}

func TestProofs(t *testing.T) {
	files := []*file{
		parse("x_test.go", "package multiproc_test\nfunc TestA(t *testing.T) { t.Run(\"one\", f) }"),
		parse("internal/child/x_test.go", "package child\nfunc TestB(t *testing.T) {}"),
		parse("internal/proctest/x.go", "package proctest\nvar cases = []string{\"01 a, b\"}"),
		parse("x.go", "package multiproc\nfunc TestNot() { f(\"none\") }"),
	}
	for proof, ok := range map[string]bool{
		"none":                          true,
		"":                              false,
		"see below":                     false,
		"`multiproc.TestA`":             true,
		"`multiproc.TestA/one`":         true,
		"`multiproc.TestA/two`":         false,
		"`multiproc.TestA/01 a, b`":     true,
		"`multiproc.TestA/01 a`":        false,
		"`child.TestB`":                 true,
		"`child.TestA`":                 false,
		"`multiproc.TestNot`":           false,
		"`multiproc.TestA`, `TestC`":    false,
		"`multiproc.TestA/one`, TestC`": false,
		"`child.TestB`, `child.TestC`":  false,
	} {
		if problem := checkProof(proof, files); (problem == "") != ok {
			t.Errorf("%s: got %q, want a problem: %t", proof, problem, !ok)
		}
	}
	table := "| a | test |\n|---|---|\n| x | `p.TestA` |\n| y | none |\n\n| a | b |\n|---|---|\n| x | y |\n"
	if got := strings.Join(proofColumn(table), ";"); got != "`p.TestA`;none" {
		t.Errorf("the last column is %q", got)
	}
}

// proofColumn returns the cells below the heading "test" of tables in which it is the last one.
func proofColumn(text string) (cells []string) {
	inside := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		row := strings.Split(strings.Trim(line, "|"), "|")
		last := strings.TrimSpace(row[len(row)-1])
		switch {
		case !strings.HasPrefix(line, "|"):
			inside = false
		case last == "test":
			inside = true
		case inside && strings.Trim(last, "-:") != "":
			cells = append(cells, last)
		}
	}
	return cells
}

var proof = regexp.MustCompile("^`(\\w+)\\.(Test\\w+)(?:/([^`]+))?`$")

// checkProof says what is wrong with a list of tests.
func checkProof(list string, files []*file) string {
	if list == "none" {
		return ""
	}
	for i, name := range strings.Split(list, "`, `") {
		if i > 0 {
			name = "`" + name
		}
		name = strings.TrimSuffix(name, "`") + "`"
		m := proof.FindStringSubmatch(name)
		if m == nil {
			return strconv.Quote(list) + " is no list of tests: write `package.TestName/subtest`, …, or none"
		}
		dir := dirOf(m[1], files)
		if !hasTest(files, dir, m[2]) {
			return "there is no test " + m[1] + "." + m[2] + ": it was renamed or removed, so name the one that proves this now"
		}
		if m[3] != "" && !hasLiteral(files, dir, m[3]) {
			return "no test of " + m[1] + " has the subtest " + strconv.Quote(m[3]) + ": name it as the source does"
		}
	}
	return ""
}

// dirOf returns the directory of a package, by its name.
func dirOf(pkg string, files []*file) string {
	if pkg == path.Base(module) {
		return "."
	}
	for _, f := range files {
		if path.Base(f.dir) == pkg {
			return f.dir
		}
	}
	return ""
}

func hasTest(files []*file, dir, name string) bool {
	for _, f := range files {
		if f.dir != dir || !f.isTest() {
			continue
		}
		for _, decl := range f.tree.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == name {
				return true
			}
		}
	}
	return false
}

// hasLiteral reports whether the tests of a package, or the suite of all executors, have a string, as the
// names of subtests are.
func hasLiteral(files []*file, dir, text string) bool {
	found := false
	for _, f := range files {
		if f.dir == dir && f.isTest() || f.in("internal/proctest") {
			ast.Inspect(f.tree, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					s, err := strconv.Unquote(lit.Value)
					found = found || err == nil && s == text
				}
				return !found
			})
		}
	}
	return found
}

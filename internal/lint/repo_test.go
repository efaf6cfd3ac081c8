package lint

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const (
	root   = "../.." // the repository, seen from this package
	module = "github.com/seed84f35039/multiproc"
)

// A file is one parsed Go file.
type file struct {
	path  string // from the root of the repository, with slashes
	dir   string // of path; "." is the root package
	lines []string
	fset  *token.FileSet
	tree  *ast.File
}

// parse makes a file of src. What does not parse is left to the compiler to report: the rules see
// as much of the file as the parser does.
func parse(name, src string) *file {
	fset := token.NewFileSet()
	tree, _ := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	return &file{
		path:  name,
		dir:   path.Dir(name),
		lines: strings.Split(strings.TrimSuffix(src, "\n"), "\n"),
		fset:  fset,
		tree:  tree,
	}
}

func (f *file) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// isTestCode reports whether only tests can come to run f.
func (f *file) isTestCode() bool {
	return f.isTest() || f.in("internal/proctest/...") || f.in("internal/lint/...")
}

// in reports whether f belongs to the package, or with "/..." to the tree of packages, pattern.
func (f *file) in(pattern string) bool {
	if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
		return f.dir == tree || strings.HasPrefix(f.dir, tree+"/")
	}
	return f.dir == pattern
}

func (f *file) line(pos token.Pos) int { return f.fset.Position(pos).Line }

// imports returns the paths that f imports, and where.
func (f *file) imports() map[string]token.Pos {
	paths := make(map[string]token.Pos)
	for _, spec := range f.tree.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths[p] = spec.Pos()
		}
	}
	return paths
}

// localName returns the name by which f knows the package at importPath, "" if it does not.
func (f *file) localName(importPath string) string {
	for _, spec := range f.tree.Imports {
		if spec.Path.Value != strconv.Quote(importPath) {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path.Base(importPath)
	}
	return ""
}

// note returns the comments that speak of the line of pos: beside it, or alone directly above it.
func (f *file) note(pos token.Pos) string {
	var text strings.Builder
	for _, group := range f.tree.Comments {
		start := f.fset.Position(group.Pos())
		alone := strings.TrimSpace(f.lines[start.Line-1][:start.Column-1]) == ""
		beside := start.Line == f.line(pos)
		above := alone && f.line(group.End()) == f.line(pos)-1
		if beside || above {
			text.WriteString(group.Text())
		}
	}
	return text.String()
}

// A repository is what the rules are checked on.
type repository struct {
	files    []*file
	markdown []string // paths from the root
}

// packages returns the files by directory.
func (r *repository) packages() map[string][]*file {
	dirs := make(map[string][]*file)
	for _, f := range r.files {
		dirs[f.dir] = append(dirs[f.dir], f)
	}
	return dirs
}

// load reads the repository, once. It opens every file and every folder itself, since the test
// cache takes notice of what a test opens and of nothing else.
func load(t *testing.T) *repository {
	t.Helper()
	repo, err := loadOnce()
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

var loadOnce = sync.OnceValues(func() (*repository, error) {
	gomod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, err
	}
	if !slices.Contains(strings.Split(string(gomod), "\n"), "module "+module) {
		return nil, fmt.Errorf("%s/go.mod is not that of %s", root, module)
	}
	repo := new(repository)
	err = filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed since its folder was read
		case err != nil:
			return err
		case entry.IsDir():
			return skipDir(name, entry)
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		switch path.Ext(rel) {
		case ".go":
			src, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			repo.files = append(repo.files, parse(rel, string(src)))
		case ".md":
			repo.markdown = append(repo.markdown, rel)
		}
		return nil
	})
	return repo, err
})

// skipDir passes over the folders that the go command passes over, and over other modules.
func skipDir(name string, entry fs.DirEntry) error {
	if name == root {
		return nil
	}
	base := entry.Name()
	if base == "testdata" || base == "vendor" || base[0] == '.' || base[0] == '_' {
		return filepath.SkipDir
	}
	if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
		return filepath.SkipDir
	}
	return nil
}

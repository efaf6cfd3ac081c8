package lint

import (
	"go/ast"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documented are the packages whose every exported name has a doc comment.
var documented = []string{".", "shared", "cgroup", "cluster", "scale"}

// checkDocs has every exported name of the public packages say what it is. The comment on a group of
// constants or variables serves all of them, and that on a struct serves its fields, except in a
// config, whose every field states its default.
func checkDocs(f *file, report reporter) {
	if f.isTest() || !slices.Contains(documented, f.dir) {
		return
	}
	need := func(names []*ast.Ident, comments ...*ast.CommentGroup) {
		for _, name := range names {
			if name.IsExported() && !slices.ContainsFunc(comments, says) {
				report(name.Pos(), "%s has no doc comment: say what it is, starting with its name", name.Name)
			}
		}
	}
	for _, decl := range f.tree.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			if decl.Recv == nil || ast.IsExported(receiver(decl)) {
				need([]*ast.Ident{decl.Name}, decl.Doc)
			}
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				switch spec := spec.(type) {
				case *ast.ValueSpec:
					need(spec.Names, decl.Doc, spec.Doc, spec.Comment)
				case *ast.TypeSpec:
					doc := spec.Doc
					if !decl.Lparen.IsValid() {
						doc = decl.Doc
					}
					need([]*ast.Ident{spec.Name}, doc)
					if spec.Name.IsExported() {
						for _, field := range members(spec) {
							need(field.Names, field.Doc, field.Comment)
						}
					}
				}
			}
		}
	}
}

func says(comment *ast.CommentGroup) bool { return comment.Text() != "" }

// receiver returns the name of the type that fn is a method of.
func receiver(fn *ast.FuncDecl) string {
	var name string
	for _, field := range fn.Recv.List {
		ast.Inspect(field.Type, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && name == "" {
				name = id.Name // before any type parameter
			}
			return name == ""
		})
	}
	return name
}

// members returns the methods of an interface, or the fields of a config.
func members(spec *ast.TypeSpec) []*ast.Field {
	switch typ := spec.Type.(type) {
	case *ast.InterfaceType:
		return typ.Methods.List
	case *ast.StructType:
		if strings.HasSuffix(spec.Name.Name, "Config") {
			return typ.Fields.List
		}
	}
	return nil
}

func TestPackageComments(t *testing.T) {
	for dir, files := range load(t).packages() {
		if problem := packageComment(files); problem != "" {
			t.Errorf("%s: %s", dir, problem)
		}
	}
}

func TestPackageCommentRule(t *testing.T) {
	const (
		comment = "// Package x does it.\npackage x"
		bare    = "package x"
	)
	tests := []struct {
		name string
		srcs map[string]string
		ok   bool
	}{
		{"one", map[string]string{"a.go": comment, "b.go": bare, "c_test.go": "package x_test"}, true},
		{"none", map[string]string{"a.go": bare, "b.go": "//go:build linux\n\npackage x"}, false},
		{"two", map[string]string{"a.go": comment, "b.go": comment}, false},
		{"in a test", map[string]string{"a.go": bare, "b_test.go": comment}, false},
		{"another name", map[string]string{"a.go": "// Package y does it.\npackage x"}, false},
		{"detached", map[string]string{"a.go": "// Package x does it.\n\npackage x"}, false},
		{"command", map[string]string{"a.go": "// Command x does it.\npackage main"}, true},
		{"program", map[string]string{"a.go": "// Program x does it.\npackage main"}, true},
		{"package main", map[string]string{"a.go": "// Package main does it.\npackage main"}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var files []*file
			for name, src := range test.srcs {
				files = append(files, parse("x/"+name, src))
			}
			if problem := packageComment(files); (problem == "") != test.ok {
				t.Errorf("got %q, want a problem: %t", problem, !test.ok)
			}
		})
	}
}

// packageComment says what is wrong with the comment of the package made of files.
func packageComment(files []*file) string {
	var with []*file
	for _, f := range files {
		if !f.isTest() && f.tree.Doc.Text() != "" {
			with = append(with, f)
		}
	}
	switch len(with) {
	case 0:
		return "no package comment: write what the package is for above its package clause, in doc.go if need be"
	case 1:
		return commentStart(with[0])
	default:
		return "package comments in " + with[0].path + " and " + with[1].path + ": keep one"
	}
}

// commentStart says what is wrong with the first words of the package comment in f.
func commentStart(f *file) string {
	starts := []string{"Package " + f.tree.Name.Name}
	if f.tree.Name.Name == "main" {
		starts = []string{"Command", "Program"}
	}
	for _, start := range starts {
		if strings.HasPrefix(f.tree.Doc.Text(), start+" ") {
			return ""
		}
	}
	return "start the package comment in " + f.path + " with " + strings.Join(starts, " or ")
}

func TestDocuments(t *testing.T) {
	for name, what := range map[string]string{
		"README.md":            "what the project is, how to install, use and test it",
		"CHANGELOG.md":         "what changed for its users, by package",
		"docs/architecture.md": "the packages, who may import whom, how a call travels",
	} {
		if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(name))); err != nil {
			t.Errorf("%s is missing: write it, it says %s", name, what)
		}
	}
}

func TestMarkdownLinks(t *testing.T) {
	for _, name := range load(t).markdown {
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range relativeLinks(string(text)) {
			to := path.Join(path.Dir(name), target)
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(to))); err != nil || !filepath.IsLocal(to) {
				t.Errorf("%s links to %s, which is not a file of the repository: correct the link, from the folder of %[1]s", name, target)
			}
		}
	}
}

func TestRelativeLinks(t *testing.T) {
	for text, want := range map[string][]string{
		"[a](a.md) and ![b](img/b.png \"B\")":  {"a.md", "img/b.png"},
		"[part](a.md#part), [space](a%20b.md)": {"a.md", "a b.md"},
		"[![badge](b.svg)](../c.md)":           {"b.svg", "../c.md"},
		"[a]\n\n[a]: a.md\n":                   {"a.md"},
		"[here](#here)":                        nil,
		"[web](https://example.com/x.md)":      nil,
		"[mail](mailto:a@example.com)":         nil,
		"`m[K](v.md)`":                         nil,
		"```go\nm[K](v.md)\n```\n[a](a.md)":    {"a.md"},
	} {
		if got := relativeLinks(text); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q, in %s", got, want, text)
		}
	}
}

var (
	code = regexp.MustCompile("(?ms)^[ \t]*```.*?^[ \t]*```|`[^`\n]*`")
	link = regexp.MustCompile(`(?m)\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)|^\[[^\]]+\]:\s+(\S+)`)
)

// relativeLinks returns the files that a Markdown text links to by a relative path.
func relativeLinks(text string) []string {
	var files []string
	for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(text, ""), -1) {
		target, err := url.Parse(m[1] + m[2])
		switch {
		case err != nil:
			files = append(files, m[1]+m[2]) // no file has such a name: let it be reported
		case target.Scheme == "" && target.Host == "" && target.Path != "":
			files = append(files, target.Path)
		}
	}
	return files
}

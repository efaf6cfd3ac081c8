package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/seed84f35039/multiproc/internal/child"
)

// env is what contenders find when their turn comes.
type env struct {
	quick bool
	dir   string // temporary, for files and what is compiled

	limits    tool // limits/limits.c
	cChild    tool // limits/child.c
	empty     tool // limits/empty
	firstByte tool // limits/firstbyte
	small     tool // small
	waits     tool // waits
	python    tool // peers/peer.py
	clustered tool // clustered
	goPlugin  tool // peers/goplugin
	engine    tool // peers/engine
	asynq     tool // peers/asynq

	versions map[string]string // of what was found of the peers; a Python package is missing if it is not here
	setup    string            // the command that installs the peers
}

// pick returns how much there is to do.
func (e *env) pick(full, quick int) int {
	if e.quick {
		return quick
	}
	return full
}

// A tool is a program that contenders need.
type tool struct {
	argv []string // the program and its first arguments; empty when it is missing
	why  string   // it is missing, and how to get it
}

// path returns the program's file.
func (t tool) path() (string, error) {
	if len(t.argv) == 0 {
		return "", missing(t.why)
	}
	return t.argv[0], nil
}

// output runs the program and returns what it prints. When ctx ends it is killed, with all that it
// started.
func (t tool) output(ctx context.Context, dir string, args ...string) ([]byte, error) {
	path, err := t.path()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	ended, err := child.Run(ctx, child.Config{
		Path:   path,
		Args:   append(t.argv[:len(t.argv):len(t.argv)], args...),
		Env:    os.Environ(),
		Dir:    dir,
		Stdout: &out,
		Tail:   4 << 10,
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case ended.Err != nil:
		return nil, fmt.Errorf("%s: %w", path, ended.Err)
	case !ended.State.Success():
		return nil, fmt.Errorf("%s %s: %v: %s", path, strings.Join(args, " "), ended.State, strings.TrimSpace(ended.Tail))
	}
	return out.Bytes(), nil
}

// run runs the program and puts the JSON object that it prints into v.
func (t tool) run(ctx context.Context, v any, args ...string) error {
	out, err := t.output(ctx, "", args...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, v); err != nil {
		return fmt.Errorf("%s %s: what it printed: %w", t.argv[0], strings.Join(args, " "), err)
	}
	return nil
}

// figures runs the program and returns what it measured.
func (t tool) figures(ctx context.Context, args ...string) (figures, error) {
	var f figures
	err := t.run(ctx, &f, args...)
	return f, err
}

// external returns a contender that is a program: it is told what to do and how much of it, and
// prints its figures.
func external(name string, g group, of func(*env) tool, what string, full, quick int, more ...string) contender {
	return contender{name: name, group: g, measure: func(ctx context.Context, e *env) (figures, error) {
		return of(e).figures(ctx, append([]string{what, strconv.Itoa(e.pick(full, quick))}, more...)...)
	}}
}

// small returns a contender of bench/small, which is ours.
func small(name, what string, full, quick int) contender {
	return external(name, ours, func(e *env) tool { return e.small }, what, full, quick)
}

// python returns a contender of peers/peer.py that needs nothing but Python.
func python(name, what string, full, quick int, more ...string) contender {
	return external("Python "+name, peer, func(e *env) tool { return e.python }, what, full, quick, more...)
}

// pythonPackage returns a contender of peers/peer.py that needs a package.
func pythonPackage(pkg, name, what string, full, quick int, more ...string) contender {
	return external(pkg+" "+name, peer, func(e *env) tool {
		if e.python.why == "" && e.versions[pkg] == "" {
			return tool{why: pkg + " is not installed; " + e.setup + " does it"}
		}
		return e.python
	}, what, full, quick, more...)
}

// goPlugin returns a contender of peers/goplugin. The protocol is netrpc or grpc.
func goPlugin(protocol, name, what string, full, quick int) contender {
	title := map[string]string{"netrpc": "go-plugin net/rpc", "grpc": "go-plugin gRPC"}[protocol]
	if name != "" {
		title += ", " + name
	}
	return external(title, peer, func(e *env) tool { return e.goPlugin }, what, full, quick, protocol)
}

// clustered returns a contender of bench/clustered, which is ours.
func clustered(name, what string, full, quick int, more ...string) contender {
	return external(name, ours, func(e *env) tool { return e.clustered }, what, full, quick, more...)
}

// jetStream begins the names of the limits of clusters.
const jetStream = "JetStream "

// engine returns a contender of peers/engine: what package cluster is built on, by itself.
func engine(name, what string, full, quick int, more ...string) contender {
	return external(jetStream+name, limit, func(e *env) tool { return e.engine }, what, full, quick, more...)
}

// limitOf returns a contender of limits/limits.c.
func limitOf(name, what string, full, quick int, more ...string) contender {
	return external(name, limit, func(e *env) tool { return e.limits }, what, full, quick, more...)
}

// find builds the limits and looks for the peers. root is the folder of the repository, peers the one
// in which peers/setup has put what it made. Only what it says of ctx and of the repository is an
// error: the rest is missing.
func find(ctx context.Context, root, dir, peers string, quick bool) (*env, error) {
	e := &env{quick: quick, dir: dir, versions: map[string]string{}, setup: "bench/peers/setup " + peers}
	folder := filepath.Join(root, "bench", "limits")
	for _, c := range []struct {
		to     *tool
		source string
		flags  []string
	}{
		{&e.limits, "limits.c", []string{"-O2"}},
		{&e.cChild, "child.c", []string{"-O2", "-static"}},
	} {
		*c.to = compile(ctx, filepath.Join(folder, c.source), dir, c.flags)
	}
	for to, name := range map[*tool]string{&e.empty: "limits/empty", &e.firstByte: "limits/firstbyte", &e.small: "small", &e.waits: "waits", &e.clustered: "clustered"} {
		built := filepath.Join(dir, filepath.Base(name))
		_, err := program("go").output(ctx, root, "build", "-tags=netgo", "-o", built, "./bench/"+name) // netgo: the C library is not to be loaded with package net
		if err != nil {
			return nil, fmt.Errorf("build bench/%s: %w", name, err)
		}
		to.argv = []string{built}
	}

	e.python = firstOf(filepath.Join(peers, "venv", "bin", "python"), "python3")
	if e.python.why == "" {
		e.python.argv = append(e.python.argv, "-B", filepath.Join(root, "bench", "peers", "peer.py"))
		if err := e.python.run(ctx, &e.versions, "versions"); err != nil {
			e.python = tool{why: err.Error()}
		}
	}
	for to, name := range map[*tool]string{&e.goPlugin: "goplugin", &e.engine: "engine", &e.asynq: "asynq"} {
		*to = firstOf(filepath.Join(peers, "bin", name))
		if to.why != "" {
			to.why = "not built; " + e.setup + " does it"
		} else if err := to.run(ctx, &e.versions, "versions"); err != nil {
			*to = tool{why: err.Error()}
		}
	}
	return e, ctx.Err()
}

// compile builds a C program.
func compile(ctx context.Context, source, dir string, flags []string) tool {
	built := filepath.Join(dir, strings.TrimSuffix(filepath.Base(source), ".c"))
	args := append(flags, "-Wall", "-o", built, source)
	if _, err := program("gcc").output(ctx, "", args...); err != nil {
		return tool{why: fmt.Sprintf("%s does not compile here: %v", filepath.Base(source), err)}
	}
	return tool{argv: []string{built}}
}

// program finds a program on the PATH, as a shell does.
func program(name string) tool {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if path := filepath.Join(dir, name); filepath.IsAbs(dir) && executable(path) {
			return tool{argv: []string{path}}
		}
	}
	return tool{why: name + " is not on the PATH"}
}

// firstOf returns the first of some programs that is there: a path, or a name to look for.
func firstOf(names ...string) tool {
	t := tool{why: "none of " + strings.Join(names, ", ") + " is there"}
	for _, name := range names {
		if !filepath.IsAbs(name) {
			t = program(name)
		} else if executable(name) {
			t = tool{argv: []string{name}}
		}
		if t.why == "" {
			break
		}
	}
	return t
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

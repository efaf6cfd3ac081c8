package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/seed84f35039/multiproc/internal/child"
	"github.com/seed84f35039/multiproc/scale"
)

// pythonSequential is the kind that the other ones of Python are compared with, and begin with.
const pythonSequential = "python"

// peer does the same workloads in Python.
//
//go:embed peer.py
var peer []byte

// python is a Python interpreter.
type python struct {
	path    string
	script  string // file with peer; see install
	version string
}

// install writes the script into dir, and asks for the version.
func (py *python) install(ctx context.Context, dir string) error {
	py.script = filepath.Join(dir, "peer.py") // a file, as Python's processes may have to read it too
	if err := os.WriteFile(py.script, peer, 0o600); err != nil {
		return err
	}
	out, err := py.output(ctx)
	py.version = strings.TrimSpace(string(out))
	return err
}

// run does the job in a new interpreter.
func (py *python) run(ctx context.Context, j job) (scale.Sample, error) {
	out, err := py.output(ctx, j.Kind, j.Workload, strconv.Itoa(j.Size), strconv.Itoa(j.Workers), j.Dir)
	if err != nil {
		return scale.Sample{}, err
	}
	var cost struct {
		Real       float64 `json:"real_seconds"`
		User       float64 `json:"user_seconds"`
		Sys        float64 `json:"sys_seconds"`
		PeakMemory int64   `json:"peak_memory_bytes"`
		Done       int     `json:"done"`
	}
	if err := json.Unmarshal(out, &cost); err != nil {
		return scale.Sample{}, fmt.Errorf("what Python printed: %w", err)
	}
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	return scale.Sample{
		Real: seconds(cost.Real), User: seconds(cost.User), Sys: seconds(cost.Sys), PeakMemory: cost.PeakMemory,
	}, enough(cost.Done, j.Size)
}

// output runs the script and returns what it prints. When ctx ends it is killed, with all that it
// started.
func (py *python) output(ctx context.Context, args ...string) ([]byte, error) {
	var out bytes.Buffer
	ended, err := child.Run(ctx, child.Config{
		Path:   py.path,
		Args:   append([]string{py.path, "-B", py.script}, args...),
		Env:    os.Environ(),
		Stdout: &out,
		Tail:   4 << 10,
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", py.path, err)
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case ended.Err != nil:
		return nil, fmt.Errorf("%s: %w", py.path, ended.Err)
	case !ended.State.Success():
		lines := strings.Split(strings.TrimSpace(ended.Tail), "\n")
		return nil, fmt.Errorf("%s: %v: %s", py.path, ended.State, lines[len(lines)-1])
	}
	return out.Bytes(), nil
}

// lookPath finds a program on the PATH, as a shell does; folders that depend on where one is do not
// count.
func lookPath(program string) (string, error) {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); filepath.IsAbs(dir) && err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s %w", program, errNotOnPath)
}

var errNotOnPath = errors.New("is not on the PATH")

package examples_test

import (
	"bytes"
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A program is what is known of an example.
type program struct {
	args []string // small sizes
	want []string // the lines of its output, as regular expressions
	bad  []string // arguments with which it fails
	says string   // the error that it then prints, as a regular expression
}

var programs = map[string]program{
	"threads": {
		args: []string{"-jobs", "3", "-count", "1000"},
		want: []string{`List processing complete\.`},
		bad:  []string{"-count", "-1"},
		says: `list_append: job \d: a list has no -1 numbers`,
	},
	"processes": {
		args: []string{"-jobs", "3", "-count", "1000"},
		want: []string{`List processing complete\.`},
		bad:  []string{"-count", "-1"},
		says: `list_append \(pid \d+\): job \d: a list has no -1 numbers`,
	},
	"files-process": {
		args: []string{"-files", "3"},
		want: []string{`Time taken \d+\.\d{4} seconds`, `3 files written`},
	},
	"files-pool": {
		args: []string{"-files", "20", "-workers", "2"},
		want: []string{`Time taken \d+\.\d{4} seconds`, `20 files written`},
		bad:  []string{"-workers", "-1"},
		says: `write: PoolConfig: Workers\b.*-1.*`,
	},
	"io-concurrency": {
		args: []string{"-texts", "8", "-wait", "1ms"},
		want: []string{
			`a process for each +8 texts in \d+\.\d{4} seconds, 1\.00× as fast`,
			`pool +8 texts in \d+\.\d{4} seconds, \d+\.\d\d× as fast`,
			`pool, Concurrency 16 +8 texts in \d+\.\d{4} seconds, \d+\.\d\d× as fast`,
			`threads +8 texts in \d+\.\d{4} seconds, \d+\.\d\d× as fast`,
		},
	},
	"cluster": {
		args: []string{"-to", "100000", "-parts", "8"},
		want: []string{`9592 primes below 100000`, `calls: 8, processes: \d+, machines: 1, seconds: \d+\.\d{4}`},
		bad:  []string{"-parts", "0"},
		says: `-parts is 0, want at least 1`,
	},
	"isolation": {
		want: []string{
			`result #0: first`,
			`result #2: second`,
			`result #5: third`,
			`result #9: fourth`,
			`panic  #1: nil pointer: runtime error: invalid memory address or nil pointer dereference`,
			`crash  #3: kill: signal 9, exit code -1, reason ""`,
			`crash  #4: segmentation violation: signal 0, exit code 2, reason "SIGSEGV: segmentation violation"`,
			`crash  #6: exit: signal 0, exit code 3, reason ""`,
			`crash  #7: stack overflow: signal 0, exit code 2, reason "fatal error: stack overflow"`,
			`crash  #8: map: signal 0, exit code 2, reason "fatal error: concurrent map .*"`,
			`error  #10: error: cannot do that`,
			`\[still at work\] <nil>`,
		},
	},
}

// folders returns the folders that hold Go files.
func folders(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, name := range files {
		dirs = append(dirs, filepath.Dir(name))
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

func TestEveryExampleIsTested(t *testing.T) {
	if got, want := folders(t), slices.Sorted(maps.Keys(programs)); !slices.Equal(got, want) {
		t.Errorf("the folders are %q, the programs tested %q: every example has an entry, and every entry an example", got, want)
	}
}

// TestInitComesFirst reads the examples as their readers do, who copy what they see.
func TestInitComesFirst(t *testing.T) {
	for _, dir := range folders(t) {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, "main.go"), nil, parser.ParseComments)
		if err != nil {
			t.Error(err)
			continue
		}
		if want := "Command " + dir + " "; !strings.HasPrefix(file.Doc.Text(), want) {
			t.Errorf("%s: the package comment does not begin with %q", dir, want)
		}
		if want := "go run ./examples/" + dir; !strings.Contains(file.Doc.Text(), want) {
			t.Errorf("%s: the package comment does not say %q", dir, want)
		}
		if !initFirst(file) {
			t.Errorf("%s: multiproc.Init() is not the first statement of main", dir)
		}
	}
}

func initFirst(file *ast.File) bool {
	for _, decl := range file.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || fn.Name.Name != "main" || len(fn.Body.List) == 0 {
			continue
		}
		stmt, ok := fn.Body.List[0].(*ast.ExprStmt)
		if !ok {
			return false
		}
		call, ok := stmt.X.(*ast.CallExpr)
		if !ok {
			return false
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		x, ok := sel.X.(*ast.Ident)
		return ok && x.Name == "multiproc" && sel.Sel.Name == "Init"
	}
	return false
}

func TestExamples(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("worker processes need Linux or another Unix")
	}
	bin, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin+string(filepath.Separator), "./...")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	for name, p := range programs {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(bin, name)
			stdout, stderr, code := run(t, path, p.args)
			if code != 0 || stderr != "" {
				t.Errorf("exit code %d, standard error:\n%s", code, stderr)
			}
			checkLines(t, stdout, p.want)
			if p.bad == nil {
				return
			}
			stdout, stderr, code = run(t, path, p.bad)
			if code != 1 || stdout != "" {
				t.Errorf("%q: exit code %d, output:\n%s", p.bad, code, stdout)
			}
			checkLines(t, stderr, []string{`[0-9/]+ [0-9:]+ ` + p.says})
		})
	}
}

// run runs a program to its end, and checks that it leaves no process and no file.
func run(t *testing.T, path string, args []string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tmp := t.TempDir()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	// The workers hold its output open, so that Run waits for their end as well: those of a program
	// that fails are killed when it has ended.
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Errorf("%v: %v", cmd, err)
	}
	if ctx.Err() != nil {
		t.Errorf("%v did not end within a minute", cmd)
	}
	if pids := running(t, path); len(pids) > 0 {
		t.Errorf("%v left the processes %v", cmd, pids)
	}
	left, err := os.ReadDir(tmp)
	if err != nil {
		t.Error(err)
	}
	for _, entry := range left {
		t.Errorf("%v left the file %s", cmd, entry.Name())
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// checkLines compares text with regular expressions, line by line.
func checkLines(t *testing.T, text string, want []string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) != len(want) {
		t.Errorf("%d lines, want %d:\n%s", len(lines), len(want), text)
		return
	}
	for i, line := range lines {
		if !regexp.MustCompile(`^(?:` + want[i] + `)$`).MatchString(line) {
			t.Errorf("line %d is %q, want %q", i+1, line, want[i])
		}
	}
}

// running returns the processes that run the program at path.
func running(t *testing.T, path string) (pids []int) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return nil // what a process runs can be read in /proc alone
	}
	procs, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, proc := range procs {
		exe, err := os.Readlink(proc)
		if err != nil || exe != path {
			continue // another's, or ended
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(proc))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestRunning has running find a process that is there: this one.
func TestRunning(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("what a process runs can be read in /proc alone")
	}
	self, err := filepath.EvalSymlinks("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(running(t, self), os.Getpid()) {
		t.Errorf("did not find this process, %d, which runs %s", os.Getpid(), self)
	}
}

// Command multiproc is the command of this module: its subcommand run runs a command for each input,
// pool hands lines to persistent workers of any language, scale measures how a workload
// scales on threads, on processes and on a pool of worker processes, and key makes keys and
// signs programs for clusters, of which agent runs the calls, server carries the messages, and setup
// makes what they need.
//
//	multiproc run --help
//	multiproc pool --help
//	multiproc scale --help
//	multiproc key --help
//	multiproc agent --help
//	multiproc server --help
//	multiproc setup --help
//
// It exits with 0, with 1 after a failure, with 2 when the command line is wrong, and with 128 and
// the number of the signal when SIGINT, SIGTERM or SIGHUP ended it. The exit codes of run and pool tell how
// many jobs or records have failed, and 255 stands for everything else.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed84f35039/multiproc"
)

func main() {
	multiproc.Init()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run runs the command and returns its exit code.
func run(args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "multiproc",
		Short: "Run one function on threads, on processes, on a pool of worker processes or on many machines",
		Long: "Multiproc is a Go library that runs one function on threads, on processes, on a pool\n" +
			"of worker processes or on many machines. This command does the same with commands and with workers\n" +
			"of any language, measures what each of them is good for,\n" +
			"runs the agents and servers of clusters, and keeps the keys with which their programs are signed.",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(runCommandLine(), poolCommandLine(), scaleCommand(), keyCommand(), agentCommand(), serverCommand(), setupCommand())
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteC()
	if err == nil {
		return 0
	}
	var f *failure
	if !errors.As(err, &f) { // cobra found it, before anything was run
		f = &failure{code: codeUsage, err: err}
	}
	if f.hint == "" && f.code == codeUsage {
		f.hint = fmt.Sprintf("%s --help tells what there is", cmd.CommandPath())
	}
	f.print(stderr)
	return f.code
}

// The exit codes, besides those of signals.
const (
	codeFailure = 1
	codeUsage   = 2
)

// A failure is how the command ends when it does not end well.
type failure struct {
	code int
	err  error  // several joined errors are printed one by one; nil: the code says it all
	hint string // what to do about it; may be empty
}

func (f *failure) Error() string {
	if f.err == nil {
		return fmt.Sprintf("exit code %d", f.code)
	}
	return f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

func (f *failure) print(w io.Writer) {
	if f.err == nil {
		return
	}
	for _, err := range parts(f.err) {
		fmt.Fprintf(w, "error: %v\n", err)
	}
	if f.hint != "" {
		fmt.Fprintf(w, "hint: %s\n", f.hint)
	}
}

// parts returns the errors that err was joined of, or err.
func parts(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var texts []string
	for _, err := range joined.Unwrap() {
		texts = append(texts, err.Error())
	}
	if err.Error() != strings.Join(texts, "\n") { // it says more than they do
		return []error{err}
	}
	return joined.Unwrap()
}

// version is the version of the module, as the go command noted it when it built the program.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed84f35039/multiproc/cmd/multiproc/internal/jobs"
)

const runHelp = `Run a command for each input, several at a time, as xargs -P and GNU parallel do, on this machine or on the agents
of a cluster.

Inputs are the lines of standard input, or of files (-a, ::::), or what stands behind :::. Several sources make all
combinations, the last one fastest. Flags stand before the command; all behind its first word belongs to it.

In the command these are replaced; where there is none, the inputs are appended:
  {}    the input                          {#}   number of the job, from 1 on
  {.}   without its extension              {%}   number of the slot that it runs in, not on a cluster
  {/}   last element of its path           {2}   the second input of the job, {-1} the last one;
  {//}  its directory                            also {2.} {2/} {2//} {2/.}
  {/.}  last element without extension

Several words are a program with its arguments, and no shell is involved. A single word with blanks or other special
characters is a text for sh. Inputs never become a part of that: they are passed beside it, and take the place of {} as
"$1" would, within quotes or outside, whatever is in them. Without a command each input is a text for sh.

The output of a job is written when it has ended, in one piece: nothing is mixed. Each job is a process group with
nothing on standard input. At its end whatever is left of the group is killed; when multiproc is killed itself, Linux
kills them all. Jobs have MP_SEQ (number of the job), MP_TRY and, on this machine, MP_SLOT in their environment.

On a cluster (--nats) jobs run on the agents, in their working directory, or in --dir there, and with their environment:
programs and files have to be there too. Agents run this program for that, so that they have to trust who has signed it: --key
FILE signs it, or once for all "multiproc key sign" with the path of multiproc itself.

SIGINT, SIGTERM or SIGHUP: no more jobs are started, those that run get SIGTERM, and SIGKILL after --grace. A second one
ends everything at once.

Exit code: 0 if all jobs have succeeded, 1 to 100 the number of those that have failed, 101 if there are more, 255 if it
was stopped, or for an error of its own; with --halt now,fail=N that of the last job that has failed.`

const runExample = `  multiproc run gzip -9 ::: *.log
  find . -name '*.flac' -print0 | multiproc run -0 ffmpeg -i {} {.}.opus
  multiproc run -j4 --tag 'grep -c {1} {2} | sort -n' ::: error warning :::: files.txt
  seq 100 | multiproc run -k --retries 3 --timeout 30s --joblog jobs.log curl -fsS https://example.org/{}
  seq 1000 | multiproc run --nats nats://10.0.0.1:4222 --key my.key /opt/simulate --seed {}`

// runFlags are the flags of run as they were given.
type runFlags struct {
	files                   []string
	delimiter               string
	null, link              bool
	maxArgs                 int
	jobs                    string
	shell, noShell          bool
	keep, tag, dryRun       bool
	jobsSet                 bool // by --jobs
	timeout, grace          string
	retries                 int
	halt, joblog, directory string
	cluster                 clusterFlags
}

func runCommandLine() *cobra.Command {
	var flags runFlags
	cmd := &cobra.Command{
		Use:     "run [flags] COMMAND [ARG...] [::: INPUT...] [:::: FILE...]",
		Short:   "Run a command for each input, several at a time, here or on a cluster",
		Long:    runHelp,
		Example: runExample,
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			flags.jobsSet = cmd.Flags().Changed("jobs")
			r, err := flags.plan(args, cmd.InOrStdin())
			if err != nil {
				return &failure{code: codeOwn, err: err, hint: "multiproc run --help tells what there is"}
			}
			r.stdout, r.stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
			defer r.close()
			return r.run(cmd.Context())
		},
	}
	ownUsageCode(cmd)
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.SortFlags = false
	f.StringArrayVarP(&flags.files, "arg-file", "a", nil, "file with inputs instead of standard input, which is -; may be given again")
	f.StringVarP(&flags.delimiter, "delimiter", "d", "", `what ends an input, such as , or \t (default the end of line)`)
	f.BoolVarP(&flags.null, "null", "0", false, "inputs end with a NUL byte, as those of find -print0 do")
	f.IntVarP(&flags.maxArgs, "max-args", "n", 1, "how many inputs a job gets, of a single source")
	f.BoolVar(&flags.link, "link", false, "take one input of each source, instead of all combinations")
	f.StringVarP(&flags.jobs, "jobs", "j", "100%", "how many jobs run at once: N, +N or -N (more or less than CPUs), N% of the CPUs,\n0 as many as possible; on a cluster how many are sent (default there: no bound)")
	f.BoolVarP(&flags.shell, "shell", "s", false, "the command is a text for sh, also if it has several words")
	f.BoolVar(&flags.noShell, "no-shell", false, "the command is a program, also if it is a single word with blanks")
	f.BoolVarP(&flags.keep, "keep-order", "k", false, "write the output in the order of the inputs")
	f.BoolVar(&flags.tag, "tag", false, "begin each line of output with the inputs and a tab")
	f.StringVar(&flags.timeout, "timeout", "", "end a job that takes longer, such as 30s, 1.5h or 90 (seconds); it has failed then")
	f.StringVar(&flags.grace, "grace", "5s", "how long a job that is to end has from SIGTERM to SIGKILL")
	f.IntVar(&flags.retries, "retries", 1, "how often a job is tried until it succeeds")
	f.StringVar(&flags.halt, "halt", "never", "when to start no more jobs: soon,fail=N after N have failed, now,fail=N to end those\nthat run as well; also success=N and done=N")
	f.StringVar(&flags.joblog, "joblog", "", "file for a log of the jobs that have ended, as GNU parallel writes it")
	f.StringVar(&flags.directory, "dir", "", "working directory of the jobs")
	f.BoolVar(&flags.dryRun, "dry-run", false, "print the commands and run none")
	flags.cluster.add(f)
	return cmd
}

// codeOwn is the exit code of commands whose exit codes tell how many jobs have failed, for everything else.
const codeOwn = 255

// ownUsageCode has a command end with codeOwn when its flags are wrong.
func ownUsageCode(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &failure{codeOwn, err, cmd.CommandPath() + " --help tells what there is"}
	})
}

// maxJobs is how many jobs run at once at most, each of which needs some descriptors.
const (
	maxJobs       = 4096
	filesPerJob   = 8
	filesPerOwner = 64
)

// jobLimit returns how many jobs can run at once on this machine.
func jobLimit() int {
	if files := filesLimit(); files > 0 {
		return max(1, min(maxJobs, (files-filesPerOwner)/filesPerJob))
	}
	return maxJobs
}

// plan checks the flags and the arguments, tells everything that is wrong with them, and opens files.
func (f *runFlags) plan(args []string, stdin io.Reader) (r *runner, err error) {
	r = &runner{flags: f}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	var errs []error
	fault := func(name string, err error) {
		if err != nil && name != "" {
			err = fmt.Errorf("%s: %w", name, err)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	open := func(name string) (io.Reader, error) {
		if name == "-" {
			return stdin, nil
		}
		file, err := os.Open(name)
		if err == nil {
			r.files = append(r.files, file)
		}
		return file, err
	}
	words, behind, err := jobs.Split(args, open)
	fault("", err)
	in := &r.inputs
	for _, name := range f.files {
		source, err := open(name)
		fault("--arg-file", err)
		in.Sources = append(in.Sources, jobs.Source{Reader: source, Name: name})
	}
	in.Sources = append(in.Sources, behind...)
	if len(in.Sources) == 0 {
		in.Sources = []jobs.Source{{Reader: stdin, Name: "standard input"}}
	}
	in.Link, in.MaxArgs = f.link, f.maxArgs
	switch {
	case f.null && f.delimiter != "":
		fault("", errors.New("give --null or --delimiter, not both"))
	case f.null:
		in.Delimiter = "\x00"
	case f.delimiter != "":
		in.Delimiter, err = jobs.ParseDelimiter(f.delimiter)
		fault("--delimiter", err)
	}
	if f.maxArgs < 1 {
		fault("", fmt.Errorf("--max-args is %d, want at least 1", f.maxArgs))
	} else if f.maxArgs > 1 && len(in.Sources) > 1 {
		fault("", fmt.Errorf("--max-args needs a single source of inputs, and there are %d", len(in.Sources)))
	}
	if f.retries < 1 {
		fault("", fmt.Errorf("--retries is %d, want at least 1, which is to try once", f.retries))
	}
	r.template, err = f.template(words)
	fault("", err)
	if r.template != nil && r.template.NeedsSlot() && !f.cluster.local() {
		fault("", errors.New("the command has {%}, but on a cluster there are no slots to be numbered"))
	}
	if f.directory != "" && f.cluster.local() {
		fault("--dir", checkDir(f.directory))
	}
	r.timeout, err = parseSeconds(f.timeout)
	fault("--timeout", err)
	r.grace, err = parseSeconds(f.grace)
	fault("--grace", err)
	r.halt, err = jobs.ParseHalt(f.halt)
	fault("--halt", err)
	r.brake = newBrake(r.halt)
	r.jobs, err = jobs.ParseJobs(f.jobs, runtime.GOMAXPROCS(0), jobLimit())
	fault("--jobs", err)
	return r, errors.Join(errs...)
}

// template returns what jobs are made of; nil: of the inputs themselves.
func (f *runFlags) template(words []string) (*jobs.Template, error) {
	switch {
	case f.shell && f.noShell:
		return nil, errors.New("give --shell or --no-shell, not both")
	case len(words) == 0 && f.noShell:
		return nil, errors.New("there is no command")
	case len(words) == 0:
		return nil, nil
	case f.shell || !f.noShell && len(words) == 1 && jobs.NeedsShell(words[0]):
		return jobs.Shell(strings.Join(words, " "))
	}
	return jobs.Words(words)
}

// parseSeconds parses a duration as Go writes it, or a number of seconds.
func parseSeconds(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if seconds, errSeconds := strconv.ParseFloat(text, 64); errSeconds == nil {
		d, err = time.Duration(seconds*float64(time.Second)), nil
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no time such as 30s, 1.5h or 90 (seconds)", text)
	}
	return d, nil
}

// tagged writes lines that begin with a tag.
type tagged struct {
	w     *bufio.Writer
	tag   string
	begun bool // a line
}

func (t *tagged) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		if !t.begun {
			t.w.WriteString(t.tag)
		}
		t.w.WriteString(line)
		t.begun = !strings.HasSuffix(line, "\n")
	}
	return len(p), t.w.Flush()
}

// Command bench measures this module, its peers and what the machine can do at best, interleaved in one
// run, and writes docs/performance.md.
//
//	go run ./bench                      everything: about a quarter of an hour
//	go run ./bench --quick              small sizes, one round: does it all still work
//	go run ./bench --rows 'map|stream'  some rows only, printed and not written
//
// Every row is a job that each contender does in its own way: ours, plain Go, a peer, or a limit of the
// machine. In a round each contender has one turn, so that what disturbs the machine disturbs
// them alike; ratios are taken within a round. What is missing (a C compiler, Python, what
// bench/peers/setup installs) is reported, and the rest runs without it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/seed84f35039/multiproc"
)

func main() {
	multiproc.Init()
	roles := map[string]role{"stream-memory": streamMemory, "list-append": listAppendByHand}
	if len(os.Args) > 2 && roles[os.Args[1]] != nil {
		os.Exit(roles[os.Args[1]].play(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "bench: interrupted, nothing was written")
		os.Exit(130)
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	quick  bool
	rounds int
	rows   string
	out    string
	peers  string
}

// output is the file that a full run writes by itself.
const output = "docs/performance.md"

func parse(args []string) (options, error) {
	var o options
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.BoolVar(&o.quick, "quick", false, "small sizes and 1 round: checks that all works, and measures nothing worth keeping")
	flags.IntVar(&o.rounds, "rounds", 0, "how often each contender has its turn (default 5; 1 with --quick)")
	flags.StringVar(&o.rows, "rows", "", "only the rows whose names match this regular expression")
	flags.StringVar(&o.out, "out", "", "file for the report, which replaces what is between its marks\n(default "+output+", but with --quick or --rows: none)")
	flags.StringVar(&o.peers, "peers", filepath.Join(cache, "multiproc-peers"), "folder in which bench/peers/setup has installed the peers")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.rounds < 0 {
		return o, fmt.Errorf("--rounds %d: must not be negative", o.rounds)
	}
	if o.rounds == 0 {
		o.rounds = 5
		if o.quick {
			o.rounds = 1
		}
	}
	return o, nil
}

// choose returns the rows whose names match.
func choose(all []row, pattern string) ([]row, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("--rows: %w", err)
	}
	var chosen []row
	var names []string
	for _, r := range all {
		names = append(names, r.name)
		if re.MatchString(r.name) {
			chosen = append(chosen, r)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("--rows %s: none of the rows matches: %s", pattern, strings.Join(names, ", "))
	}
	return chosen, nil
}

// run measures and writes the report. The error is also about contenders that failed.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	chosen, err := choose(rows(), o.rows)
	if err != nil {
		return err
	}
	root, err := repository(ctx)
	if err != nil {
		return err
	}
	if o.out == "" && !o.quick && o.rows == "" {
		o.out = filepath.Join(root, filepath.FromSlash(output))
	}
	if text, err := os.ReadFile(o.out); err == nil { // better to know now than after a quarter of an hour
		if _, err := splice(string(text), ""); err != nil {
			return fmt.Errorf("%s: %w", o.out, err)
		}
	}
	dir, err := os.MkdirTemp("", "multiproc-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	e, err := find(ctx, root, dir, o.peers, o.quick)
	if err != nil {
		return err
	}
	facts := append(describe(ctx, e, root), fact{"rounds", fmt.Sprint(o.rounds)})
	if o.quick {
		facts = append(facts, fact{"sizes", "small: the goals are not meant for them"})
	}
	fmt.Fprintf(stdout, "%s\n", factsTable(facts))

	began, before := time.Now(), readCPUTimes()
	var sections []string
	var broken error
	for _, r := range chosen {
		res, err := r.run(ctx, e, o.rounds, stdout)
		if err != nil {
			return err
		}
		section := res.markdown()
		fmt.Fprintf(stdout, "\n%s\n", section)
		sections = append(sections, section)
		broken = errors.Join(broken, res.broken())
	}
	facts = append(facts, fact{"took", time.Since(began).Round(time.Second).String()}, fact{"CPU time stolen meanwhile", stolenSince(before)})
	if broken == nil && o.out != "" {
		broken = update(o.out, factsTable(facts)+"\n"+strings.Join(sections, "\n"))
	}
	return broken
}

// repository returns the folder of the module's sources, which the limits and the peers are built from.
func repository(ctx context.Context) (string, error) {
	out, err := program("go").output(ctx, "", "list", "-m", "-f", "{{.Dir}}", "github.com/seed84f35039/multiproc")
	if err != nil {
		return "", fmt.Errorf("where the sources are (run this within the repository): %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

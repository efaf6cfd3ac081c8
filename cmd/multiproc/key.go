package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed84f35039/multiproc/cluster"
)

const keyHelp = `Make keys, sign programs, and say whose programs may run on this machine.

On other machines of a cluster, agents run programs that are sent to them. They run only what was signed
with a key that they trust. A key has two parts: the private one signs and is for its owner alone; the public one,
which starts with mpk1, tells others who has signed.`

const keyExample = `  multiproc key new                          # once, where programs are built
  multiproc key sign --not-after 30d ./prog  # writes ./prog.mpsig
  multiproc key trust mpk1… Ann              # on each machine with an agent
  multiproc key list`

func keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "key",
		Short:   "Make keys, sign programs, and say whose programs may run",
		Long:    keyHelp,
		Example: keyExample,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(keyNewCommand(), keySignCommand(), keyTrustCommand(), keyListCommand())
	return cmd
}

// The files where there is no flag, as the help names them.
const (
	ownKeyHelp = "multiproc/key in the user's directory for configuration"
	trustHelp  = "multiproc/trusted_keys in the user's directory for configuration"
)

// ownKey returns the file with the user's private key.
func ownKey(flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", &failure{codeFailure, err, "name a file yourself, see --help"}
	}
	return filepath.Join(dir, "multiproc", "key"), nil
}

// trustFile returns the file with the keys that are trusted, which the flag of that name gives.
func trustFile(flag, name string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	path, err := cluster.DefaultTrustFile()
	if err != nil {
		return "", &failure{codeFailure, err, "name a file yourself with " + name}
	}
	return path, nil
}

func keyNewCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "new",
		Short: "Make a key: write the private part into a file, print the public one",
		Long: "Make a key. The private part is written into a file that only you can read. It never replaces a\n" +
			"file. The public part is printed.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := ownKey(out)
			if err != nil {
				return err
			}
			key, err := cluster.NewKey()
			if err == nil {
				err = key.WriteFile(path)
			}
			if errors.Is(err, fs.ErrExist) {
				return &failure{codeFailure, err, "there is a key already, which may be the one to use; another one needs another file: --out"}
			} else if err != nil {
				return &failure{code: codeFailure, err: err}
			}
			return printed(fmt.Fprintln(cmd.OutOrStdout(), key.Public()))
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "file for the private key (default "+ownKeyHelp+")")
	return cmd
}

func keySignCommand() *cobra.Command {
	var keyFile, notAfter string
	cmd := &cobra.Command{
		Use:   "sign EXECUTABLE...",
		Short: "Sign programs, so that agents that trust the key run them",
		Long: "Sign programs. The signature is written into a file beside the executable, with .mpsig after its\n" +
			"name, and replaces the one that is there. A program may be one for another system. It needs to be\n" +
			"signed again when it was built again.",
		Example: "  multiproc key sign ./prog\n  multiproc key sign --key release.key --not-after 2031-12-31 prog-linux prog-darwin",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("no executable to sign")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			until, err := parseNotAfter(notAfter, time.Now())
			if err != nil {
				return &failure{code: codeUsage, err: err}
			}
			path, err := ownKey(keyFile)
			if err != nil {
				return err
			}
			key, err := cluster.ReadKey(path)
			if errors.Is(err, fs.ErrNotExist) {
				return &failure{codeFailure, err, "make a key with: multiproc key new"}
			} else if err != nil {
				return &failure{code: codeFailure, err: err}
			}
			var errs []error
			for _, exe := range args {
				err := sign(exe, key, until)
				if err == nil {
					err = printed(fmt.Fprintln(cmd.OutOrStdout(), exe+cluster.SignatureSuffix))
				}
				errs = append(errs, err)
			}
			if err := errors.Join(errs...); err != nil {
				return &failure{code: codeFailure, err: err}
			}
			return nil
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&keyFile, "key", "", "file with the private key (default "+ownKeyHelp+")")
	cmd.Flags().StringVar(&notAfter, "not-after", "", "when the signature ends: after a time such as 12h or 30d, or on a date such as\n2031-12-31, which it includes (UTC), or 2031-12-31T12:00:00Z (default never)")
	return cmd
}

// sign writes the signature of an executable.
func sign(exe string, key cluster.PrivateKey, until time.Time) error {
	p, err := cluster.ReadProgram(exe)
	if err != nil {
		return err
	}
	p.NotAfter = until
	s := cluster.Sign(p, key)
	if _, err := (cluster.Trust{key.Public(): ""}).Verify(s); err != nil { // as an agent will do
		return err
	}
	return cluster.WriteSignature(exe, s)
}

// parseNotAfter parses the flag --not-after: a time from now on, a day, which is meant to its end, or a moment.
func parseNotAfter(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	end, err := time.Parse(time.RFC3339, text)
	if day, errDay := time.Parse(time.DateOnly, text); errDay == nil {
		end, err = day.AddDate(0, 0, 1).Add(-time.Second), nil
	}
	if err != nil {
		var d time.Duration
		if d, err = parseDays(text); err != nil {
			return time.Time{}, fmt.Errorf("--not-after: %q is neither a time such as 12h or 30d nor a date such as 2031-12-31", text)
		}
		end = now.Add(d)
	}
	if !end.After(now) {
		return time.Time{}, fmt.Errorf("--not-after: %s has passed already", text)
	}
	return end, nil
}

// parseDays parses a duration, which may also be a number of days.
func parseDays(text string) (time.Duration, error) {
	days, ok := strings.CutSuffix(text, "d")
	if !ok {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseUint(days, 10, 16) // some 180 years
	return time.Duration(n) * 24 * time.Hour, err
}

func keyTrustCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "trust PUBLICKEY [COMMENT...]",
		Short: "Have agents on this machine run what a key has signed",
		Long: "Trust a key: agents on this machine run what it has signed, that is, anything its owner likes. The key is\n" +
			"added to the file of trusted keys, unless it is there. To trust it no more, remove its line.",
		Example: "  multiproc key trust mpk1… Ann, laptop",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("no public key to trust")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := cluster.ParsePublicKey(args[0])
			if err != nil {
				return &failure{codeUsage, err, "want what multiproc key new has printed"}
			}
			path, err := trustFile(file, "--file")
			if err != nil {
				return err
			}
			added, err := cluster.AddTrust(path, key, strings.Join(args[1:], " "))
			if err != nil {
				return &failure{code: codeFailure, err: err}
			}
			what := "added to"
			if !added {
				what = "is already in"
			}
			return printed(fmt.Fprintln(cmd.OutOrStdout(), key, what, path))
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "file of trusted keys (default "+trustHelp+")")
	return cmd
}

func keyListCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the keys that are trusted",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := trustFile(file, "--file")
			if err != nil {
				return err
			}
			trust, err := cluster.ReadTrust(path)
			if errors.Is(err, fs.ErrNotExist) {
				return &failure{codeFailure, err, "nobody is trusted here yet; trust a key with: multiproc key trust PUBLICKEY"}
			} else if err != nil {
				return &failure{code: codeFailure, err: err}
			}
			byComment := func(a, b cluster.PublicKey) int {
				return cmp.Or(cmp.Compare(trust[a], trust[b]), cmp.Compare(a.String(), b.String()))
			}
			for _, key := range slices.SortedFunc(maps.Keys(trust), byComment) {
				line := strings.TrimRight(key.String()+" "+trust[key], " ")
				if err := printed(fmt.Fprintln(cmd.OutOrStdout(), line)); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "file of trusted keys (default "+trustHelp+")")
	return cmd
}

// printed makes a failure of what could not be printed.
func printed(_ int, err error) error {
	if err != nil {
		return &failure{code: codeFailure, err: fmt.Errorf("print: %w", err)}
	}
	return nil
}

package scale

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// faults collects everything that is wrong, so that one error can list it.
type faults []string

func (f *faults) addf(format string, args ...any) {
	*f = append(*f, fmt.Sprintf(format, args...))
}

func (f faults) err() error {
	if len(f) == 0 {
		return nil
	}
	return errors.New("scale: " + strings.Join(f, "; "))
}

// text refuses what would break a line of the table, or command the terminal that shows it.
func (f *faults) text(what, s string) {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		f.addf("%s %q is not printable text on one line", what, s)
	}
}

// validate refuses options and cases that cannot be measured, naming every fault at once.
func validate(cases []Case, opts Options) error {
	var f faults
	if opts.Runs < 1 {
		f.addf("Runs is %d, want at least 1", opts.Runs)
	}
	if opts.Warmup < 0 {
		f.addf("Warmup is %d, want 0 or more", opts.Warmup)
	}
	f.text("Workload", opts.Workload)
	f.text("Size", opts.Size)
	if len(cases) == 0 {
		f.addf("no cases")
	}
	rows := make([]Row, len(cases))
	single := make(map[string]bool) // kinds with a case of 1 worker
	for i, c := range cases {
		rows[i] = c.row()
		single[c.Kind] = single[c.Kind] || c.Workers == 1
		if c.Run == nil {
			f.addf("case %d (%s) has no Run", i, rows[i].label())
		}
	}
	f.rows(rows)
	for i, c := range cases {
		if c.Baseline != "" && !single[c.Baseline] {
			f.addf("case %d (%s) has the baseline %q, of which no case has 1 worker",
				i, rows[i].label(), c.Baseline)
		}
	}
	return f.err()
}

// rows finds what is wrong with cases as such, measured already or not.
func (f *faults) rows(rows []Row) {
	type identity struct {
		kind    string
		workers int
	}
	seen := make(map[identity]int)
	baseline := make(map[string]string)
	for i, r := range rows {
		if r.Kind == "" {
			f.addf("case %d has no Kind", i)
		}
		f.text("Kind", r.Kind)
		if r.Workers < 1 {
			f.addf("case %d (%s) has %d Workers, want at least 1", i, r.Kind, r.Workers)
		}
		id := identity{r.Kind, r.Workers}
		if first, ok := seen[id]; ok {
			f.addf("cases %d and %d are both %s", first, i, r.label())
		} else {
			seen[id] = i
		}
		if other, ok := baseline[r.Kind]; ok && other != r.Baseline {
			f.addf("case %d (%s) has the baseline %q, others of its kind have %q",
				i, r.label(), r.Baseline, other)
		} else {
			baseline[r.Kind] = r.Baseline
		}
	}
}

// check refuses what no run can have cost.
func (s Sample) check() error {
	if s.Real < 0 || s.User < 0 || s.Sys < 0 || s.PeakMemory < 0 {
		return fmt.Errorf("negative cost in sample: real %v, user %v, sys %v, peak memory %d bytes",
			s.Real, s.User, s.Sys, s.PeakMemory)
	}
	return nil
}

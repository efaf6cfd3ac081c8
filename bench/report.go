package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"
)

// The report stands between these lines of a Markdown file; what is around them was written by hand
// and stays.
const (
	beginMark = "<!-- bench: begin; written by go run ./bench -->"
	endMark   = "<!-- bench: end -->"
)

// markdown returns a section for the row.
func (r *result) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "### `%s`: %s\n\n%s\n", r.row.name, r.row.title, r.row.about)
	for _, m := range r.row.metrics {
		if t := r.table(m); len(t) > 1 {
			b.WriteString("\n" + format(t, 1))
		}
	}
	if without := r.without(); without != "" {
		b.WriteString("\n" + without)
	}
	goals := [][]string{{"goal", "measured", "outcome"}}
	for _, g := range r.row.goals {
		v := r.judge(g)
		goals = append(goals, []string{g.text, v.measured, "**" + v.outcome + "**"})
	}
	b.WriteString("\n" + format(goals, 3))
	return b.String()
}

// table returns the lines for one metric. The last columns are ratios to the first contender of ours,
// and to the first limit, that have the metric.
func (r *result) table(m metric) [][]string {
	head := []string{m.title, "median", "min..max"}
	var bases []string
	for _, base := range []struct {
		g      group
		header string
	}{{ours, "÷ ours"}, {limit, "÷ limit"}} {
		if name := r.first(base.g, m); name != "" && !m.signed {
			head, bases = append(head, base.header), append(bases, name)
		}
	}
	lines := [][]string{head}
	for _, c := range r.row.contenders {
		s, ok := spreadOf(r.values(figure{c.name, m.key}))
		if !ok {
			continue
		}
		line := []string{c.title(), digits(s.median / m.unit), digits(s.min/m.unit) + ".." + digits(s.max/m.unit)}
		for _, base := range bases {
			line = append(line, r.ratio(c.name, base, m))
		}
		lines = append(lines, line)
	}
	return lines
}

// title returns the name with what the contender is to us.
func (c contender) title() string {
	switch c.group {
	case ours:
		return "**" + c.name + "**"
	case limit:
		return "limit: " + c.name
	default:
		return c.name
	}
}

// without tells which contenders there are no figures of, or fewer, and why: one line for each reason.
func (r *result) without() string {
	var reasons []string
	names := map[string][]string{}
	for _, c := range r.row.contenders {
		err := r.failed[c.name]
		if err == nil {
			continue
		}
		reason := "Failed (" + strings.Join(strings.Fields(err.Error()), " ") + ")"
		if m, ok := errors.AsType[missing](err); ok {
			reason = "Missing (" + m.Error() + ")"
		}
		if names[reason] == nil {
			reasons = append(reasons, reason)
		}
		names[reason] = append(names[reason], c.name)
	}
	var b strings.Builder
	for _, reason := range reasons {
		fmt.Fprintf(&b, "- %s: %s.\n", reason, strings.Join(names[reason], "; "))
	}
	return b.String()
}

// first returns the first contender of a group that has the metric.
func (r *result) first(g group, m metric) string {
	for _, c := range r.row.contenders {
		if c.group == g && len(r.values(figure{c.name, m.key})) > 0 {
			return c.name
		}
	}
	return ""
}

func (r *result) ratio(name, base string, m metric) string {
	s, ok := spreadOf(r.ratios(figure{name, m.key}, figure{base, m.key}))
	if !ok || name == base {
		return ""
	}
	return digits(s.median)
}

// format lays out a table, so that it can be read as it is: the first line is the head, and all columns
// but the first few are flush right.
func format(lines [][]string, left int) string {
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell), 3)
		}
	}
	var b strings.Builder
	for n, line := range lines {
		for i, cell := range line {
			space := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i < left {
				cell += space
			} else {
				cell = space + cell
			}
			b.WriteString("| " + cell + " ")
		}
		b.WriteString("|\n")
		if n > 0 {
			continue
		}
		for i, width := range widths {
			if i < left {
				b.WriteString("|" + strings.Repeat("-", width+2))
			} else {
				b.WriteString("|" + strings.Repeat("-", width+1) + ":")
			}
		}
		b.WriteString("|\n")
	}
	return b.String()
}

// factsTable returns what is known of the machine.
func factsTable(facts []fact) string {
	lines := [][]string{{"", ""}}
	for _, f := range facts {
		lines = append(lines, []string{f.name, f.value})
	}
	return format(lines, 2)
}

// splice returns text with the report between its marks. A text without any, such as an empty one, gets
// them at its end.
func splice(text, report string) (string, error) {
	report = beginMark + "\n\n" + strings.TrimSpace(report) + "\n\n" + endMark
	before, rest, begins := strings.Cut(text, beginMark)
	_, after, ends := strings.Cut(rest, endMark)
	switch {
	case begins && ends && !strings.Contains(after, beginMark):
		return before + report + after, nil
	case begins || strings.Contains(text, endMark):
		return "", fmt.Errorf("it must have one line %q and below it one line %q, or neither", beginMark, endMark)
	case strings.TrimSpace(text) == "":
		return report + "\n", nil
	default:
		return strings.TrimRight(text, "\n") + "\n\n" + report + "\n", nil
	}
}

// update puts the report into a file. It writes in place, so that the file may be a device.
func update(name, report string) error {
	text, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	spliced, err := splice(string(text), report)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return os.WriteFile(name, []byte(spliced), 0o644)
}

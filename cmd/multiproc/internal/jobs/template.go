package jobs

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// A Template makes the command of each job out of words with replacement strings. Inputs are never parsed as shell text:
// where a shell runs the command they are its positional parameters.
type Template struct {
	words [][]piece // of a command that is executed; nil: shell
	shell []span    // of a shell text
	slot  bool      // {%} is in it
}

// piece is a part of a word: text, or a replacement string.
type piece struct {
	text    string
	replace *replacement
}

// A replacement is a replacement string.
type replacement struct {
	which int    // input, from 1 on, or from the end if negative. 0: all of them
	how   string // what of it: "", ".", "/", "//", "/.", or "#" and "%" for number and slot
}

// SlotMark stands for the number of the slot in arguments: whoever runs the job replaces it. No argument can have it.
const SlotMark = "\x00"

// Job is what a template makes one command of.
type Job struct {
	Seq  int      // number, from 1 on
	Args []string // inputs
}

// Words returns the template of a command that is executed without a shell. Without a replacement string, the inputs are
// appended.
func Words(words []string) (*Template, error) {
	if len(words) == 0 {
		return nil, errors.New("there is no command")
	}
	t, replaced := &Template{}, false
	for _, word := range words {
		pieces := split(word)
		for _, p := range pieces {
			replaced = replaced || p.replace != nil
			t.slot = t.slot || p.replace != nil && p.replace.how == "%"
		}
		t.words = append(t.words, pieces)
	}
	if !replaced {
		t.words = append(t.words, []piece{{replace: &replacement{}}})
	}
	return t, nil
}

// NeedsSlot reports whether {%} is in the template.
func (t *Template) NeedsSlot() bool { return t.slot }

// split divides a text at its replacement strings.
func split(text string) (pieces []piece) {
	for from := 0; ; {
		open := strings.IndexByte(text[from:], '{')
		if open < 0 {
			break
		}
		open += from
		r, n := parseReplacement(text[open:])
		if n == 0 {
			from = open + 1
			continue
		}
		if open > 0 {
			pieces = append(pieces, piece{text: text[:open]})
		}
		pieces = append(pieces, piece{replace: &r})
		text, from = text[open+n:], 0
	}
	if text != "" || pieces == nil {
		pieces = append(pieces, piece{text: text})
	}
	return pieces
}

// parseReplacement parses a replacement string at the beginning of a text, and returns its length, or 0 if there is
// none.
func parseReplacement(text string) (r replacement, n int) {
	end := strings.IndexByte(text, '}')
	if end < 0 || text[0] != '{' {
		return r, 0
	}
	inner := text[1:end]
	digits := 0
	for digits < len(inner) && (inner[digits] >= '0' && inner[digits] <= '9' || digits == 0 && inner[0] == '-') {
		digits++
	}
	if digits > 0 {
		var err error
		if r.which, err = strconv.Atoi(inner[:digits]); err != nil || r.which == 0 {
			return replacement{}, 0
		}
	}
	switch r.how = inner[digits:]; r.how {
	case "", ".", "/", "//", "/.":
	case "#", "%":
		if digits > 0 {
			return replacement{}, 0
		}
	default:
		return replacement{}, 0
	}
	return r, end + 1
}

// of returns what the replacement string stands for: of all inputs if it says so.
func (r replacement) of(j Job) []string {
	switch {
	case r.how == "#":
		return []string{strconv.Itoa(j.Seq)}
	case r.how == "%":
		return []string{SlotMark}
	}
	args := j.Args
	if r.which != 0 {
		i := r.which - 1
		if r.which < 0 {
			i = len(args) + r.which
		}
		if i < 0 || i >= len(args) {
			return []string{""}
		}
		args = args[i : i+1]
	}
	if r.how == "" {
		return args
	}
	out := make([]string, len(args))
	for i, arg := range args {
		out[i] = part(arg, r.how)
	}
	return out
}

// part returns a part of a path, as GNU parallel does.
func part(arg, how string) string {
	dir, base := "", arg
	if i := strings.LastIndexByte(arg, '/'); i >= 0 {
		dir, base = arg[:i+1], arg[i+1:]
	}
	stem := base
	if i := strings.LastIndexByte(base, '.'); i >= 0 && (i > 0 || dir == "" && how == ".") {
		stem = base[:i]
	}
	switch how {
	case ".":
		return dir + stem
	case "/":
		return base
	case "//":
		return path.Dir(arg)
	default:
		return stem
	}
}

// Command returns the arguments of a job's command, the program first, and a text that shows it, which a shell would
// understand. The arguments have SlotMark in them if NeedsSlot.
func (t *Template) Command(j Job) (argv []string, shown string, err error) {
	if t.words == nil {
		return t.shellCommand(j)
	}
	for _, pieces := range t.words {
		if len(pieces) == 1 && pieces[0].replace != nil {
			argv = append(argv, pieces[0].replace.of(j)...)
			continue
		}
		var word strings.Builder
		for _, p := range pieces {
			if p.replace == nil {
				word.WriteString(p.text)
			} else {
				word.WriteString(strings.Join(p.replace.of(j), " "))
			}
		}
		argv = append(argv, word.String())
	}
	if len(argv) == 0 || argv[0] == "" {
		return nil, "", fmt.Errorf("job %d has no command: the input is empty", j.Seq)
	}
	return argv, Show(argv), nil
}

// Show returns arguments as a shell would understand them.
func Show(argv []string) string {
	var out strings.Builder
	for i, arg := range argv {
		if i > 0 {
			out.WriteByte(' ')
		}
		out.WriteString(quote(arg))
	}
	return out.String()
}

// quote returns a word as a shell would understand it.
func quote(word string) string {
	if word == "" {
		return "''"
	}
	for i := 0; i < len(word); i++ {
		c := word[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("@%+=:,./-_", c) >= 0 || word == SlotMark) {
			return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
	}
	return word
}

// NeedsShell reports whether a command that is a single word is a text for a shell.
func NeedsShell(word string) bool { return strings.ContainsAny(word, " \t\n|&;<>()$`\"'\\*?~") }

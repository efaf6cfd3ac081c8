package jobs

import (
	"fmt"
	"strings"
)

// How a replacement string in a shell text is quoted there.
type quoting int

const (
	bare     quoting = iota // not at all
	inDouble                // between double quotes
	inSingle                // between single quotes
)

// span is a part of a shell text: text, or a replacement string.
type span struct {
	piece
	in quoting
}

// Shell returns the template of a text for a POSIX shell. It is parsed once, before any input is known: an input takes
// the place of a replacement string as "${1}" would, whatever is in it. Without a replacement string the inputs are
// appended. The error says where in a text a replacement string has no such place.
func Shell(text string) (*Template, error) {
	s := scanner{text: text}
	if err := s.scan(); err != nil {
		return nil, err
	}
	t := &Template{shell: s.out}
	replaced := false
	for _, p := range t.shell {
		replaced = replaced || p.replace != nil
		t.slot = t.slot || p.replace != nil && p.replace.how == "%"
	}
	if !replaced {
		if s.comment {
			return nil, fmt.Errorf("the command ends in a comment, to which no input can be appended; say where it belongs by {}")
		}
		t.shell = append(t.shell, span{piece: piece{text: " "}}, span{piece: piece{replace: &replacement{}}})
	}
	return t, nil
}

// scanner finds out how each part of a shell text is quoted.
type scanner struct {
	text    string
	at      int
	from    int // of the text that is not in out
	out     []span
	nest    []byte // what the text is within: '"', '(' of $( or (, '`', and whether a here-document was begun
	here    bool   // a here-document has begun somewhere before
	comment bool   // the text ends in a comment
}

func (s *scanner) top() byte {
	if len(s.nest) == 0 {
		return 0
	}
	return s.nest[len(s.nest)-1]
}

func (s *scanner) push(c byte) { s.nest = append(s.nest, c) }

func (s *scanner) pop() { s.nest = s.nest[:len(s.nest)-1] }

// has reports whether the text goes on with prefix.
func (s *scanner) has(prefix string) bool { return strings.HasPrefix(s.text[s.at:], prefix) }

// scan divides the text.
func (s *scanner) scan() error {
	for s.at < len(s.text) {
		c := s.text[s.at]
		if c == '{' {
			if _, n := parseReplacement(s.text[s.at:]); n > 0 {
				quoted := bare
				if s.top() == '"' {
					quoted = inDouble
				}
				if err := s.replace(quoted); err != nil {
					return err
				}
				continue
			}
		}
		if err := s.step(c); err != nil {
			return err
		}
	}
	s.flush()
	if open := s.top(); open != 0 {
		return fmt.Errorf("the command has %s without its end", map[byte]string{'"': "a double quote", '(': "a parenthesis", '`': "a backquote"}[open])
	}
	return nil
}

// step goes on by a character, or by what it begins.
func (s *scanner) step(c byte) error {
	double := s.top() == '"'
	switch {
	case c == '\\':
		s.at = min(s.at+2, len(s.text))
		return nil
	case c == '"':
		if double {
			s.pop()
		} else {
			s.push('"')
		}
	case c == '\'' && !double:
		return s.single()
	case c == '`':
		return s.skip("a backquote", func() int {
			for i := s.at + 1; i < len(s.text); i++ {
				if s.text[i] == '\\' {
					i++
				} else if s.text[i] == '`' {
					return i + 1
				}
			}
			return -1
		}, "backquotes, where quoting is not what it seems; write $( ) instead")
	case s.has("$(("):
		return s.skip("$((", func() int { return s.closing(s.at+1, '(', ')') }, "$(( )), as the shell would compute with it; assign it to a variable before")
	case s.has("$("):
		s.at++
		s.push('(')
	case s.has("${"):
		return s.skip("${", func() int { return s.closing(s.at+1, '{', '}') }, "${ }; assign it to a variable before")
	case s.has("$'") && !double:
		return fmt.Errorf("the command has $'…', which shells understand in different ways; quote it otherwise")
	case double:
	case c == '(':
		s.push('(')
	case c == ')':
		if s.top() == '(' { // otherwise it ends a pattern of case
			s.pop()
		}
	case s.has("<<<"):
		s.at += 2
	case s.has("<<"):
		s.here = true
		s.at++
	case c == '#' && s.beginsWord():
		return s.skip("", func() int {
			if i := strings.IndexByte(s.text[s.at:], '\n'); i >= 0 {
				return s.at + i
			}
			s.comment = true
			return len(s.text)
		}, "a comment")
	}
	s.at++
	return nil
}

// beginsWord reports whether a word begins here.
func (s *scanner) beginsWord() bool {
	return s.at == 0 || strings.IndexByte(" \t\n;&|()", s.text[s.at-1]) >= 0
}

// closing returns where what opens at i is closed, nested or not; quotes count for nothing. -1: nowhere.
func (s *scanner) closing(i int, open, shut byte) int {
	for depth := 0; i < len(s.text); i++ {
		switch s.text[i] {
		case '\\':
			i++
		case open:
			depth++
		case shut:
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// skip goes on to an end, and refuses replacement strings before that.
func (s *scanner) skip(what string, end func() int, where string) error {
	to := end()
	if to < 0 {
		return fmt.Errorf("the command has %s without its end", what)
	}
	skipped := s.text[s.at:to]
	for _, p := range split(strings.TrimPrefix(skipped, "${")) { // whose own braces are none
		if p.replace != nil {
			return fmt.Errorf("the command has a replacement string within %s", where)
		}
	}
	s.at = to
	return nil
}

// single goes through single quotes.
func (s *scanner) single() error {
	length := strings.IndexByte(s.text[s.at+1:], '\'')
	if length < 0 {
		return fmt.Errorf("the command has a single quote without its end")
	}
	end := s.at + 1 + length
	for s.at++; s.at < end; {
		if _, n := parseReplacement(s.text[s.at:end]); n > 0 {
			if err := s.replace(inSingle); err != nil {
				return err
			}
			continue
		}
		s.at++
	}
	s.at = end + 1
	return nil
}

// replace takes a replacement string.
func (s *scanner) replace(in quoting) error {
	r, n := parseReplacement(s.text[s.at:])
	if s.here {
		return fmt.Errorf("the command has %s behind a here-document (<<), where it would not be known how it is quoted; pass it before", s.text[s.at:s.at+n])
	}
	s.flush()
	s.out = append(s.out, span{piece{replace: &r}, in})
	s.at += n
	s.from = s.at
	return nil
}

// flush takes the text up to here.
func (s *scanner) flush() {
	if s.from < s.at {
		s.out = append(s.out, span{piece: piece{text: s.text[s.from:s.at]}})
	}
	s.from = s.at
}

// shellCommand returns how a shell is to run the text, with what takes the place of replacement strings as positional
// parameters.
func (t *Template) shellCommand(j Job) (argv []string, shown string, err error) {
	var text, show strings.Builder
	params := []string{"sh"} // $0
	for _, p := range t.shell {
		if p.replace == nil {
			text.WriteString(p.text)
			show.WriteString(p.text)
			continue
		}
		for i, value := range p.replace.of(j) {
			params = append(params, value)
			param := fmt.Sprintf("${%d}", len(params)-1)
			switch p.in {
			case bare:
				if i > 0 {
					text.WriteByte(' ')
					show.WriteByte(' ')
				}
				text.WriteString(`"` + param + `"`)
				show.WriteString(quote(value))
			case inDouble:
				if i > 0 {
					text.WriteByte(' ')
					show.WriteByte(' ')
				}
				text.WriteString(param)
				show.WriteString(escapeDouble.Replace(value))
			case inSingle:
				sep := ""
				if i > 0 {
					sep = " "
				}
				text.WriteString(sep + `'"` + param + `"'`)
				show.WriteString(sep + strings.ReplaceAll(value, "'", `'\''`))
			}
		}
	}
	return append([]string{"sh", "-c", text.String()}, params...), show.String(), nil
}

// escapeDouble escapes what is special between double quotes.
var escapeDouble = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`")

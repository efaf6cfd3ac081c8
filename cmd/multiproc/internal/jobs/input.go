package jobs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
)

// A Source is where inputs come from: texts that are given, or a stream that is read as they are asked for.
type Source struct {
	Values []string  // of ::: on the command line
	Reader io.Reader // nil: Values
	Name   string    // of the reader, for errors
}

// Inputs are what jobs are made of.
type Inputs struct {
	Sources   []Source
	Delimiter string // ends each record of a reader. Empty means the end of line
	Link      bool   // take one of each source, instead of all combinations; a source that is too short starts again
	MaxArgs   int    // how many inputs of the only source make a job. 0 means 1
	AnyByte   bool   // inputs may have NUL bytes, as they are not to be arguments
}

// All returns the inputs of each job, one of every source, in which the last source varies fastest. The first source is
// read as it is needed, and so are all with Link; of the others, combinations need all. failed is told what could not be
// read, which is the end.
func (in Inputs) All(failed func(error)) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		stop := func(err error) bool {
			if err != nil {
				failed(err)
			}
			return err != nil
		}
		switch {
		case len(in.Sources) == 0:
		case len(in.Sources) == 1:
			stop(in.grouped(yield))
		case in.Link:
			stop(in.linked(yield))
		default:
			stop(in.combined(yield))
		}
	}
}

// each calls yield with each input of a source, until that is false.
func (in Inputs) each(s Source, yield func(string) bool) error {
	if s.Reader == nil {
		for _, v := range s.Values {
			if !yield(v) {
				break
			}
		}
		return nil
	}
	r := &records{r: bufio.NewReaderSize(s.Reader, 64<<10), delimiter: in.Delimiter}
	for {
		text, err := r.next()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("read %s: %w", s.Name, err)
		case !in.AnyByte && strings.IndexByte(text, 0) >= 0:
			return fmt.Errorf("read %s: %.40q has a NUL byte, which no argument can have; do you mean -0?", s.Name, text)
		case !yield(text):
			return nil
		}
	}
}

// grouped yields MaxArgs inputs at a time, and what is left.
func (in Inputs) grouped(yield func([]string) bool) error {
	n, more := max(1, in.MaxArgs), true
	group := make([]string, 0, n)
	err := in.each(in.Sources[0], func(text string) bool {
		if group = append(group, text); len(group) == n {
			more = yield(group)
			group = make([]string, 0, n)
		}
		return more
	})
	if more && len(group) > 0 {
		yield(group)
	}
	return err
}

// combined yields all combinations.
func (in Inputs) combined(yield func([]string) bool) error {
	rest := make([][]string, len(in.Sources)-1)
	for i, s := range in.Sources[1:] {
		if err := in.each(s, func(text string) bool { rest[i] = append(rest[i], text); return true }); err != nil {
			return err
		}
		if len(rest[i]) == 0 {
			return nil
		}
	}
	return in.each(in.Sources[0], func(text string) bool {
		at := make([]int, len(rest)) // a number whose digits count the sources
		for {
			args := []string{text}
			for i, values := range rest {
				args = append(args, values[at[i]])
			}
			if !yield(args) {
				return false
			}
			i := len(at) - 1
			for ; i >= 0; i-- {
				if at[i]++; at[i] < len(rest[i]) {
					break
				}
				at[i] = 0
			}
			if i < 0 {
				return true
			}
		}
	})
}

// linked yields one input of each source, as often as the longest has one.
func (in Inputs) linked(yield func([]string) bool) (err error) {
	type column struct {
		next func() (string, bool)
		seen []string
		over bool
	}
	columns := make([]column, len(in.Sources))
	for i, s := range in.Sources {
		next, stop := iter.Pull(func(yield func(string) bool) {
			if e := in.each(s, yield); e != nil && err == nil {
				err = e
			}
		})
		defer stop()
		columns[i].next = next
	}
	for row := 0; ; row++ {
		args, fresh := make([]string, len(columns)), false
		for i := range columns {
			c := &columns[i]
			if !c.over {
				text, ok := c.next()
				if c.over = !ok; ok {
					c.seen, fresh = append(c.seen, text), true
				}
			}
			if len(c.seen) > 0 {
				args[i] = c.seen[row%len(c.seen)]
			} else {
				return err // an empty source has nothing to start again with
			}
		}
		if !fresh || err != nil || !yield(args) {
			return err
		}
	}
}

// records reads what ends with a delimiter.
type records struct {
	r         *bufio.Reader
	delimiter string
}

// next returns the next record, or io.EOF. The last one need not end with the delimiter.
func (r *records) next() (string, error) {
	end := r.delimiter
	if end == "" {
		end = "\n"
	}
	var record strings.Builder
	for {
		part, err := r.r.ReadSlice(end[len(end)-1])
		record.Write(part)
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case err == io.EOF && record.Len() > 0:
			return strings.TrimSuffix(record.String(), end), nil
		case err != nil:
			return "", err
		}
		if text, ok := strings.CutSuffix(record.String(), end); ok {
			return text, nil
		}
	}
}

// ParseDelimiter reads the delimiter of records, in which \n, \t, \r, \0 and \\ stand for what they do in C.
func ParseDelimiter(text string) (string, error) {
	if text == "" {
		return "", fmt.Errorf("the delimiter is empty; give a text, in which %s, %s and %s may stand", `\n`, `\t`, `\0`)
	}
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			out.WriteByte(text[i])
			continue
		}
		if i++; i == len(text) {
			return "", fmt.Errorf("the delimiter %q ends in a single backslash; write two", text)
		}
		at := strings.IndexByte(`ntr0\`, text[i])
		if at < 0 {
			return "", fmt.Errorf(`the delimiter %q has \%c, which is none of \n, \t, \r, \0 and \\`, text, text[i])
		}
		out.WriteByte("\n\t\r\x00\\"[at])
	}
	return out.String(), nil
}

// Split divides arguments into a command and the sources behind ::: (inputs) and :::: (files of inputs), which open
// opens.
func Split(args []string, open func(name string) (io.Reader, error)) (command []string, sources []Source, err error) {
	at := 0
	for at < len(args) && args[at] != ":::" && args[at] != "::::" {
		at++
	}
	command = args[:at]
	for at < len(args) {
		marker := args[at]
		from := at + 1
		for at++; at < len(args) && args[at] != ":::" && args[at] != "::::"; at++ {
		}
		values := args[from:at]
		if marker == ":::" {
			sources = append(sources, Source{Values: values})
			continue
		}
		if len(values) == 0 {
			return nil, nil, errors.New(":::: is not followed by a file")
		}
		for _, name := range values {
			r, err := open(name)
			if err != nil {
				return nil, nil, err
			}
			sources = append(sources, Source{Reader: r, Name: name})
		}
	}
	return command, sources, nil
}

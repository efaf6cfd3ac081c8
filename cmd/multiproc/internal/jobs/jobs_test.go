package jobs

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestWords(t *testing.T) {
	job := Job{Seq: 7, Args: []string{"a/b.c.d", "x y"}}
	for _, test := range []struct {
		words []string
		want  []string
	}{
		{[]string{"cmd"}, []string{"cmd", "a/b.c.d", "x y"}},
		{[]string{"cmd", "{}"}, []string{"cmd", "a/b.c.d", "x y"}},
		{[]string{"cmd", "<{}>"}, []string{"cmd", "<a/b.c.d x y>"}},
		{[]string{"cmd", "{1}", "{2}{1}"}, []string{"cmd", "a/b.c.d", "x ya/b.c.d"}},
		{[]string{"{1.}", "{1/}", "{1//}", "{1/.}"}, []string{"a/b.c", "b.c.d", "a", "b.c"}},
		{[]string{"cmd", "{-1}", "{3}", "{-3}", "{#}"}, []string{"cmd", "x y", "", "", "7"}},
		{[]string{"cmd", "{%}"}, []string{"cmd", SlotMark}},
		{[]string{"cmd", "{0}", "{a}", "{", "}", "{}}", "{{}", "{1a}", "{#1}", "{1#}"}, []string{"cmd", "{0}", "{a}", "{", "}", "a/b.c.d x y}", "{a/b.c.d x y", "{1a}", "{#1}", "{1#}"}},
		{[]string{"cmd", "{99999999999999999999}", "{}"}, []string{"cmd", "{99999999999999999999}", "a/b.c.d", "x y"}},
	} {
		tmpl, err := Words(test.words)
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := tmpl.Command(job); err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%q is %q, %v; want %q", test.words, got, err, test.want)
		}
	}
	if _, err := Words(nil); err == nil {
		t.Error("no command is one")
	}
	empty, _ := Words([]string{"{}"})
	if argv, _, err := empty.Command(Job{Args: []string{""}}); err == nil {
		t.Errorf("an empty input is the command %q", argv)
	}
}

func TestParts(t *testing.T) {
	for arg, want := range map[string][4]string{ // {.} {/} {//} {/.}, as GNU parallel has them
		"a":       {"a", "a", ".", "a"},
		"a.b":     {"a", "a.b", ".", "a"},
		"/a.b":    {"/a", "a.b", "/", "a"},
		"d.e/a":   {"d.e/a", "a", "d.e", "a"},
		"d/a.b.c": {"d/a.b", "a.b.c", "d", "a.b"},
		"d/.x":    {"d/.x", ".x", "d", ".x"},
		"":        {"", "", ".", ""},
	} {
		got := [4]string{part(arg, "."), part(arg, "/"), part(arg, "//"), part(arg, "/.")}
		if got != want {
			t.Errorf("%q has %q, want %q", arg, got, want)
		}
	}
}

// nasty are inputs that have made other tools run something.
var nasty = []string{
	"", "a  b", "$(echo ran)", "`echo ran`", "; echo ran", "'", `"`, `\`, `\\`, "a\nb", "*", "~", "#x", "-n", "${HOME}", "$1", "!!", "é\xff", "a'b\"c", "&& echo ran", "|", "{}", "%s",
}

// TestShellHandsInputsOver has a shell print what each input has become, in all quotings.
func TestShellHandsInputsOver(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("needs sh, a POSIX shell, on the PATH")
	}
	for _, test := range []struct{ text, before, after string }{
		{`printf '[%s]' {}`, "[", "]"},
		{`printf '[%s]' "{}"`, "[", "]"},
		{`printf '[%s]' '{}'`, "[", "]"},
		{`printf '[%s]' x{}y`, "[x", "y]"},
		{`printf '[%s]' "x{}y"`, "[x", "y]"},
		{`printf '[%s]' 'x{}y'`, "[x", "y]"},
		{`x={}; printf '[%s]' "$x"`, "[", "]"},
		{`printf '[%s]' "$(printf '%s.' {})"`, "[", ".]"},
		{`printf '[%s]' "$(printf '%s.' "{}")"`, "[", ".]"},
		{`(printf '[%s]' {}) # a comment`, "[", "]"},
		{"printf '[%s]' \\\n{}", "[", "]"},
		{`case {} in {}) printf '[%s]' {};; esac`, "[", "]"},
		{`printf '[%s]'`, "[", "]"},
		{`printf '[%s]' "\"{}\"" \{}`, `["`, `"][{}]`},
	} {
		tmpl, err := Shell(test.text)
		if err != nil {
			t.Errorf("%s: %v", test.text, err)
			continue
		}
		for _, input := range nasty {
			argv, shown, err := tmpl.Command(Job{Seq: 1, Args: []string{input}})
			if err != nil {
				t.Fatal(err)
			}
			want := test.before + input + test.after
			if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil || string(out) != want {
				t.Errorf("%s with %q prints %q, %v; want %q", test.text, input, out, err, want)
			}
			if out, err := exec.Command("sh", "-c", shown).CombinedOutput(); err != nil || string(out) != want {
				t.Errorf("%s, as it is shown: %s\nprints %q, %v; want %q", test.text, shown, out, err, want)
			}
		}
	}
}

func TestShellSeveralInputs(t *testing.T) {
	tmpl, err := Shell(`f {} "{}" '{}' {2}`)
	if err != nil {
		t.Fatal(err)
	}
	argv, shown, err := tmpl.Command(Job{Args: []string{"a b", "c"}})
	want := []string{"sh", "-c", `f "${1}" "${2}" "${3} ${4}" ''"${5}"' '"${6}"'' "${7}"`, "sh", "a b", "c", "a b", "c", "a b", "c", "c"}
	if err != nil || !slices.Equal(argv, want) || shown != `f 'a b' c "a b c" 'a b c' c` {
		t.Errorf("%q, %s, %v; want %q", argv, shown, err, want)
	}
}

func TestShellRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"echo `ls {}`":         "within backquotes",
		`echo "`:               "a double quote without its end",
		`echo '`:               "a single quote without its end",
		`echo "$(ls`:           "a parenthesis without its end",
		"echo `":               "a backquote without its end",
		`echo $((`:             "$(( without its end",
		`echo ${x`:             "${ without its end",
		`echo $(( {} + 1 ))`:   "within $(( ))",
		`echo ${x:-{}}`:        "within ${ }",
		`echo x # {}`:          "within a comment",
		`echo x # y`:           "ends in a comment",
		"cat <<EOF\n{}\nEOF\n": "behind a here-document",
		`echo $'{}'`:           "has $'…'",
	} {
		if _, err := Shell(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	for _, text := range []string{"echo ${x#y} {}", "echo a#b {}", "echo \\{} {}", "case x in x) echo {};; esac", "cat <<<x", `echo "\"{}" '"' {}`, "echo {} # it's", "echo ${1} {}"} {
		if _, err := Shell(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// FuzzShell has no template let an input into the text, and none of the text be lost.
func FuzzShell(f *testing.F) {
	for _, text := range []string{"echo {}", `a "{}" '{.}' $(b "{1}") # x`, "${x} `y` $((1)) <<z", `\{} "\`, `$'`, "{", "{}{}"} {
		f.Add(text, "input")
	}
	f.Fuzz(func(t *testing.T, text, input string) {
		tmpl, err := Shell(text)
		if err != nil {
			return
		}
		first, _, err := tmpl.Command(Job{Seq: 1, Args: []string{input}})
		if err != nil {
			t.Fatal(err)
		}
		second, _, _ := tmpl.Command(Job{Seq: 2, Args: []string{""}})
		if first[2] != second[2] {
			t.Errorf("%q is the text %q for %q and %q for an empty input", text, first[2], input, second[2])
		}
		var whole strings.Builder
		for _, s := range tmpl.shell {
			whole.WriteString(s.text)
		}
		rest := text
		for _, s := range tmpl.shell {
			if s.replace != nil {
				continue
			}
			i := strings.Index(rest, s.text)
			if i < 0 && s.text != " " {
				t.Fatalf("%q has lost or gained text: %q", text, whole.String())
			}
			rest = rest[max(i, 0):]
		}
	})
}

// FuzzWords has words without braces pass as they are, and nothing panic.
func FuzzWords(f *testing.F) {
	f.Add("a{}b", "input")
	f.Add("{1/.}{", "x/y.z")
	f.Fuzz(func(t *testing.T, word, input string) {
		tmpl, err := Words([]string{"cmd", word})
		if err != nil {
			t.Fatal(err)
		}
		argv, _, err := tmpl.Command(Job{Seq: 3, Args: []string{input}})
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{"cmd", word, input}; !strings.Contains(word, "{") && !slices.Equal(argv, want) {
			t.Errorf("%q, want %q", argv, want)
		}
		if strings.Count(word, "{}") == 1 && strings.Count(word, "{") == 1 && argv[1] != strings.Replace(word, "{}", input, 1) {
			t.Errorf("%q with %q is %q", word, input, argv)
		}
	})
}

// all returns the inputs of all jobs.
func all(t *testing.T, in Inputs) (rows [][]string, err error) {
	t.Helper()
	for row := range in.All(func(e error) { err = e }) {
		rows = append(rows, row)
	}
	return rows, err
}

func TestInputs(t *testing.T) {
	from := func(text string) Source {
		return Source{Reader: iotest.OneByteReader(strings.NewReader(text)), Name: "it"}
	}
	given := func(values ...string) Source { return Source{Values: values} }
	long := strings.Repeat("x", 200_000)
	for _, test := range []struct {
		in   Inputs
		want string
	}{
		{Inputs{}, "[]"},
		{Inputs{Sources: []Source{from("")}}, "[]"},
		{Inputs{Sources: []Source{from("a\n\nb")}}, "[[a] [] [b]]"},
		{Inputs{Sources: []Source{from("a\r\n")}}, "[[a\r]]"},
		{Inputs{Sources: []Source{from("a\x00b\nc\x00")}, Delimiter: "\x00"}, "[[a] [b\nc]]"},
		{Inputs{Sources: []Source{from("a--b-c--")}, Delimiter: "--"}, "[[a] [b-c]]"},
		{Inputs{Sources: []Source{from(long)}}, "[[" + long + "]]"},
		{Inputs{Sources: []Source{from("a\nb\nc\n")}, MaxArgs: 2}, "[[a b] [c]]"},
		{Inputs{Sources: []Source{given("1", "2"), from("a\nb"), given("x", "y")}}, "[[1 a x] [1 a y] [1 b x] [1 b y] [2 a x] [2 a y] [2 b x] [2 b y]]"},
		{Inputs{Sources: []Source{given("1", "2"), given()}}, "[]"},
		{Inputs{Sources: []Source{given("1", "2", "3"), from("a\nb")}, Link: true}, "[[1 a] [2 b] [3 a]]"},
		{Inputs{Sources: []Source{given("1", "2", "3"), given()}, Link: true}, "[]"},
	} {
		if rows, err := all(t, test.in); err != nil || fmt.Sprint(rows) != test.want {
			t.Errorf("%+v: %v, %v; want %s", test.in, rows, err, test.want)
		}
	}
	broken := Source{Reader: io.MultiReader(strings.NewReader("a\n"), iotest.ErrReader(io.ErrUnexpectedEOF)), Name: "it"}
	if rows, err := all(t, Inputs{Sources: []Source{broken}}); err == nil || fmt.Sprint(rows) != "[[a]]" {
		t.Errorf("of a source that breaks there are %v, %v", rows, err)
	}
	if _, err := all(t, Inputs{Sources: []Source{from("a\x00b\n")}}); err == nil || !strings.Contains(err.Error(), "do you mean -0?") {
		t.Errorf("an input with a NUL byte is no error, but %v", err)
	}
}

func TestSplit(t *testing.T) {
	open := func(name string) (io.Reader, error) {
		if name == "none" {
			return nil, io.EOF
		}
		return strings.NewReader(name), nil
	}
	command, sources, err := Split([]string{"a", "b", ":::", "1", "2", "::::", "f", "g", ":::"}, open)
	if err != nil || !slices.Equal(command, []string{"a", "b"}) || len(sources) != 4 || sources[2].Name != "g" || sources[3].Reader != nil {
		t.Errorf("%q, %+v, %v", command, sources, err)
	}
	for _, args := range [][]string{{"a", "::::"}, {"a", "::::", "none"}} {
		if _, _, err := Split(args, open); err == nil {
			t.Errorf("%q is not wrong", args)
		}
	}
}

func TestParseDelimiter(t *testing.T) {
	for text, want := range map[string]string{",": ",", `\n\t\r\0\\`: "\n\t\r\x00\\", "ab": "ab"} {
		if got, err := ParseDelimiter(text); err != nil || got != want {
			t.Errorf("%q is %q, %v; want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", `\`, `\x`} {
		if got, err := ParseDelimiter(text); err == nil {
			t.Errorf("%q is %q", text, got)
		}
	}
}

func TestParseJobs(t *testing.T) {
	for text, want := range map[string]int{"3": 3, "0": 100, "+2": 6, "-1": 3, "-9": 1, "50%": 2, "1%": 1, "200%": 8, "1000": 100} {
		if got, err := ParseJobs(text, 4, 100); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "%", "-5%", "1.5"} {
		if got, err := ParseJobs(text, 4, 100); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

func TestParseHalt(t *testing.T) {
	for text, want := range map[string]Halt{
		"never": {}, "now,fail=1": {Now: true, Failed: 1}, "soon,success=2": {Succeed: 2}, "soon,done=3": {Done: 3},
	} {
		if got, err := ParseHalt(text); err != nil || got != want {
			t.Errorf("%q is %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "now", "now,fail", "now,fail=0", "later,fail=1", "now,fail=10%", "now,x=1"} {
		if got, err := ParseHalt(text); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
}

func TestEntry(t *testing.T) {
	var b bytes.Buffer
	e := Entry{Seq: 3, Host: ":", Start: time.UnixMilli(1234567890123), Runtime: 1500 * time.Millisecond, Receive: 7, Exit: 1, Command: "a\nb"}
	if _, err := e.WriteTo(&b); err != nil || b.String() != "3\t:\t1234567890.123\t     1.500\t0\t7\t1\t0\ta\x00b\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
}

func TestSpool(t *testing.T) {
	for _, size := range []int{0, 1, spoolMemory, spoolMemory + 1, 3*spoolMemory + 5} {
		want := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		var s Spool
		for rest := want; len(rest) > 0; {
			n := min(len(rest), 30_000)
			if _, err := s.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		var b bytes.Buffer
		if n, err := s.WriteTo(&b); err != nil || n != int64(size) || s.Len() != n || !bytes.Equal(b.Bytes(), want) {
			t.Errorf("of %d bytes %d are written, %v", size, n, err)
		}
		data, err := s.MarshalBinary()
		if err != nil || !bytes.Equal(data, want) {
			t.Errorf("of %d bytes %d travel, %v", size, len(data), err)
		}
		var other Spool
		if err := other.UnmarshalBinary(data); err != nil || other.Len() != int64(size) {
			t.Errorf("of %d bytes %d arrive, %v", size, other.Len(), err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

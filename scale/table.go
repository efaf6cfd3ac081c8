package scale

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// lineWidth is the number of columns that a table keeps to while its kinds have short names.
const lineWidth = 100

// WriteTable writes the report for people: what was measured and where, one aligned table, for each
// kind what Amdahl's law makes of it, and the warnings. Times are medians in one unit for the whole
// table, with three decimals: s, or ms or µs when the slowest row took less than a tenth of the unit
// above. Memory is in MiB. What is not known is a "-".
func (r *Report) WriteTable(w io.Writer) error {
	var b bytes.Buffer
	r.writeHead(&b)
	if len(r.Rows) > 0 {
		b.WriteByte('\n')
		writeColumns(&b, r.columns())
	}
	if fits := r.Fits(); len(fits) > 0 {
		b.WriteString("\nAmdahl's law, with a CPU for each worker:\n")
		for _, fit := range fits {
			writeWrapped(&b, "  ", fit.sentence(r.widths(fit.Kind)))
		}
	}
	if warnings := r.Warnings(); len(warnings) > 0 {
		b.WriteString("\nWarnings:\n")
		for _, warning := range warnings {
			writeWrapped(&b, "  ", warning)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (r *Report) writeHead(b *bytes.Buffer) {
	m := r.Machine
	parts := [][]string{
		{r.Workload, r.Size},
		{
			m.OS + "/" + m.Arch, plural(m.CPUs, "CPU"), fmt.Sprintf("GOMAXPROCS %d", m.GOMAXPROCS),
			m.CPUModel, m.GoVersion,
		},
		{r.runs()},
	}
	for _, line := range parts {
		var said []string
		for _, part := range line {
			if part != "" {
				said = append(said, part)
			}
		}
		if len(said) > 0 {
			writeWrapped(b, "", strings.Join(said, ", "))
		}
	}
}

// runs says how often the cases ran.
func (r *Report) runs() string {
	if len(r.Rows) == 0 {
		return "nothing measured"
	}
	least, most := r.extremes()
	switch {
	case least != most:
		return fmt.Sprintf("medians of %d to %d interleaved runs", least, most)
	case most == 1:
		return "1 run of each case"
	default:
		return fmt.Sprintf("medians of %d interleaved runs", most)
	}
}

// extremes are the smallest and the largest number of runs of a row.
func (r *Report) extremes() (least, most int) {
	least = math.MaxInt
	for _, row := range r.Rows {
		least, most = min(least, len(row.Samples)), max(most, len(row.Samples))
	}
	return least, most
}

// unit is a unit of time for a whole table.
type unit struct {
	name string
	size time.Duration
}

func (u unit) format(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(u.size), 'f', 3, 64)
}

// unit is the one in which three decimals show enough of the slowest row.
func (r *Report) unit() unit {
	var slowest time.Duration
	for _, row := range r.Rows {
		slowest = max(slowest, row.Real)
	}
	switch {
	case slowest == 0 || slowest >= time.Second/10:
		return unit{"s", time.Second}
	case slowest >= time.Millisecond/10:
		return unit{"ms", time.Millisecond}
	default:
		return unit{"µs", time.Microsecond}
	}
}

// widths are the numbers of workers, 2 or more, at which a kind was measured.
func (r *Report) widths(kind string) []int {
	var widths []int
	for _, row := range r.Rows {
		if row.Kind == kind && row.Workers >= 2 {
			widths = append(widths, row.Workers)
		}
	}
	return widths
}

// sentence is what the fit says about its kind, and predicts for the widths.
func (f Fit) sentence(widths []int) string {
	var verdict string
	switch {
	case f.SerialFraction < 0:
		verdict = "superlinear, no ceiling"
	case f.SerialFraction == 0:
		verdict = "perfect, no ceiling"
	case f.SerialFraction >= 1:
		verdict = "never faster than its baseline"
	case f.Ceiling >= 1000:
		verdict = fmt.Sprintf("at most %.2g× however many workers", f.Ceiling)
	default:
		verdict = fmt.Sprintf("at most %.1f× however many workers", f.Ceiling)
	}
	predicted := make([]string, len(widths))
	for i, n := range widths {
		speedUp := "anything"
		if s := Amdahl(f.SerialFraction, n); !math.IsInf(s, 0) {
			speedUp = fmt.Sprintf("%.2f×", s)
		}
		predicted[i] = fmt.Sprintf("%s at %d", speedUp, n)
	}
	return fmt.Sprintf("%s: serial fraction %s → %s; predicted %s",
		f.Kind, fraction(f.SerialFraction), verdict, strings.Join(predicted, ", "))
}

// writeWrapped writes text in lines of at most lineWidth columns, those after the first indented
// further.
func writeWrapped(b *bytes.Buffer, indent, text string) {
	line := indent
	for i, word := range strings.Fields(text) {
		if i > 0 {
			if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > lineWidth {
				b.WriteString(line + "\n")
				line = indent + "  "
			} else {
				line += " "
			}
		}
		line += word
	}
	b.WriteString(line + "\n")
}

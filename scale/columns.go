package scale

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// unknown stands in a cell that has no value.
const unknown = "-"

// column is one column of the table: its name, its unit and a cell for each row.
type column struct {
	name, unit string
	cells      []string
}

// columns are the table's. The number of runs has one only when rows differ in it.
func (r *Report) columns() []column {
	u := r.unit()
	var cols []column
	add := func(name, unit string, cell func(*Row) string) {
		c := column{name: name, unit: unit}
		for i := range r.Rows {
			c.cells = append(c.cells, cell(&r.Rows[i]))
		}
		cols = append(cols, c)
	}
	addTime := func(name string, of func(*Row) time.Duration) {
		add(name, u.name, func(row *Row) string { return u.format(of(row)) })
	}
	add("kind", "", func(row *Row) string { return row.Kind })
	add("workers", "", func(row *Row) string { return strconv.Itoa(row.Workers) })
	if least, most := r.extremes(); least != most {
		add("runs", "", func(row *Row) string { return strconv.Itoa(len(row.Samples)) })
	}
	addTime("real", func(row *Row) time.Duration { return row.Real })
	addTime("MAD", func(row *Row) time.Duration { return row.RealMAD })
	addTime("min", func(row *Row) time.Duration { return row.RealMin })
	addTime("max", func(row *Row) time.Duration { return row.RealMax })
	addTime("user", func(row *Row) time.Duration { return row.User })
	addTime("sys", func(row *Row) time.Duration { return row.Sys })
	add("memory", "MiB", func(row *Row) string {
		return number(float64(row.PeakMemory)/(1<<20), 1, row.PeakMemory > 0)
	})
	add("speed-up", "×", func(row *Row) string { return number(row.SpeedUp, 2, row.SpeedUp > 0) })
	add("eff.", "%", func(row *Row) string { return number(100*row.Efficiency, 0, row.SpeedUp > 0) })
	add("serial", "", func(row *Row) string {
		if !row.divided() {
			return unknown
		}
		return fraction(row.SerialFraction)
	})
	return cols
}

func number(x float64, decimals int, known bool) string {
	if !known {
		return unknown
	}
	return strconv.FormatFloat(x, 'f', decimals, 64)
}

// fraction shows three decimals of a serial fraction, or its magnitude when they would all be 0: that
// it is not 0, and on which side of it, matters.
func fraction(s float64) string {
	if s != 0 && math.Abs(s) < 0.0005 {
		return strconv.FormatFloat(s, 'e', 0, 64)
	}
	return strconv.FormatFloat(s, 'f', 3, 64)
}

// writeColumns aligns the first column to the left and the others to the right, two blanks apart, or
// one when the lines would be too wide otherwise.
func writeColumns(b *bytes.Buffer, cols []column) {
	gap, total := 2, 0
	widths := make([]int, len(cols))
	lines := make([][]string, 2) // of cells: names, units, rows
	for i, c := range cols {
		lines[0], lines[1] = append(lines[0], c.name), append(lines[1], c.unit)
		for j, cell := range c.cells {
			if i == 0 {
				lines = append(lines, nil)
			}
			lines[2+j] = append(lines[2+j], cell)
		}
		for _, line := range lines {
			widths[i] = max(widths[i], utf8.RuneCountInString(line[i]))
		}
		total += widths[i]
	}
	if total+gap*(len(cols)-1) > lineWidth {
		gap = 1
	}
	for _, line := range lines {
		var text strings.Builder
		for i, cell := range line {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				text.WriteString(cell + pad)
			} else {
				text.WriteString(strings.Repeat(" ", gap) + pad + cell)
			}
		}
		b.WriteString(strings.TrimRight(text.String(), " ") + "\n")
	}
}

package main

import (
	"context"
	"time"
)

// A row is one job that every contender does in its own way.
type row struct {
	name       string // for --rows
	title      string
	about      string // how it is measured
	metrics    []metric
	contenders []contender
	goals      []goal
}

// A metric is one of the figures that contenders of a row report. Not all of them have to.
type metric struct {
	key    string
	title  string  // with the unit
	unit   float64 // what 1 of the unit is, in seconds, bytes or their like
	signed bool    // it may be negative, so that ratios mean nothing
}

// figures are what a contender measured in one round: seconds, bytes, or numbers a second.
type figures map[string]float64

// A contender is one way to do the job of a row.
type contender struct {
	name  string
	group group
	// measure does the job once, with all that it needs warm, and stops what it has started. The
	// error is a missing where the machine lacks what the contender needs.
	measure func(ctx context.Context, e *env) (figures, error)
}

// A group is what a contender is to us. The first contender of ours in a row, and the first limit,
// are what the others are compared with.
type group int

const (
	ours  group = iota
	plain       // Go without another process
	peer
	limit
)

// missing says what a contender lacks, and how to get it.
type missing string

func (m missing) Error() string { return string(m) }

// A goal bounds a figure, or how many times another figure it is. The zero bound is none.
type goal struct {
	text  string
	of    figure
	per   figure // zero: the goal is about the figure itself
	least float64
	most  float64
}

// A figure is what a contender of the row reports under a metric's key.
type figure struct{ contender, key string }

// measureTimeout bounds one measurement.
const measureTimeout = 2 * time.Minute

// rows returns all rows, in the order in which they are measured and shown.
func rows() []row {
	return []row{
		mapRow(), streamRow(),
		latencyRow(), latencyApartRow(), latencyLoadedRow(),
		payloadRow(), zeroCopyRow(),
		startRow(), startSpareRow(), filesRow(), waitsRow(),
		memoryRow(), manyWorkersRow(), streamMemoryRow(),
		listAppendRow(), crashRow(), snapshotRow(),
		clusterCallRow(), clusterMapRow(), clusterPayloadRow(),
	}
}

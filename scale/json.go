package scale

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"time"
)

// The JSON form: every key names its unit, and what has no finite value is null.
type (
	jsonReport struct {
		Workload    string      `json:"workload"`
		Size        string      `json:"size"`
		Machine     jsonMachine `json:"machine"`
		Interrupted bool        `json:"interrupted"`
		Rows        []jsonRow   `json:"rows"`
		Fits        []jsonFit   `json:"fits"`
		Warnings    []string    `json:"warnings"`
	}
	jsonMachine struct {
		CPUs       int    `json:"cpus"`
		GOMAXPROCS int    `json:"gomaxprocs"`
		CPUModel   string `json:"cpu_model"`
		OS         string `json:"os"`
		Arch       string `json:"arch"`
		GoVersion  string `json:"go_version"`
	}
	jsonRow struct {
		Kind           string       `json:"kind"`
		Workers        int          `json:"workers"`
		Baseline       string       `json:"baseline"`
		Runs           int          `json:"runs"`
		Real           seconds      `json:"real_seconds"`
		RealMin        seconds      `json:"real_min_seconds"`
		RealMax        seconds      `json:"real_max_seconds"`
		RealMAD        seconds      `json:"real_mad_seconds"`
		User           seconds      `json:"user_seconds"`
		Sys            seconds      `json:"sys_seconds"`
		PeakMemory     int64        `json:"peak_memory_bytes"`
		SpeedUp        *float64     `json:"speed_up"`
		Efficiency     *float64     `json:"efficiency"`
		SerialFraction *float64     `json:"serial_fraction"`
		Ceiling        *float64     `json:"ceiling"`
		Samples        []jsonSample `json:"samples"`
	}
	jsonSample struct {
		Real       seconds `json:"real_seconds"`
		User       seconds `json:"user_seconds"`
		Sys        seconds `json:"sys_seconds"`
		PeakMemory int64   `json:"peak_memory_bytes"`
	}
	jsonFit struct {
		Kind           string   `json:"kind"`
		SerialFraction float64  `json:"serial_fraction"`
		Ceiling        *float64 `json:"ceiling"`
		Widths         []int    `json:"widths"`
	}
)

// WriteJSON writes the report for programs: all of its fields, the cost of every single run, the fits
// and the warnings. Keys name their unit (real_seconds, peak_memory_bytes) and keep their order. A value that
// is not known, and a ceiling that is infinite, is null; peak_memory_bytes is 0 when not known.
func (r *Report) WriteJSON(w io.Writer) error {
	fits := r.Fits()
	out := jsonReport{
		Workload:    r.Workload,
		Size:        r.Size,
		Machine:     jsonMachine(r.Machine),
		Interrupted: r.Interrupted,
		Rows:        make([]jsonRow, len(r.Rows)),
		Fits:        make([]jsonFit, len(fits)),
		Warnings:    append([]string{}, r.Warnings()...),
	}
	for i := range r.Rows {
		out.Rows[i] = r.Rows[i].json()
	}
	for i, f := range fits {
		out.Fits[i] = jsonFit{f.Kind, f.SerialFraction, finite(f.Ceiling, true), f.Widths}
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

// ReadJSON reads a report that [Report.WriteJSON] wrote. What the runs cost is taken from the samples
// and computed anew; medians, fits and warnings in the file are not looked at.
func ReadJSON(rd io.Reader) (*Report, error) {
	var in jsonReport
	if err := json.NewDecoder(rd).Decode(&in); err != nil {
		return nil, fmt.Errorf("scale: read report: %w", err)
	}
	var f faults
	rows := make([]Row, len(in.Rows))
	for i, row := range in.Rows {
		rows[i] = Case{Kind: row.Kind, Workers: row.Workers, Baseline: row.Baseline}.row()
		for _, s := range row.Samples {
			sample := Sample{time.Duration(s.Real), time.Duration(s.User), time.Duration(s.Sys), s.PeakMemory}
			if err := sample.check(); err != nil {
				f.addf("case %d (%s): %v", i, rows[i].label(), err)
			}
			rows[i].Samples = append(rows[i].Samples, sample)
		}
	}
	f.rows(rows)
	for _, text := range []struct{ what, s string }{
		{"workload", in.Workload},
		{"size", in.Size},
		{"cpu_model", in.Machine.CPUModel},
		{"os", in.Machine.OS},
		{"arch", in.Machine.Arch},
		{"go_version", in.Machine.GoVersion},
	} {
		f.text(text.what, text.s)
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	r := &Report{
		Workload:    in.Workload,
		Size:        in.Size,
		Machine:     Machine(in.Machine),
		Interrupted: in.Interrupted,
	}
	r.evaluate(rows)
	return r, nil
}

func (r *Row) json() jsonRow {
	samples := make([]jsonSample, len(r.Samples))
	for i, s := range r.Samples {
		samples[i] = jsonSample{seconds(s.Real), seconds(s.User), seconds(s.Sys), s.PeakMemory}
	}
	return jsonRow{
		Kind:           r.Kind,
		Workers:        r.Workers,
		Baseline:       r.Baseline,
		Runs:           len(r.Samples),
		Real:           seconds(r.Real),
		RealMin:        seconds(r.RealMin),
		RealMax:        seconds(r.RealMax),
		RealMAD:        seconds(r.RealMAD),
		User:           seconds(r.User),
		Sys:            seconds(r.Sys),
		PeakMemory:     r.PeakMemory,
		SpeedUp:        finite(r.SpeedUp, r.SpeedUp > 0),
		Efficiency:     finite(r.Efficiency, r.SpeedUp > 0),
		SerialFraction: finite(r.SerialFraction, r.divided()),
		Ceiling:        finite(r.Ceiling, r.divided()),
		Samples:        samples,
	}
}

// finite is x, or nil, which becomes null, when it is infinite or not known.
func finite(x float64, known bool) *float64 {
	if !known || math.IsInf(x, 0) || math.IsNaN(x) {
		return nil
	}
	return &x
}

// seconds is a duration that JSON shows as a number of seconds, exact to the nanosecond for
// days.
type seconds time.Duration

// MarshalJSON implements [json.Marshaler].
func (s seconds) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(s).Seconds())
}

// UnmarshalJSON implements [json.Unmarshaler].
func (s *seconds) UnmarshalJSON(data []byte) error {
	var x float64
	if err := json.Unmarshal(data, &x); err != nil {
		return err
	}
	ns := math.Round(x * 1e9)
	if math.Abs(ns) >= math.MaxInt64 {
		return fmt.Errorf("%v seconds are out of range", x)
	}
	*s = seconds(ns)
	return nil
}

package jobs

import (
	"fmt"
	"strconv"
	"strings"
)

// Halt says when no more jobs are to be started.
type Halt struct {
	Now     bool // jobs that run are ended as well
	Failed  int  // after so many have failed, 0: it does not matter
	Succeed int  // after so many have succeeded, likewise
	Done    int  // after so many have ended, likewise
}

// ParseHalt parses "never", or "now" or "soon" with ",fail=N", ",success=N" or ",done=N".
func ParseHalt(text string) (h Halt, err error) {
	if text == "never" {
		return h, nil
	}
	fault := fmt.Errorf("%q is not never, and not now or soon with fail=N, success=N or done=N, as in now,fail=1", text)
	when, what, _ := strings.Cut(text, ",")
	name, number, _ := strings.Cut(what, "=")
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || when != "now" && when != "soon" {
		return Halt{}, fault
	}
	h.Now = when == "now"
	switch name {
	case "fail":
		h.Failed = n
	case "success":
		h.Succeed = n
	case "done":
		h.Done = n
	default:
		return Halt{}, fault
	}
	return h, nil
}

// Reached reports whether enough jobs have ended.
func (h Halt) Reached(failed, succeeded int) bool {
	return h.Failed > 0 && failed >= h.Failed || h.Succeed > 0 && succeeded >= h.Succeed || h.Done > 0 && failed+succeeded >= h.Done
}

// ParseJobs parses how many jobs run at once: N, +N or -N beside the number of CPUs, N% of it, or 0 for as many as
// there are, which most bounds.
func ParseJobs(text string, cpus, most int) (int, error) {
	fault := fmt.Errorf("%q is not a number of jobs; write N, +N, -N (so many more or less than CPUs), N%% of the CPUs, or 0 for as many as possible", text)
	number, percent := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(number)
	if err != nil || percent && n <= 0 {
		return 0, fault
	}
	switch {
	case percent:
		n = max(1, int(int64(cpus)*int64(n)/100))
	case text[0] == '+' || text[0] == '-':
		n = max(1, cpus+n)
	case n == 0:
		n = most
	}
	return min(n, most), nil
}

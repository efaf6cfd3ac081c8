package child

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Limits are what a process sets for itself at its start, before it does anything that
// could exceed them; see [Limits.Apply]. The zero value sets none.
type Limits struct {
	Memory    int64 // bytes; 0: none
	OpenFiles int   // descriptors; 0: as inherited
	Nice      int   // added to the priority that the process has
	CPUs      []int // on which its threads may run; none: as inherited
}

// minMemory is what a Go program needs to do anything, in bytes.
const minMemory = 8 << 20

// minFiles is how many descriptors a worker has by itself, with some to spare.
const minFiles = 16

// Validate returns everything that is wrong with the limits in this process and those that
// it starts.
func (l Limits) Validate() error {
	var errs []error
	if l.Memory != 0 && l.Memory < minMemory {
		errs = append(errs, fmt.Errorf("%s is %d bytes; a process needs at least %d (0 means no limit)", "MemoryLimit", l.Memory, minMemory))
	}
	if l.OpenFiles != 0 && l.OpenFiles < minFiles {
		errs = append(errs, fmt.Errorf("%s is %d; a worker needs at least %d (0 means no limit)", "OpenFiles", l.OpenFiles, minFiles))
	}
	if l.Nice < -20 || l.Nice > 19 {
		errs = append(errs, fmt.Errorf("%s is %d; it goes from -20 to 19", "Nice", l.Nice))
	}
	for _, cpu := range l.CPUs {
		if !hasCPU(cpu) {
			errs = append(errs, fmt.Errorf("%s: this process may not run on CPU %d", "CPUs", cpu))
		}
	}
	return errors.Join(errs...)
}

// zero reports whether there are no limits.
func (l Limits) zero() bool {
	return l.Memory == 0 && l.OpenFiles == 0 && l.Nice == 0 && len(l.CPUs) == 0
}

// String returns the text that ParseLimits reads: "memory:104857600;files:64;nice:5;cpus:0+1".
// It is empty without limits.
func (l Limits) String() string {
	var fields []string
	add := func(name string, n int64) {
		if n != 0 {
			fields = append(fields, name+":"+strconv.FormatInt(n, 10))
		}
	}
	add("memory", l.Memory)
	add("files", int64(l.OpenFiles))
	add("nice", int64(l.Nice))
	if len(l.CPUs) > 0 {
		cpus := make([]string, len(l.CPUs))
		for i, cpu := range l.CPUs {
			cpus[i] = strconv.Itoa(cpu)
		}
		fields = append(fields, "cpus:"+strings.Join(cpus, "+"))
	}
	return strings.Join(fields, ";")
}

// ParseLimits reads what String has made.
func ParseLimits(s string) (l Limits, err error) {
	for field := range strings.SplitSeq(s, ";") {
		name, value, _ := strings.Cut(field, ":")
		switch name {
		case "":
		case "memory":
			l.Memory, err = strconv.ParseInt(value, 10, 64)
		case "files":
			l.OpenFiles, err = strconv.Atoi(value)
		case "nice":
			l.Nice, err = strconv.Atoi(value)
		case "cpus":
			for cpu := range strings.SplitSeq(value, "+") {
				var n int
				if n, err = strconv.Atoi(cpu); err == nil {
					l.CPUs = append(l.CPUs, n)
				}
			}
		default:
			err = errors.New("no such limit")
		}
		if err != nil {
			return l, fmt.Errorf("limit %q: %w", field, err)
		}
	}
	return l, nil
}

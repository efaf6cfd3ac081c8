package scale

import (
	"bufio"
	"io"
	"os"
	"runtime"
	"strings"
)

// Machine tells where a [Report] was measured.
type Machine struct {
	CPUs       int    // that this process may run on: [runtime.NumCPU]
	GOMAXPROCS int    // that Go uses at once; knows a container's quota
	CPUModel   string // as the system names it; "" when it does not say
	OS, Arch   string // [runtime.GOOS] and [runtime.GOARCH]
	GoVersion  string // of the measuring program: [runtime.Version]
}

func thisMachine() Machine {
	m := Machine{
		CPUs:       runtime.NumCPU(),
		GOMAXPROCS: runtime.GOMAXPROCS(0),
		OS:         runtime.GOOS,
		Arch:       runtime.GOARCH,
		GoVersion:  runtime.Version(),
	}
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		m.CPUModel = cpuModel(f)
	}
	return m
}

// cpuModel is the first "model name" of a /proc/cpuinfo, "" on architectures whose has none.
func cpuModel(cpuinfo io.Reader) string {
	for lines := bufio.NewScanner(cpuinfo); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), ":")
		if ok && strings.TrimSpace(name) == "model name" {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	return ""
}

// usable is how many CPUs can work at once, 0 when not known. The smaller number counts: NumCPU
// knows nothing of a container's quota, and GOMAXPROCS can be set above the CPUs there are.
func (m Machine) usable() int { return min(m.CPUs, m.GOMAXPROCS) }

package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A fact is one line of what is known of the machine and the programs.
type fact struct{ name, value string }

// describe returns the facts about where and with what the benchmark runs.
func describe(ctx context.Context, e *env, root string) []fact {
	cpuinfo := readText("/proc/cpuinfo")
	facts := []fact{
		{"date", time.Now().UTC().Format("2006-01-02 15:04 MST")},
		{"CPU", fmt.Sprintf("%s, %d cores, GOMAXPROCS %d", orUnknown(procValue(cpuinfo, "model name")), runtime.NumCPU(), runtime.GOMAXPROCS(0))},
		{"virtualised", virtualised(cpuinfo)},
		{"memory", orUnknown(procValue(readText("/proc/meminfo"), "MemTotal"))},
		{"system", fmt.Sprintf("%s/%s, %s", runtime.GOOS, runtime.GOARCH, orUnknown(readText("/proc/sys/kernel/osrelease")))},
		{"load before", orUnknown(readText("/proc/loadavg"))},
		{"multiproc", firstLine(program("git").output(ctx, root, "describe", "--always", "--dirty", "--abbrev=12"))},
		{"Go", runtime.Version()},
		{"C compiler", firstLine(program("gcc").output(ctx, "", "--version"))},
	}
	for _, peer := range []struct {
		name string
		of   tool
	}{
		{"CPython", e.python},
		{"mpire", e.python},
		{"loky", e.python},
		{"pebble", e.python},
		{"go-plugin", e.goPlugin},
		{"grpc", e.goPlugin},
		{"nats-server", e.engine},
		{"nats.go", e.engine},
		{"asynq", e.asynq},
		{"redis", e.asynq},
		{"ray", e.python},
	} {
		version := e.versions[peer.name]
		switch {
		case version != "":
		case peer.of.why != "":
			version = "missing (" + peer.of.why + ")"
		default:
			version = "missing (" + e.setup + " installs it)"
		}
		facts = append(facts, fact{peer.name, version})
	}
	return facts
}

func readText(name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// procValue returns the first value of a name in a file of /proc.
func procValue(text, name string) string {
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	return ""
}

func virtualised(cpuinfo string) string {
	switch flags := strings.Fields(procValue(cpuinfo, "flags")); {
	case len(flags) == 0:
		return "unknown"
	case slices.Contains(flags, "hypervisor"):
		return "yes, the CPU says that there is a hypervisor"
	default:
		return "no"
	}
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func firstLine(out []byte, err error) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if err != nil {
		line = err.Error()
	}
	return orUnknown(line)
}

// cpuTimes are what the first line of /proc/stat counts, in ticks.
type cpuTimes struct{ all, stolen uint64 }

func readCPUTimes() (t cpuTimes) {
	fields := strings.Fields(firstLine([]byte(readText("/proc/stat")), nil))
	for i, f := range fields {
		var n uint64
		if _, err := fmt.Sscan(f, &n); err != nil || i > 8 { // guest time is part of user time
			continue
		}
		t.all += n
		if i == 8 {
			t.stolen = n
		}
	}
	return t
}

// stolenSince tells which part of the CPUs' time the hypervisor gave to others.
func stolenSince(before cpuTimes) string {
	now := readCPUTimes()
	if now.all <= before.all {
		return "unknown"
	}
	return percent(float64(now.stolen-before.stolen) / float64(now.all-before.all))
}

package main

import (
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestParseKinds(t *testing.T) {
	for list, want := range map[string][]string{
		"threads":              {threads},
		"pool,threads":         {pool, threads},
		" process , pool ":     {process, pool},
		"threads,process,pool": kinds,
	} {
		if got, err := parseKinds(list); err != nil || !slices.Equal(got, want) {
			t.Errorf("parseKinds(%q) = %v, %v, want %v", list, got, err, want)
		}
	}
	for list, want := range map[string]string{
		"":             `--kind: unknown kind ""; there are threads, process, pool`,
		"pool,":        `--kind: unknown kind ""; there are threads, process, pool`,
		"fibres":       `--kind: unknown kind "fibres"; there are threads, process, pool`,
		"sequential":   `--kind: unknown kind "sequential"; there are threads, process, pool`,
		"pool,Threads": `--kind: unknown kind "Threads"; there are threads, process, pool`,
		"pool,pool":    `--kind: pool is there twice`,
	} {
		if got, err := parseKinds(list); err == nil || err.Error() != want {
			t.Errorf("parseKinds(%q) = %v, %v, want %s", list, got, err, want)
		}
	}
}

func TestParseWidths(t *testing.T) {
	for list, want := range map[string][]int{"1": {1}, "4,2": {4, 2}, " 1 , 16 ": {1, 16}} {
		if got, err := parseWidths(list); err != nil || !slices.Equal(got, want) {
			t.Errorf("parseWidths(%q) = %v, %v, want %v", list, got, err, want)
		}
	}
	for list, want := range map[string]string{
		"":                     `--workers: "" is not a number of workers, which is 1 or more`,
		"1,,2":                 `--workers: "" is not a number of workers, which is 1 or more`,
		"two":                  `--workers: "two" is not a number of workers, which is 1 or more`,
		"1,0":                  `--workers: "0" is not a number of workers, which is 1 or more`,
		"-1":                   `--workers: "-1" is not a number of workers, which is 1 or more`,
		"1.5":                  `--workers: "1.5" is not a number of workers, which is 1 or more`,
		"99999999999999999999": `--workers: "99999999999999999999" is not a number of workers, which is 1 or more`,
		"2,1,2":                `--workers: 2 is there twice`,
	} {
		if got, err := parseWidths(list); err == nil || err.Error() != want {
			t.Errorf("parseWidths(%q) = %v, %v, want %s", list, got, err, want)
		}
	}
}

func TestDefaultWidths(t *testing.T) {
	for procs, want := range map[int]string{1: "1,2,4", 4: "1,2,4", 7: "1,2,4", 8: "1,2,4,8", 24: "1,2,4,8,16"} {
		before := runtime.GOMAXPROCS(procs)
		got := defaultWidths()
		runtime.GOMAXPROCS(before)
		if got != want {
			t.Errorf("on %d CPUs %s, want %s", procs, got, want)
		}
	}
}

func TestPlan(t *testing.T) {
	flags := scaleFlags{kinds: "pool", workers: "2", runs: 5}
	for _, tt := range []struct {
		args []string
		name string
		size int
	}{
		{nil, "list-append", 10_000_000},
		{[]string{"files"}, "files", 200},
		{[]string{"sleep"}, "sleep", 100},
	} {
		p, err := flags.plan(tt.args)
		if err != nil || p.workload.name != tt.name || p.size != tt.size {
			t.Errorf("plan(%v) is %s of %d, %v; want %s of %d", tt.args, p.workload.name, p.size, err, tt.name, tt.size)
		}
	}
	flags.size, flags.sizeSet = 3, true
	if p, err := flags.plan([]string{"files"}); err != nil || p.size != 3 {
		t.Errorf("size %d, %v, want 3", p.size, err)
	}
	flags = scaleFlags{kinds: "x", workers: "y", runs: -1, sizeSet: true}
	_, err := flags.plan([]string{"files", "sleep"})
	want := strings.Join([]string{
		"one workload at a time, not 2: files, sleep",
		"--size is 0, want at least 1",
		`--kind: unknown kind "x"; there are threads, process, pool`,
		`--workers: "y" is not a number of workers, which is 1 or more`,
		"--runs is -1, want at least 1",
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestCases(t *testing.T) {
	p := plan{workload: workloads[0], size: 8, kinds: []string{threads, pool}, widths: []int{1, 4}, runs: 1}
	for _, tt := range []struct {
		py   *python
		want string
	}{
		{nil, "sequential 1 <- , threads 1 <- , threads 4 <- , pool 1 <- , pool 4 <- "},
		{&python{}, "sequential 1 <- , threads 1 <- , threads 4 <- , pool 1 <- , pool 4 <- , " +
			"python 1 <- python, python threads 1 <- python, python threads 4 <- python, " +
			"python pool 1 <- python, python pool 4 <- python"},
	} {
		var got []string
		for _, c := range p.cases("", tt.py) {
			got = append(got, c.Kind+" "+string(rune('0'+c.Workers))+" <- "+c.Baseline)
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), tt.want)
		}
	}
}

package main

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/seed84f35039/multiproc/scale"
)

func TestDivide(t *testing.T) {
	for _, tt := range []struct {
		total, n int
		want     []int
	}{
		{10, 1, []int{10}},
		{10, 2, []int{5, 5}},
		{10, 4, []int{3, 3, 2, 2}},
		{2, 4, []int{1, 1, 0, 0}},
	} {
		if got := divide(tt.total, tt.n); !slices.Equal(got, tt.want) {
			t.Errorf("divide(%d, %d) = %v, want %v", tt.total, tt.n, got, tt.want)
		}
	}
}

func TestTasks(t *testing.T) {
	for _, w := range workloads {
		for _, workers := range []int{1, 2, 3, 8} {
			want := 7
			if w.shares {
				want = workers
			}
			total := 0
			tasks := w.tasks(7, workers, "dir")
			for i, task := range tasks {
				total += task.Count
				if task.Index != i || task.Workload != w.name || task.Dir != "dir" {
					t.Errorf("task %d is %+v", i, task)
				}
			}
			if len(tasks) != want || total != 7 {
				t.Errorf("%s: %d tasks of %d in all for %d workers, want %d of 7", w.name, len(tasks), total, workers, want)
			}
		}
	}
}

func TestPeakMemory(t *testing.T) {
	own := os.Getpid()
	other := func(n int) int { return own + n }
	for _, tt := range []struct {
		name     string
		workers  int
		own      int64
		outcomes []outcome
		want     int64
	}{
		{"alone", 4, 100, nil, 100},
		{"threads", 4, 100, []outcome{{PID: own, Peak: 90}, {PID: own, Peak: 95}}, 100},
		{"pool: the highest of each worker", 2, 100, []outcome{
			{PID: other(1), Peak: 10}, {PID: other(2), Peak: 20}, {PID: other(1), Peak: 15}, {PID: other(2), Peak: 20},
		}, 135},
		{"pool: a worker without a task", 2, 100, []outcome{{PID: other(1), Peak: 10}}, 110},
		{"process: as many as can run at once", 2, 100, []outcome{
			{PID: other(1), Peak: 10}, {PID: other(2), Peak: 30}, {PID: other(3), Peak: 20},
		}, 150},
		{"own not known", 2, 0, []outcome{{PID: other(1), Peak: 10}}, 0},
		{"a worker's not known", 2, 100, []outcome{{PID: other(1), Peak: 10}, {PID: other(2)}}, 0},
	} {
		if got := peakMemory(tt.workers, tt.own, tt.outcomes); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// Every workload does all of its work on every kind, leaves nothing, and knows what that cost.
func TestMeasure(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("worker processes need Linux or another Unix")
	}
	const mib = 1 << 20
	for _, w := range workloads {
		for _, kind := range append([]string{scale.Sequential}, kinds...) {
			t.Run(w.name+"/"+kind, func(t *testing.T) {
				dir, workers := t.TempDir(), 2
				if kind == scale.Sequential {
					workers = 1
				}
				j := job{Kind: kind, Workers: workers, Workload: w.name, Size: 5, Dir: dir}
				s, err := j.run(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if s.Real <= 0 || s.User+s.Sys <= 0 || s.PeakMemory < mib || s.PeakMemory > 1024*mib {
					t.Errorf("it cost %+v", s)
				}
				if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
					t.Errorf("left in the folder: %v, %v", left, err)
				}
			})
		}
	}
}

func TestMeasureFails(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("worker processes need Linux or another Unix")
	}
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	for name, tt := range map[string]struct {
		j    job
		want string
	}{
		"no folder": {job{Kind: pool, Workers: 2, Workload: "files", Size: 3, Dir: nowhere}, "nowhere"},
		"workload":  {job{Kind: pool, Workers: 2, Workload: "naps", Size: 3}, `unknown workload "naps"`},
		"kind":      {job{Kind: "fibres", Workers: 2, Workload: "sleep", Size: 3}, `unknown kind "fibres"`},
	} {
		if _, err := tt.j.run(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, tt.want)
		}
	}
	if err := enough(3, 3); err != nil {
		t.Error(err)
	}
	if err := enough(2, 3); err == nil {
		t.Error("2 of 3 are enough")
	}
}

func TestProgress(t *testing.T) {
	var b strings.Builder
	p := progress{&b}
	p.show(scale.Step{Kind: pool, Workers: 4, Done: 3, Total: 9, Sample: scale.Sample{Real: 1_500_000_000}})
	p.clear()
	if want := "\r\x1b[K3 of 9 runs: pool ×4 took 1.500 s\r\x1b[K"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	newProgress(f).show(scale.Step{})
	if info, err := f.Stat(); err != nil || info.Size() > 0 {
		t.Errorf("a file got the progress: %v, %v", info, err)
	}
}

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"program": 0o755, "text": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	t.Setenv("PATH", strings.Join([]string{".", "", filepath.Join(dir, "nowhere"), dir}, string(filepath.ListSeparator)))
	if got, err := lookPath("program"); err != nil || got != filepath.Join(dir, "program") {
		t.Errorf("got %q, %v", got, err)
	}
	for _, name := range []string{"text", "none"} {
		if got, err := lookPath(name); err == nil && runtime.GOOS != "windows" {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

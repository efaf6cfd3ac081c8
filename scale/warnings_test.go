package scale

import (
	"slices"
	"testing"
)

func TestWarnings(t *testing.T) {
	calm := []Row{
		row(Sequential, 1, 1000, 1001, 1002), row("pool", 2, 550, 551, 552), row("pool", 4, 320, 321, 322),
	}
	for _, tt := range []struct {
		name   string
		rows   []Row
		change func(*Report)
		want   []string
	}{
		{name: "none", rows: calm},
		{
			name: "too short",
			rows: []Row{row(Sequential, 1, 0.04, 0.04, 0.04), row("pool", 2, 0.6, 0.6, 0.6), row("pool", 4, 0.5, 0.5, 0.5)},
			want: []string{"sequential took 40µs, less than the start of a process: choose a larger size"},
		},
		{
			name: "interrupted", rows: calm, change: func(r *Report) { r.Interrupted = true },
			want: []string{"the measurement was interrupted: runs are missing, maybe whole cases"},
		},
		{
			name: "more workers than CPUs", rows: calm, change: func(r *Report) { r.Machine.CPUs = 2 },
			want: []string{"4 workers on 2 CPUs: they share cores, so the speed-up of computing cannot exceed 2"},
		},
		{
			name: "a quota counts", rows: calm, change: func(r *Report) { r.Machine.GOMAXPROCS = 1 },
			want: []string{
				"2 and 4 workers on 1 CPU: they share cores, so the speed-up of computing cannot exceed 1",
				"pool ×2 and ×4 kept every CPU busy: too few CPUs held it back, not only serial work, " +
					"and the fit leaves it out",
			},
		},
		{name: "CPUs not known", rows: calm, change: func(r *Report) { r.Machine = Machine{} }},
		{
			name: "few runs of one", rows: append(slices.Clone(calm), row("threads", 2, 600, 605), row("threads", 4, 350, 350, 350)),
			want: []string{"fewer than 3 runs of threads ×2: no spread to speak of"},
		},
		{
			name: "few runs of all",
			rows: []Row{row(Sequential, 1, 1000), row("pool", 2, 550), row("pool", 4, 550)},
			want: []string{"fewer than 3 runs of every case: no spread to speak of"},
		},
		{
			name: "noise",
			rows: []Row{row(Sequential, 1, 1000, 1000, 1000), row("pool", 2, 440, 550, 660), row("pool", 4, 300, 300, 900)},
			want: []string{"pool ×2 is noisy: its runs spread (MAD) by 20% of their median"},
		},
		{
			name: "a tenth is not above a tenth",
			rows: []Row{row(Sequential, 1, 900, 1000, 1100), row("pool", 2, 550, 550, 550), row("pool", 4, 300, 300, 300)},
		},
		{
			name: "alike",
			rows: []Row{
				row(Sequential, 1, 1000, 1000, 1000), row("pool", 2, 540, 550, 560), row("pool", 4, 540, 550, 565),
				row("threads", 2, 540, 550, 560), row("threads", 4, 520, 530, 540),
			},
			want: []string{
				"pool ×2 and ×4 cannot be told apart: medians differ by 0.000 s, spreads (MAD) add up to 0.020 s",
				"threads ×2 and ×4 cannot be told apart: medians differ by 0.020 s, spreads (MAD) add up to 0.020 s",
			},
		},
		{
			name: "just apart, though the intervals overlap",
			rows: []Row{row(Sequential, 1, 1000, 1000, 1000), row("pool", 2, 540, 550, 560), row("pool", 4, 519, 529, 550)},
		},
		{
			name: "superlinear",
			rows: []Row{row(Sequential, 1, 1000, 1000, 1000), row("pool", 2, 400, 400, 400), row("pool", 4, 300, 300, 300)},
			want: []string{"pool is superlinear, 2.50× at 2: " +
				"does its baseline do the same work, or do caches explain it?"},
		},
		{
			name: "one point", rows: calm[:2],
			want: []string{"the fit of pool rests on one point, 2 workers"},
		},
		{
			name: "no baseline", rows: calm[1:],
			want: []string{"pool has no speed-up: its baseline, sequential ×1, was not measured"},
		},
		{
			name: "no time",
			rows: []Row{row(Sequential, 1, 0, 0, 0), row("pool", 2, 1, 1, 1), row("pool", 4, 0, 0, 0)},
			want: []string{
				"sequential ×1 took no measurable time: nothing can be compared with it",
				"pool ×4 took no measurable time: nothing can be compared with it",
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := reportOf(slices.Clone(tt.rows)...)
			if tt.change != nil {
				tt.change(r)
			}
			if got := r.Warnings(); !slices.Equal(got, tt.want) {
				t.Errorf("got\n%q\nwant\n%q", got, tt.want)
			}
		})
	}
}

func TestEnumerate(t *testing.T) {
	for want, words := range map[string][]string{
		"": nil, "a": {"a"}, "a and b": {"a", "b"}, "a, b and c": {"a", "b", "c"},
	} {
		if got := enumerate(words); got != want {
			t.Errorf("enumerate(%q) = %q, want %q", words, got, want)
		}
	}
}

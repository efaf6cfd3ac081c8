package scale_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/seed84f35039/multiproc/scale"
)

// work stands for a real run, which would read a clock and the processes' resource usage: two seconds
// of computing, a tenth of which cannot be divided.
func work(workers int) func(context.Context) (scale.Sample, error) {
	return func(context.Context) (scale.Sample, error) {
		elapsed := 200*time.Millisecond + 1800*time.Millisecond/time.Duration(workers)
		return scale.Sample{Real: elapsed, User: 2 * time.Second, PeakMemory: int64(workers) * 12 << 20}, nil
	}
}

func ExampleMeasure() {
	report, err := scale.Measure(context.Background(), []scale.Case{
		{Kind: scale.Sequential, Workers: 1, Run: work(1)},
		{Kind: "pool", Workers: 2, Run: work(2)},
		{Kind: "pool", Workers: 4, Run: work(4)},
	}, scale.Options{Runs: 7})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, row := range report.Rows {
		fmt.Printf("%s ×%d: %v, speed-up %.2f, efficiency %.2f\n",
			row.Kind, row.Workers, row.Real, row.SpeedUp, row.Efficiency)
	}
	// Output:
	// sequential ×1: 2s, speed-up 1.00, efficiency 1.00
	// pool ×2: 1.1s, speed-up 1.82, efficiency 0.91
	// pool ×4: 650ms, speed-up 3.08, efficiency 0.77
}

func ExampleReport_WriteTable() {
	report, err := scale.Measure(context.Background(), []scale.Case{
		{Kind: scale.Sequential, Workers: 1, Run: work(1)},
		{Kind: "pool", Workers: 2, Run: work(2)},
		{Kind: "pool", Workers: 4, Run: work(4)},
	}, scale.Options{Workload: "primes", Size: "1 to 2000000", Runs: 7})
	if err != nil {
		fmt.Println(err)
		return
	}
	// For an output that is the same everywhere.
	report.Machine = scale.Machine{CPUs: 4, GOMAXPROCS: 4, OS: "linux", Arch: "amd64", GoVersion: "go1.26.0"}
	if err := report.WriteTable(os.Stdout); err != nil {
		fmt.Println(err)
	}
	// Output:
	// primes, 1 to 2000000
	// linux/amd64, 4 CPUs, GOMAXPROCS 4, go1.26.0
	// medians of 7 interleaved runs
	//
	// kind        workers   real    MAD    min    max   user    sys  memory  speed-up  eff.  serial
	//                          s      s      s      s      s      s     MiB         ×     %
	// sequential        1  2.000  0.000  2.000  2.000  2.000  0.000    12.0      1.00   100       -
	// pool              2  1.100  0.000  1.100  1.100  2.000  0.000    24.0      1.82    91   0.100
	// pool              4  0.650  0.000  0.650  0.650  2.000  0.000    48.0      3.08    77   0.100
	//
	// Amdahl's law, with a CPU for each worker:
	//   pool: serial fraction 0.100 → at most 10.0× however many workers; predicted 1.82× at 2, 3.08× at 4
}

func ExampleAmdahl() {
	const serial = 0.1 // a tenth of the work cannot be divided
	for _, n := range []int{1, 2, 4, 100} {
		fmt.Printf("%d workers: %.2f×\n", n, scale.Amdahl(serial, n))
	}
	fmt.Printf("at most %.0f×\n", scale.Ceiling(serial))
	// Output:
	// 1 workers: 1.00×
	// 2 workers: 1.82×
	// 4 workers: 3.08×
	// 100 workers: 9.17×
	// at most 10×
}

func ExampleKarpFlatt() {
	// 3.8 times as fast with 4 processes: how much of the work was not divided?
	e := scale.KarpFlatt(3.8, 4)
	fmt.Printf("serial fraction %.3f, so at most %.0f×\n", e, scale.Ceiling(e))
	// Output: serial fraction 0.018, so at most 57×
}

package child

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// pageSize is in bytes.
var pageSize = int64(os.Getpagesize())

// tick is the unit of CPU times in /proc: sysconf(_SC_CLK_TCK) is 100 wherever Go runs.
const tick = 10 * time.Millisecond

// UsageOf returns what a process uses.
func UsageOf(pid int) (Usage, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return Usage{}, err
	}
	// The name, in parentheses, may contain anything. Fields are counted as in proc(5).
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const first, utime, stime, rss = 3, 14, 15, 24
	if len(fields) <= rss-first {
		return Usage{}, fmt.Errorf("%s/stat: cannot be read: %q", dir, stat)
	}
	number := func(field int) (n int64) {
		n, e := strconv.ParseInt(string(fields[field-first]), 10, 64)
		if e != nil {
			err = fmt.Errorf("%s/stat: field %d: %w", dir, field, e)
		}
		return n
	}
	u := Usage{RSS: number(rss) * pageSize, CPU: time.Duration(number(utime)+number(stime)) * tick}
	return u, err
}

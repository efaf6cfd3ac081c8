package jobs

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// LogHeader is the first line of a job log.
const LogHeader = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n"

// Entry is a line of a job log.
type Entry struct {
	Seq     int
	Host    string // ":" for this one
	Start   time.Time
	Runtime time.Duration
	Receive int64 // bytes of standard output
	Exit    int   // exit code, 0 where a signal ended it, -1 where it was killed for its time
	Signal  int
	Command string
}

// WriteTo writes the line, in the format of GNU parallel.
func (e Entry) WriteTo(w io.Writer) (int64, error) {
	n, err := fmt.Fprintf(w, "%d\t%s\t%10.3f\t%10.3f\t%d\t%d\t%d\t%d\t%s\n",
		e.Seq, e.Host, float64(e.Start.UnixMilli())/1e3, e.Runtime.Seconds(), 0, e.Receive, e.Exit, e.Signal,
		strings.ReplaceAll(e.Command, "\n", "\x00"))
	return int64(n), err
}

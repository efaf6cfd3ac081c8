package main

import (
	"fmt"
	"io"
	"os"

	"github.com/seed84f35039/multiproc/scale"
)

// progress shows how far a measurement has come, in one line that is written again and again. It is
// for somebody who looks at a terminal; elsewhere it shows nothing.
type progress struct{ w io.Writer }

func newProgress(w io.Writer) progress {
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return progress{w}
		}
	}
	return progress{io.Discard}
}

// toStart moves to the start of the line and empties it.
const toStart = "\r\x1b[K"

func (p progress) show(s scale.Step) {
	fmt.Fprintf(p.w, toStart+"%d of %d runs: %s ×%d took %.3f s", s.Done, s.Total, s.Kind, s.Workers, s.Sample.Real.Seconds())
}

func (p progress) clear() { fmt.Fprint(p.w, toStart) }

package wire_test

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/seed84f35039/multiproc/internal/wire"
)

// TestAppendGreeting compares greetings with what the codec makes of them.
func TestAppendGreeting(t *testing.T) {
	for _, g := range []wire.Greeting{
		{},
		{Version: wire.Version, Build: "5009550-1795518341361965000", PID: 25430},
		{Version: 23, Build: strings.Repeat("x", 23), PID: 24},
		{Version: 255, Build: strings.Repeat("x", 24), PID: 256},
		{Version: 65535, Build: strings.Repeat("x", 256), PID: 65536},
		{Version: math.MaxInt32, Build: strings.Repeat("x", 65536), PID: math.MaxInt},
	} {
		want, err := wire.Encode(nil, &g)
		if err != nil {
			t.Fatal(err)
		}
		if got := wire.AppendGreeting(nil, g); !bytes.Equal(got, want) {
			t.Errorf("%.100v: got % x, want % x", g, got[:min(len(got), 40)], want[:min(len(want), 40)])
		}
		var back wire.Greeting
		if err := wire.Decode(want, &back); err != nil || back != g {
			t.Errorf("%.100v arrives as %.100v, %v", g, back, err)
		}
	}
}

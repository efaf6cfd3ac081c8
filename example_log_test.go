//go:build unix

package multiproc_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/seed84f35039/multiproc"
)

// wordCount says what it does by log/slog.
var wordCount = multiproc.Register("example.wordCount", func(ctx context.Context, text string) (int, error) {
	n := len(strings.Fields(text))
	if n == 0 {
		slog.WarnContext(ctx, "no words", "bytes", len(text))
	}
	slog.DebugContext(ctx, "counted", "words", n) // the logger below does not want it, so it is not sent
	return n, nil
})

// What workers log arrives at a logger of this process.
func ExamplePoolConfig_logger() {
	handler := slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "pid" { // they differ each time
				return slog.Attr{}
			}
			return a
		},
	})
	pool := multiproc.NewPool(multiproc.PoolConfig{Logger: slog.New(handler)})
	defer pool.Close()
	out, err := wordCount.Map(context.Background(), pool, []string{"one two", "  ", "three"})
	fmt.Println(out, err)
	// Output:
	// level=WARN msg="no words" bytes=2 worker.func=example.wordCount worker.index=1
	// [2 0 1] <nil>
}

package proctest

import (
	"bytes"
	"slices"
	"testing"

	"github.com/seed84f35039/multiproc"
)

// What has been asked for need not be taken.
var unreadCases = []behaviour{
	{"47 results that fill every buffer and that nobody takes do not hold up Close", needs{}, closeUnread},
	{"P10 leaving a stream and closing at once", needs{}, leaveAndClose},
}

// closeUnread closes an executor before it looks at large results.
func closeUnread(t *testing.T, s Subject) {
	ex := s.Open(Options{Workers: 2})
	in := bytes.Repeat([]byte{7}, 4<<20)
	var futures []*multiproc.Future[[]byte]
	for range 6 {
		futures = append(futures, Echo.Go(Within(t), ex, in))
	}
	Promptly(t, "Close", func() {
		if err := ex.Close(); err != nil {
			t.Error(err)
		}
	})
	for i, fut := range futures {
		out, err := fut.Wait(Within(t))
		if err != nil || !bytes.Equal(out, in) {
			t.Errorf("result %d: %d bytes, %v", i, len(out), err)
		}
	}
}

// leaveAndClose takes some results of a stream, whose window is full by then.
func leaveAndClose(t *testing.T, s Subject) {
	for _, take := range []int{1, 2, 5, 8, 9} {
		ex := s.Open(Options{Workers: 2})
		forever := func(yield func(int) bool) {
			for i := 0; yield(i); i++ {
			}
		}
		var got []int
		for out, err := range Square.Stream(Within(t), ex, forever, multiproc.WithWindow(8), multiproc.WithBatch(2)) {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, out); len(got) == take {
				break
			}
		}
		Want(t, "results", got, Squares(take))
		for range Square.StreamUnordered(Within(t), ex, slices.Values(Numbers(20)), multiproc.WithWindow(8)) {
			break
		}
		Promptly(t, "Close", func() {
			if err := ex.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

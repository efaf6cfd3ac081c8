package proctest

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/seed84f35039/multiproc/internal/transport"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// TestParseFaults reads texts, and writes them as they were.
func TestParseFaults(t *testing.T) {
	for _, text := range []string{
		"drop 1%", "delay 2ms 5%", "truncate 0.5% in", "corrupt 100% out", "kill 17", "kill 2-40 in",
		"drop 1% | delay 2ms 5% | truncate 1% | corrupt 1% | kill 17",
	} {
		f, err := ParseFaults(text, 7)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		Want(t, text, f.String(), `ParseFaults("`+text+`", 7)`)
	}
	for text, says := range map[string]string{
		"":               "has no kind",
		"drop 1% | ":     "has no kind",
		"in":             "has no kind",
		"lose 1%":        "no such kind",
		"drop":           "want a number",
		"drop 1":         "want a percentage",
		"drop 0%":        "want a percentage",
		"drop 101%":      "want a percentage",
		"drop NaN%":      "want a percentage",
		"drop 1% 2%":     "want a number",
		"drop 1% up":     "want a number",
		"delay 5%":       "want a number",
		"delay 5 5%":     "want a number",
		"delay -1ms 5%":  "want a number",
		"kill 0":         "number of a frame",
		"kill 5-4":       "number of a frame",
		"kill 5- in":     "number of a frame",
		"corrupt 1% in,": "want a number",
	} {
		if _, err := ParseFaults(text, 7); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v, want %q", text, err, says)
		}
	}
}

// got returns which of ten frames arrive that go this way, with these faults, and how that
// ends; also whether the worker was killed.
func got(t *testing.T, text string, seed uint64, to way) (ids []uint64, err error, killed bool) {
	t.Helper()
	f, err := ParseFaults(text, seed)
	if err != nil {
		t.Fatal(err)
	}
	ours, worker := transport.Pipe()
	parent := f.Wrap(ours, func() {
		killed = true
		worker.Close()
	})
	from, at := worker, parent
	if to == out {
		from, at = parent, worker
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		defer from.Close()
		for id := range uint64(10) {
			if from.Send(wire.Append(nil, wire.Started, id+1, nil), nil, transport.Now) != nil {
				return
			}
		}
	}()
	for {
		m, err := transport.Recv(at)
		if err != nil {
			at.Close()
			<-sent
			return ids, err, killed
		}
		ids = append(ids, m.ID)
	}
}

// TestFaultyConn has one kind of fault at a time, and looks what comes of it.
func TestFaultyConn(t *testing.T) {
	all := []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for _, to := range []way{in, out} {
		other := map[way]string{in: " out", out: " in"}[to]
		for _, text := range []string{"delay 1ms 50%", "drop 50%" + other, "kill 3" + other, "kill 100"} {
			if ids, err, killed := got(t, text, 1, to); !slices.Equal(ids, all) || err != io.EOF || killed {
				t.Errorf("%s, %s: got %v, %v, %t", text, to, ids, err, killed)
			}
		}
		lossy, err, _ := got(t, "drop 30%", 4, to)
		if len(lossy) < 1 || len(lossy) > 9 || err != io.EOF {
			t.Errorf("drop %s: got %v, %v", to, lossy, err)
		}
		if again, _, _ := got(t, "drop 30%", 4, to); !slices.Equal(lossy, again) {
			t.Errorf("drop %s: got %v, and then %v", to, lossy, again)
		}
		if ids, err, _ := got(t, "truncate 20%", 3, to); len(ids) > 9 || !slices.Equal(ids, all[:len(ids)]) || err == nil {
			t.Errorf("truncate %s: got %v, %v", to, ids, err)
		}
		if ids, err, _ := got(t, "corrupt 100%", 2, to); err == io.EOF && slices.Equal(ids, all) {
			t.Errorf("corrupt %s: got all", to)
		}
	}
	// Of a worker that is killed, what it has sent arrives; what is sent to it does not.
	if ids, _, killed := got(t, "kill 4", 1, in); !slices.Equal(ids, all[:4]) || !killed {
		t.Errorf("kill in: got %v, %t", ids, killed)
	}
	if ids, _, killed := got(t, "kill 4", 1, out); !slices.Equal(ids, all[:3]) || !killed {
		t.Errorf("kill out: got %v, %t", ids, killed)
	}
}

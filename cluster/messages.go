package cluster

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// chunk is what a message to agents holds: calls of one function.
type chunk struct {
	Job     string
	ID      uint64
	Program string // what runs it: the hash of an executable
	Func    string
	Key     string // of the calls, with First, as multiproc.Batch.Key says
	First   uint64
	N       int           // how many calls
	Flush   time.Duration // how long an answer may wait for those to the others, if that is longer than flushEvery
	Size    int           // how many of them a worker is handed at a time; 0: all
	Args    []byte        // as multiproc.Batch.AppendArgs makes them
	Blob    string        // the object that has them instead, or empty
	BlobLen int64         // how many bytes that has
}

// What an agent does not take from anybody.
const (
	maxCalls = 1 << 20
	maxBlob  = 4 << 30
	minArg   = 4 // bytes of an argument
)

func encodeChunk(c *chunk) ([]byte, error) { return wire.Encode(nil, c) }

// decodeChunk reads a chunk, which is hostile until checked.
func decodeChunk(data []byte) (c chunk, err error) {
	if err := wire.Decode(data, &c); err != nil {
		return c, err
	}
	switch {
	case c.Func == "" || c.Program == "":
		err = errors.New("it has no function or program")
	case c.Key == "" || len(c.Key) > wire.MaxKey:
		err = fmt.Errorf("it has a key of %d bytes", len(c.Key))
	case c.N < 1 || c.N > maxCalls:
		err = fmt.Errorf("it has %d calls", c.N)
	case c.Size < 0:
		err = fmt.Errorf("it hands %d calls to a worker", c.Size)
	case c.BlobLen < 0 || c.BlobLen > maxBlob:
		err = fmt.Errorf("it has an object of %d bytes", c.BlobLen)
	case !blobOf(c.Job, c.Blob):
		err = fmt.Errorf("it has an object of another job, %.100q", c.Blob)
	case int64(c.N) > max(int64(len(c.Args)), c.BlobLen)/minArg:
		err = fmt.Errorf("it has %d calls, and %d bytes of arguments", c.N, max(int64(len(c.Args)), c.BlobLen))
	}
	return c, errors.Join(err, checkJob(c.Job))
}

// blobOf reports whether a job may have an object of that name. Those of users with names of their own in their buckets lead nowhere
// else, whatever is linked to.
func blobOf(job, name string) bool { return name == "" || strings.HasPrefix(name, job+".") }

// splitArgs takes n arguments apart.
func splitArgs(args []byte, n int) (each [][]byte, err error) {
	each = make([][]byte, 0, min(n, len(args)/4))
	for i := range n {
		arg, rest, err := wire.SplitArg(args)
		if err != nil {
			return nil, fmt.Errorf("argument %d of %d: %w", i, n, err)
		}
		each, args = append(each, arg), rest
	}
	if len(args) > 0 {
		return nil, fmt.Errorf("there are %d bytes behind the last argument", len(args))
	}
	return each, nil
}

// outcome is what a message to a submitter holds: answers to calls of a chunk, perhaps not to all.
type outcome struct {
	Chunk     uint64
	Agent     string
	From      string        // the key of the agent in the list of those that are there
	Ran       time.Duration // how long the calls have taken so far, all in all
	Withdrawn bool          // no call of it runs any more, as nobody wants them
	Begun     bool          // it is about to run, having been lost with agents before
	Running   bool          // it runs, though its job has been stopped
	Returned  bool          // no call of it runs any more, as the agent ends; what is not answered is to be sent again
	Lost      bool          // it was not run, as the object with its arguments is not there
	Refused   string        // why no call of it is run, or empty
	Answers   []byte        // see appendAnswer
	Blob      string        // the object that has them instead, or empty
	BlobLen   int64
}

func encodeOutcome(o *outcome) ([]byte, error) { return wire.Encode(nil, o) }

// decodeOutcome reads an outcome for a job, which is hostile until checked.
func decodeOutcome(job string, data []byte) (o outcome, err error) {
	if err := wire.Decode(data, &o); err != nil {
		return o, err
	}
	if o.BlobLen < 0 || o.BlobLen > maxBlob {
		err = fmt.Errorf("it has an object of %d bytes", o.BlobLen)
	} else if !blobOf(job, o.Blob) {
		err = fmt.Errorf("it has an object of another job, %.100q", o.Blob)
	}
	return o, err
}

// kind says what an answer is.
type kind uint8

const (
	isResult  kind = iota // the encoded result
	isFailure             // an encoded wire.Failure
	isCrash               // an encoded crash
	isTimeout             // an encoded timeout
	isError               // the text of an error of the agent
)

// crash is what a multiproc.CrashError tells.
type crash struct {
	Signal      int
	ExitCode    int
	OutOfMemory bool
	Reason      string
	Stderr      string
	Crashes     int
}

func (x crash) error() *multiproc.CrashError {
	return &multiproc.CrashError{
		Signal: syscall.Signal(x.Signal), ExitCode: x.ExitCode, OutOfMemory: x.OutOfMemory,
		Reason: x.Reason, Stderr: x.Stderr, Crashes: x.Crashes,
	}
}

// timeout is what a multiproc.TimeoutError tells.
type timeout struct {
	Limit   time.Duration
	CPU     bool
	Hard    bool
	Failure []byte // where it is not hard
}

// answer is what has become of a call, or the results of several, one after the other.
type answer struct {
	i, pid int
	kind   kind
	bodies [][]byte // of the calls from i on; one, unless they are results
}

// appendAnswer appends the index of the first call in its chunk and the process as uvarints, the kind, how many bodies there are as
// a uvarint, and the bodies, each with its length before it as a uvarint.
func appendAnswer(dst []byte, a answer) []byte {
	dst = binary.AppendUvarint(dst, uint64(a.i))
	dst = binary.AppendUvarint(dst, uint64(max(a.pid, 0)))
	dst = append(dst, byte(a.kind))
	dst = binary.AppendUvarint(dst, uint64(len(a.bodies)))
	for _, body := range a.bodies {
		dst = binary.AppendUvarint(dst, uint64(len(body)))
		dst = append(dst, body...)
	}
	return dst
}

var errCutShort = errors.New("an answer is cut short")

// splitAnswers takes answers apart, which should be to n calls at most. Their bodies are parts of data.
func splitAnswers(data []byte, n int) (answers []answer, err error) {
	bodies := make([][]byte, 0, min(n, len(data))) // of all of them
	for len(data) > 0 {
		var i, pid, count uint64
		var what kind
		if i, data, err = splitNumber(data); err == nil {
			pid, data, err = splitNumber(data)
		}
		if err == nil && len(data) == 0 {
			err = errCutShort
		}
		if err == nil {
			what, data = kind(data[0]), data[1:]
			count, data, err = splitNumber(data)
		}
		if err != nil {
			return nil, err
		}
		if i >= maxCalls || count < 1 || count > maxCalls-i || pid > 1<<31 || what > isError || what != isResult && count != 1 {
			return nil, fmt.Errorf("%d answers of kind %d to call %d of process %d", count, what, i, pid)
		}
		from := len(bodies)
		for range count {
			size, rest, err := splitNumber(data)
			if err != nil || size > uint64(len(rest)) {
				return nil, errCutShort
			}
			bodies, data = append(bodies, rest[:size:size]), rest[size:]
		}
		answers = append(answers, answer{int(i), int(pid), what, bodies[from:len(bodies):len(bodies)]})
	}
	return answers, nil
}

// splitNumber takes a uvarint off data.
func splitNumber(data []byte) (n uint64, rest []byte, err error) {
	n, size := binary.Uvarint(data)
	if size <= 0 {
		return 0, nil, errCutShort
	}
	return n, data[size:], nil
}

// inOrder sorts answers by their calls.
func inOrder(answers []answer) {
	slices.SortStableFunc(answers, func(a, b answer) int { return a.i - b.i })
}

// control is what a submitter tells agents at once.
type control struct {
	Cancel []uint64 // chunks that are not wanted any more: the first and the last of each stretch of them
	Stop   bool     // chunks that have not begun are to be given back, now and from now on
}

// stretch is chunks with numbers one after the other.
type stretch struct{ first, last uint64 }

// stretches returns the fewest that have all of some chunks, and none of others. It sorts both.
func stretches(chunks, others []uint64) (list []stretch) {
	slices.Sort(chunks)
	slices.Sort(others)
	for _, id := range chunks {
		between := false
		for len(others) > 0 && others[0] < id {
			others, between = others[1:], true
		}
		if n := len(list); n > 0 && !between {
			list[n-1].last = id
		} else {
			list = append(list, stretch{id, id})
		}
	}
	return list
}

// join returns the stretches of both, in order.
func join(a, b []stretch) (list []stretch) {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(x, y stretch) int { return cmp.Compare(x.first, y.first) })
	for _, s := range all {
		if n := len(list); n > 0 && s.first <= list[n-1].last+1 {
			list[n-1].last = max(list[n-1].last, s.last)
		} else {
			list = append(list, s)
		}
	}
	return list
}

// within reports whether a chunk is in stretches, which are in order.
func within(list []stretch, id uint64) bool {
	at, found := slices.BinarySearchFunc(list, id, func(s stretch, id uint64) int { return cmp.Compare(s.first, id) })
	return found || at > 0 && id <= list[at-1].last
}

// presence is what an agent says of itself.
type presence struct {
	Name     string
	Host     string
	Platform string
	Slots    int
	Held     int // chunks
	Done     uint64
	Version  int
	Leaving  bool // it takes no more
}

func encodePresence(p *presence) ([]byte, error) { return wire.Encode(nil, p) }

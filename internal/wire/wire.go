// Package wire is what travels between a parent and its workers: frames, the
// handshake, the encoding of arguments and results, and the encoding of errors.
//
// The format is the protocol a worker in any language has to speak. A stream
// carries frames; a frame is a 16-byte header and a body:
//
//	offset  size  field
//	0       1     kind; the highest bit says that the next call has started
//	1       1     length of the filler
//	2       6     length of filler and body, little-endian
//	8       8     id of the call, little-endian; 0 where the frame concerns no call
//	16      n     filler, which is skipped, and body
//
// Instead of a Result whose nanoseconds are 0, if the result has less than 256 bytes and the
// next call has started, a worker may send this:
//
//	0       1     255
//	1       1     length of the result
//	2       n     CBOR result
//
// Arguments, results and errors are CBOR (RFC 8949) with definite lengths and no
// key twice in a map; arguments and results that are slices of numbers are typed arrays
// (RFC 8746), little-endian. See [Kind] for the frames and the order in which they may
// come.
//
// Everything here is pure: no goroutines, no clocks, no processes. Whatever is
// decoded is taken to be hostile; lengths are checked before memory is reserved.
package wire

// Version is the version of the protocol, sent in the worker's environment and
// in its [Hello]. A parent and a worker of different versions refuse each other.
const Version = 5

// Kind tells what a frame means.
type Kind uint8

// The worker speaks first, with Hello. From then on the parent sends Calls, Cancel,
// Recall and Stop, and the worker answers each call with exactly one of Result, Failed
// and Returned. The calls of one frame have consecutive ids, and so have those of
// consecutive frames. A worker starts calls in the order in which they came, says
// Started before it runs one, or lets the answer to the call before say so, and lets a
// frame leave before it starts the next call, so that the parent always knows which call
// it was running when it died. The nanoseconds of an answer are how long the call ran,
// together with the calls before it whose answers said 0. Log may come at any time. Each
// worker knows a function whose name is empty and which returns its argument.
//
// Calls and Call begin with a head: length of the function's name (uvarint, at most 255), name,
// length of a key (likewise), key, and a number (uvarint). An empty key stands for that of the last
// frame that had one, if there was one. Then call i of the frame, from 0, has the idempotency key "<key>/<number+i>",
// in decimal and modulo 1<<64, which the worker lets the function know. A call that is sent again, to
// whomever, has the same. Calls of id 0, which are for the worker itself, have none.
const (
	Hello    Kind = 1  // worker to parent; body: CBOR Greeting
	Calls    Kind = 2  // parent to worker; id of the first; body: head, and for each call its argument: length (4 bytes, little-endian), CBOR
	Started  Kind = 3  // worker to parent; id; no body: the call runs from now on
	Result   Kind = 4  // worker to parent; id; body: nanoseconds (8 bytes), CBOR result
	Failed   Kind = 5  // worker to parent; id; body: nanoseconds (8 bytes), CBOR Failure
	Cancel   Kind = 6  // parent to worker; id; body: uvarint n, uvarint milliseconds: give calls id … id+n-1 back; where one runs, end its context and, if it still runs after that time, the worker
	Recall   Kind = 7  // parent to worker; body: uvarint n: give back the last n calls not started
	Returned Kind = 8  // worker to parent; id; body: uvarint n: calls id … id+n-1, where not yet answered, have not been started and will not be; n may be 0
	Stop     Kind = 9  // parent to worker; body: exit code (uvarint), possibly a byte: exit now, with the byte after the calls that came before
	Call     Kind = 10 // parent to worker; id; body: head, CBOR argument, a byte: 1, or 0 if the argument is not complete, as nobody wants the call any more: it is to be given back
	Log      Kind = 12 // worker to parent; id of the call that it is about, or 0: that is not said; body: see AppendRecord; only if the worker was told to
	Exceeded Kind = 13 // worker to parent; id; body: uvarint 0 or 1: the call that runs has exceeded its limit of time, or of CPU time; its context has ended
	Ping     Kind = 14 // parent to worker; no body: say Pong
	Pong     Kind = 15 // worker to parent; no body
	Handover Kind = 11 // both ways; id: 0, or 1 where a message with descriptors has been sent beside the frames, for what the next frame of calls or answer says
)

var kindNames = [...]string{
	Hello: "hello", Calls: "calls", Started: "started", Result: "result", Failed: "failed",
	Cancel: "cancel", Recall: "recall", Returned: "returned", Stop: "stop", Call: "call",
	Handover: "handover", Log: "log", Exceeded: "exceeded", Ping: "ping", Pong: "pong",
}

// String returns the name of the kind, or "unknown".
func (k Kind) String() string {
	if k.known() {
		return kindNames[k]
	}
	return "unknown"
}

func (k Kind) known() bool { return int(k) < len(kindNames) && kindNames[k] != "" }

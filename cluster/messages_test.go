package cluster

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestAnswers(t *testing.T) {
	want := []answer{
		{0, 17, isResult, [][]byte{{1, 2}, nil, {3}}}, {300, 1 << 20, isCrash, [][]byte{nil}}, {maxCalls - 1, 0, isError, [][]byte{bytes.Repeat([]byte("x"), 1000)}},
	}
	var data []byte
	for _, a := range want {
		data = appendAnswer(data, a)
	}
	got, err := splitAnswers(data, 1000)
	if err != nil || len(got) != len(want) {
		t.Fatalf("got %d answers, %v", len(got), err)
	}
	for i, a := range got {
		if a.i != want[i].i || a.pid != want[i].pid || a.kind != want[i].kind || !slices.EqualFunc(a.bodies, want[i].bodies, bytes.Equal) {
			t.Errorf("answer %d is %v, want %v", i, a, want[i])
		}
	}
	for n := 1; n < 9; n++ {
		if _, err := splitAnswers(data[:n], 1000); err == nil {
			t.Errorf("%d bytes are taken for answers", n)
		}
	}
	one := make([][]byte, 1)
	for what, bad := range map[string]answer{
		"call": {i: maxCalls, bodies: one}, "kind": {kind: isError + 1, bodies: one}, "process": {pid: 1 << 40, bodies: one},
		"number": {}, "number of errors": {kind: isError, bodies: make([][]byte, 2)}, "last call": {i: maxCalls - 1, bodies: make([][]byte, 2)},
	} {
		if _, err := splitAnswers(appendAnswer(nil, bad), 1); err == nil {
			t.Errorf("a bad %s is taken", what)
		}
	}
}

// FuzzMessages has hostile bytes be messages.
func FuzzMessages(f *testing.F) {
	c, err1 := encodeChunk(&chunk{Job: "user.j", ID: 1, Program: "p", Func: "f", Key: "k", N: 1, Args: []byte{1, 0, 0, 0, 5}})
	o, err2 := encodeOutcome(&outcome{Chunk: 1, Ran: time.Second, Answers: appendAnswer(nil, answer{0, 1, isResult, [][]byte{{5}}})})
	if err1 != nil || err2 != nil {
		f.Fatal(err1, err2)
	}
	f.Add(c)
	f.Add(o)
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := decodeChunk(data); err == nil {
			if each, err := splitArgs(c.Args, c.N); err == nil && len(each) != c.N {
				t.Errorf("%d arguments of %d", len(each), c.N)
			}
		}
		if o, err := decodeOutcome("user.j", data); err == nil {
			list, _ := splitAnswers(o.Answers, 1000)
			inOrder(list)
		}
		for _, a := range must(splitAnswers(data, 1000)) {
			if a.i < 0 || len(a.bodies) < 1 || a.i+len(a.bodies) > maxCalls || a.pid < 0 {
				t.Errorf("got %v", a)
			}
		}
		decodeLease(data)
	})
}

func must(list []answer, _ error) []answer { return list }

// TestStretches has random chunks be withdrawn among others: all of them are in the stretches, and none of the
// others.
func TestStretches(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var chunks, others []uint64
		for id := range uint64(40) {
			switch rng.IntN(3) {
			case 0:
				chunks = append(chunks, id)
			case 1:
				others = append(others, id)
			}
		}
		list := join(nil, stretches(slices.Clone(chunks), slices.Clone(others)))
		for _, id := range chunks {
			if !within(list, id) {
				t.Fatalf("%v without %v is %v, which has no %d", chunks, others, list, id)
			}
		}
		for _, id := range others {
			if within(list, id) {
				t.Fatalf("%v without %v is %v, which has %d", chunks, others, list, id)
			}
		}
	}
	if list := stretches([]uint64{3, 1, 7}, []uint64{9, 8, 0}); len(list) != 1 {
		t.Errorf("%v, want one", list)
	}
	if list := join([]stretch{{1, 3}, {9, 9}}, []stretch{{4, 5}, {7, 8}}); !slices.Equal(list, []stretch{{1, 5}, {7, 9}}) {
		t.Errorf("%v", list)
	}
}

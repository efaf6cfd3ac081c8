package shm

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

const testSize = 4096

// pair returns both sides of a ring, and its memory.
func pair(t *testing.T) (*Writer, *Reader, *Memory) {
	t.Helper()
	m, err := New("test", RingBytes(testSize))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	w, err := NewWriter(m.Bytes()[:RingBytes(testSize)])
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(m.Bytes()[:RingBytes(testSize)])
	if err != nil {
		t.Fatal(err)
	}
	return w, r, m
}

// What is written in pieces of any size arrives, in order.
func TestRing(t *testing.T) {
	w, r, _ := pair(t)
	rng := rand.New(rand.NewPCG(1, 2))
	var sent, got []byte
	for len(got) < 1<<20 {
		p := make([]byte, rng.IntN(2*testSize))
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		n, err := w.Write(p)
		if err != nil {
			t.Fatal(err)
		}
		sent = append(sent, p[:n]...)
		q := make([]byte, rng.IntN(2*testSize))
		if n, err = r.Read(q); err != nil {
			t.Fatal(err)
		}
		got = append(got, q[:n]...)
		if len(sent)-len(got) > testSize {
			t.Fatalf("the ring holds %d bytes", len(sent)-len(got))
		}
	}
	if !bytes.HasPrefix(sent, got) {
		t.Error("what arrives is not what was sent")
	}
}

// The reader is told when as much has come as it waits for, or anything at a flush.
func TestWanted(t *testing.T) {
	w, r, _ := pair(t)
	write := func(n int) {
		if _, err := w.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	if write(1); w.Wanted(true) {
		t.Error("nobody waits")
	}
	if r.Arm(1) {
		t.Error("Arm although there is something")
	}
	r.Read(make([]byte, 10))
	if !r.Arm(100) {
		t.Error("no Arm although there is nothing")
	}
	if w.Wanted(true) {
		t.Error("there is nothing to tell")
	}
	if write(99); w.Wanted(false) {
		t.Error("told of 99 bytes, not of 100")
	}
	if write(1); !w.Wanted(false) {
		t.Error("not told of 100 bytes")
	}
	if w.Wanted(true) {
		t.Error("told twice")
	}
	r.Read(make([]byte, 100))
	r.Arm(100)
	if write(1); !w.Wanted(true) {
		t.Error("not told at a flush")
	}
}

// Positions that cannot be are refused.
func TestRingIsCorrupt(t *testing.T) {
	w, r, _ := pair(t)
	w.h.written.Store(testSize + 1)
	if _, err := r.Read(make([]byte, 10)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("more bytes than the ring holds: %v", err)
	}
	w.h.read.Store(1)
	if _, err := w.Room(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("more bytes read than written: %v", err)
	}
}

func TestAwaitRoom(t *testing.T) {
	w, r, _ := pair(t)
	if n, err := w.Write(make([]byte, 2*testSize)); n != testSize || err != nil {
		t.Fatalf("wrote %d, %v", n, err)
	}
	done := make(chan error)
	go func() { // ends when there is room
		for {
			if room, err := w.Room(); room > 0 || err != nil {
				done <- err
				return
			}
			w.AwaitRoom(time.Hour)
		}
	}()
	r.Read(make([]byte, testSize))
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(f); err == nil {
		t.Error("Open takes a file that can be made smaller")
	}
	if _, err := New("test", 0); err == nil {
		t.Error("New makes memory of no bytes")
	}
	if _, err := NewWriter(make([]byte, 1000)); err == nil {
		t.Error("a ring of a size that is not a power of two")
	}
}

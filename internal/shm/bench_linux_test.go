package shm

import (
	"fmt"
	"testing"
)

// BenchmarkRing writes and reads in turn, on one goroutine: what a ring costs without
// anybody to wait for.
func BenchmarkRing(b *testing.B) {
	for _, size := range []int{16, 256, 64 << 10} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			m, err := New("benchmark", RingBytes(256<<10))
			if err != nil {
				b.Fatal(err)
			}
			defer m.Close()
			w, err := NewWriter(m.Bytes()[:RingBytes(256<<10)])
			if err != nil {
				b.Fatal(err)
			}
			r, err := NewReader(m.Bytes()[:RingBytes(256<<10)])
			if err != nil {
				b.Fatal(err)
			}
			p := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				if n, err := w.Write(p); n != size || err != nil {
					b.Fatal(n, err)
				}
				if n, err := r.Read(p); n != size || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}

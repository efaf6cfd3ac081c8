package shared_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/shared"
)

// first returns the first word of memory.
var first = multiproc.Register("first", func(_ context.Context, m shared.Memory) (uint64, error) {
	return shared.View[uint64](m)[0], nil
})

// total adds up a word of every page.
var total = multiproc.Register("total", func(_ context.Context, m shared.Memory) (sum uint64, err error) {
	words := shared.View[uint64](m)
	for i := 0; i < len(words); i += 512 {
		sum += words[i]
	}
	return sum, nil
})

var nothing = multiproc.Register("nothing", func(context.Context, struct{}) (uint64, error) { return 0, nil })

var sizes = []struct {
	name  string
	bytes int
}{{"1MiB", 1 << 20}, {"64MiB", 64 << 20}, {"1GiB", 1 << 30}}

// BenchmarkHandOver hands memory to another process, which looks at the first word of it
// and answers: way=pool with a call, way=raw with SCM_RIGHTS and mmap and nothing else,
// way=call is a call without memory.
func BenchmarkHandOver(b *testing.B) {
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
	defer pool.Close()
	ctx := context.Background()
	for _, s := range sizes {
		m := newMemory(b, s.bytes)
		shared.View[uint64](m)[0] = 42
		b.Run("size="+s.name+"/way=pool", func(b *testing.B) {
			for b.Loop() {
				if x, err := first.Call(ctx, pool, m); x != 42 || err != nil {
					b.Fatal(x, err)
				}
			}
		})
		b.Run("size="+s.name+"/way=raw", func(b *testing.B) { benchRaw(b, s.bytes) })
	}
	b.Run("size=0/way=call", func(b *testing.B) {
		for b.Loop() {
			if _, err := nothing.Call(ctx, pool, struct{}{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkEveryPage has the function touch every page of 64 MiB: have=each maps it in
// each call, have=kept in a worker that has kept it, have=new makes new memory in each
// call, whose pages the caller touches first.
func BenchmarkEveryPage(b *testing.B) {
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: 1})
	defer pool.Close()
	ctx := context.Background()
	const size = 64 << 20
	touch := func(m shared.Memory) {
		words := shared.View[uint64](m)
		for i := 0; i < len(words); i += 512 {
			words[i] = 1
		}
	}
	m := newMemory(b, size)
	touch(m)
	call := func(b *testing.B, m shared.Memory) {
		if x, err := total.Call(ctx, pool, m); x != size/4096 || err != nil {
			b.Fatal(x, err)
		}
	}
	b.Run("have=each", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			call(b, m)
		}
	})
	b.Run("have=kept", func(b *testing.B) {
		b.SetBytes(size)
		if _, err := keep.Call(ctx, pool, m); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			call(b, m)
		}
		if _, err := keep.Call(ctx, pool, shared.Memory{}); err != nil {
			b.Fatal(err)
		}
	})
	b.Run("have=new", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			m := newMemory(b, size)
			touch(m)
			call(b, m)
			m.Close()
		}
	})
}

var kept shared.Memory

var keep = multiproc.Register("benchKeep", func(_ context.Context, m shared.Memory) (_ struct{}, err error) {
	err = kept.Close()
	if err == nil {
		kept, err = m.Keep()
	}
	return struct{}{}, err
})

// rawEnv has the test program be the peer of benchRaw.
const rawEnv = "MULTIPROC_TEST_RAW"

func benchRaw(b *testing.B, size int) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "peer")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), rawEnv+"=1")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	theirs.Close()
	defer cmd.Wait()
	defer unix.Close(fds[0])
	memfd, err := unix.MemfdCreate("raw", unix.MFD_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(memfd)
	if err := unix.Ftruncate(memfd, int64(size)); err != nil {
		b.Fatal(err)
	}
	if _, err := unix.Pwrite(memfd, []byte{42}, 0); err != nil {
		b.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var answer [8]byte
	for b.Loop() {
		if err := unix.Sendmsg(fds[0], []byte{0}, unix.UnixRights(memfd), nil, 0); err != nil {
			b.Fatal(err)
		}
		if _, err := unix.Read(fds[0], answer[:]); err != nil || answer[0] != 42 {
			b.Fatal(answer, err)
		}
	}
}

// rawPeer maps what it is sent and answers with its first byte.
func rawPeer() {
	runtime.LockOSThread()
	const sock = 3
	check := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "raw peer:", err)
			os.Exit(1)
		}
	}
	var data [8]byte
	oob := make([]byte, unix.CmsgSpace(4))
	for {
		n, k, _, _, err := unix.Recvmsg(sock, data[:], oob, unix.MSG_CMSG_CLOEXEC)
		if n == 0 && (err == nil || errors.Is(err, net.ErrClosed)) {
			return
		}
		check(err)
		messages, err := unix.ParseSocketControlMessage(oob[:k])
		check(err)
		fds, err := unix.ParseUnixRights(&messages[0])
		check(err)
		var st unix.Stat_t
		check(unix.Fstat(fds[0], &st))
		b, err := unix.Mmap(fds[0], 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		check(err)
		data[0] = b[0]
		_, err = unix.Write(sock, data[:])
		check(err)
		check(unix.Munmap(b))
		check(unix.Close(fds[0]))
	}
}

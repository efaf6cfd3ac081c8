package handover

import (
	"errors"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/sys/unix"

	"github.com/seed84f35039/multiproc/internal/shm"
)

// memory is what package shared makes of a handle.
type memory struct{ *Handle }

func (m memory) MarshalCBOR() ([]byte, error) { return Marshal(m.Handle) }
func (m *memory) UnmarshalCBOR(data []byte) (err error) {
	m.Handle, err = Unmarshal(data)
	return err
}

// tube passes duplicates of files to whoever takes them.
type tube struct{ sent [][]*os.File }

func (p *tube) Send(files []*os.File) error {
	var dups []*os.File
	for _, f := range files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		dups = append(dups, os.NewFile(uintptr(fd), f.Name()))
	}
	p.sent = append(p.sent, dups)
	return nil
}

func (p *tube) Take() ([]*os.File, error) {
	if len(p.sent) == 0 {
		return nil, errors.New("nothing was sent")
	}
	files := p.sent[0]
	p.sent = p.sent[1:]
	return files, nil
}

func newHandleOf(t *testing.T, size int) *Handle {
	t.Helper()
	h, err := New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Close(h) })
	return h
}

// isMapped reports whether this process has memory mapped under the ID.
func isMapped(id shm.ID) bool {
	mapped.mu.Lock()
	defer mapped.mu.Unlock()
	return mapped.byID[id] != nil
}

// TestThereAndBack sends memory, while all of its handles are closed.
func TestThereAndBack(t *testing.T) {
	h := newHandleOf(t, 5000)
	Bytes(h)[4999] = 9
	id := h.ref.m.id
	in := []memory{{h}, {}, {h}}
	find := Find(reflect.TypeFor[[]memory]())
	var parcel Parcel
	if err := parcel.Add(find, &in); err != nil || len(parcel.in) != 1 {
		t.Fatal(parcel, err)
	}
	data, err := cbor.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var way tube
	if err := parcel.Send(&way); err != nil {
		t.Fatal(err)
	}
	Close(h)
	parcel.Release()
	if isMapped(id) {
		t.Error("the memory is mapped although nobody here has it")
	}
	came := Take(&way)
	came.Share(2)
	var handles []*Handle
	for range 2 {
		var out []memory
		if err := cbor.Unmarshal(data, &out); err != nil {
			t.Fatal(err)
		}
		bound, err := came.Bind(find, &out)
		if err != nil || len(bound) != 2 || out[1].Handle != nil {
			t.Fatal(bound, out, err)
		}
		if b := Bytes(out[0].Handle); len(b) != 5000 || b[4999] != 9 || &b[0] != &Bytes(out[2].Handle)[0] {
			t.Errorf("got %d bytes", len(b))
		}
		handles = append(handles, bound...)
		came.Done(1)
	}
	for i, h := range handles {
		if !isMapped(id) {
			t.Fatalf("not mapped although %d handles are open", len(handles)-i)
		}
		Close(h)
	}
	if isMapped(id) {
		t.Error("mapped although every handle is closed")
	}
}

// TestHostileArrival binds what should not be bound.
func TestHostileArrival(t *testing.T) {
	good := newHandleOf(t, 5000)
	inode := good.ref.m.id.Inode
	name := func(inode, size uint64) []byte {
		data, err := cbor.Marshal([]uint64{inode, size})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	loose := os.NewFile(uintptr(fd), "loose")
	defer loose.Close()
	fd, err = unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	sealed := os.NewFile(uintptr(fd), "read-only")
	defer sealed.Close()
	if err := sealed.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	const all = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(sealed.Fd(), unix.F_ADD_SEALS, all); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		sent []*os.File
		data []byte
		says string
	}{
		{"known memory without a descriptor", nil, name(inode, 10), "did not come along"},
		{"nothing was sent", []*os.File{}, name(inode, 10), "did not come along"},
		{"larger than it is", []*os.File{good.ref.m.mem.File()}, name(inode, 8193), "8192 bytes is said to have 8193"},
		{"another inode", []*os.File{good.ref.m.mem.File()}, name(inode+1, 10), "did not come along"},
		{"a pipe", []*os.File{r}, name(inode, 10), "not a memfd"},
		{"unsealed memory", []*os.File{loose}, name(inode, 10), "not sealed"},
		{"read-only memory", []*os.File{sealed}, name(inode, 10), "cannot be written"},
	} {
		var way tube
		var came *Arrival
		if test.sent != nil {
			if err := way.Send(test.sent); err != nil {
				t.Fatal(err)
			}
			came = Take(&way)
		}
		var m memory
		if err := cbor.Unmarshal(test.data, &m); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		_, err := came.Bind(Find(reflect.TypeFor[memory]()), &m)
		if err == nil || !strings.Contains(err.Error(), test.says) || Bytes(m.Handle) != nil {
			t.Errorf("%s: got %v", test.name, err)
		}
		if _, err := Keep(m.Handle); err == nil {
			t.Errorf("%s: there is memory", test.name)
		}
		came.Done(1)
		came.Done(1) // does nothing
	}
	if a := Take(nil); a.err == nil {
		t.Error("took something from nowhere")
	}
	if a := Take(&tube{}); a.err == nil {
		t.Error("took what was not sent")
	}
	if refs := good.ref.m.refs; refs != 1 {
		t.Errorf("%d references", refs)
	}
}

// TestParcelRefuses what does not fit or is closed, and stays as it was.
func TestParcelRefuses(t *testing.T) {
	find := Find(reflect.TypeFor[[]memory]())
	var many []memory
	for range MaxMemories + 1 {
		many = append(many, memory{newHandleOf(t, 1)})
	}
	var parcel Parcel
	if err := parcel.Add(find, &[]memory{many[0], many[1]}); err != nil {
		t.Fatal(err)
	}
	if err := parcel.Add(find, &many); !errors.Is(err, ErrFull) || len(parcel.in) != 2 {
		t.Errorf("%d in the parcel, %v", len(parcel.in), err)
	}
	Close(many[5].Handle)
	if err := parcel.Add(find, &many); !errors.Is(err, fs.ErrClosed) || len(parcel.in) != 2 {
		t.Errorf("%d in the parcel, %v", len(parcel.in), err)
	}
	if _, err := Marshal(many[2].Handle); err == nil {
		t.Error("memory that is in no parcel was encoded")
	}
	if err := parcel.Send(nil); err == nil {
		t.Error("sent to nowhere")
	}
	parcel.Release()
	if !parcel.Empty() {
		t.Error("the parcel is not empty")
	}
	for i, m := range many {
		if i != 5 && m.ref.m.refs != 1 {
			t.Errorf("memory %d has %d references", i, m.ref.m.refs)
		}
	}
}

// A type that contains itself, with memory on the way around.
type (
	tree struct {
		Left, Right *tree
		Leaves      map[string]branch
		Number      int
	}
	branch struct {
		Tree []tree
		Leaf memory
		Skip memory `json:"-"`
	}
	bare struct {
		Next *bare
		Any  any
		Text string
		skip memory
	}
)

func TestFind(t *testing.T) {
	for typ, want := range map[reflect.Type]bool{
		reflect.TypeFor[memory]():               true,
		reflect.TypeFor[*memory]():              true,
		reflect.TypeFor[map[int][3][]*memory](): true,
		reflect.TypeFor[tree]():                 true,
		reflect.TypeFor[branch]():               true,
		reflect.TypeFor[bare]():                 false,
		reflect.TypeFor[[]any]():                false,
		reflect.TypeFor[int]():                  false,
	} {
		if got := Find(typ).Any(); got != want {
			t.Errorf("%v: got %t", typ, got)
		}
	}
	var hs []*Handle
	for range 5 {
		hs = append(hs, &Handle{&ref{}})
	}
	v := tree{
		Left:   &tree{Leaves: map[string]branch{"x": {Leaf: memory{hs[0]}, Skip: memory{hs[4]}}}},
		Right:  &tree{Left: &tree{Leaves: map[string]branch{"y": {Tree: []tree{{}, {Leaves: map[string]branch{"z": {Leaf: memory{hs[1]}}}}}}}}},
		Leaves: map[string]branch{"": {Leaf: memory{hs[2]}}},
	}
	got := Find(reflect.TypeFor[tree]()).Append([]*Handle{hs[3]}, &v)
	for i, want := range []bool{true, true, true, true, false} {
		if slices.Contains(got, hs[i]) != want {
			t.Errorf("handle %d was found: %t", i, !want)
		}
	}
	_ = bare{}.skip
}

// FuzzUnmarshal decodes anything: whatever comes is bound to nothing.
func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{
		"\x80", "\xf6", "\x82\x01\x02", "\x82\x1b\x00\x00\x00\x00\x00\x00\x00\x01\x19\x10\x00", "\x82\x18\x20\x00",
		"\x82\x1b\xff\xff\xff\xff\xff\xff\xff\xff\x1b\xff\xff\xff\xff\xff\xff\xff\xff", "\x82\x01", "\x82\x1c\x01", "\x83\x01\x01\x01", "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := Unmarshal(data)
		if err != nil && h != nil || Bytes(h) != nil || Size(h) != 0 {
			t.Errorf("%x: %v, %d bytes, %v", data, h, Size(h), err)
		}
		if h == nil {
			return
		}
		var n [2]uint64
		if err := cbor.Unmarshal(data, &n); err != nil || n != [2]uint64{h.ref.named.inode, h.ref.named.size} {
			t.Errorf("%x: got %v, the codec %v, %v", data, h.ref.named, n, err)
		}
	})
}

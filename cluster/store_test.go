package cluster

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed84f35039/multiproc/internal/proctest"
)

type objectStore = jetstream.ObjectStore

const testBucket = "px-exe"

// startStore starts a server in this process, with an object store. Its files are in root.
func startStore(root string) (_ *testStore, stop func(), err error) {
	s, err := server.NewServer(&server.Options{DontListen: true, JetStream: true, StoreDir: root, NoSigs: true, NoLog: true})
	if err != nil {
		return nil, nil, err
	}
	s.Start()
	stop = func() {
		s.Shutdown()
		s.WaitForShutdown()
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	if !s.ReadyForConnections(20 * time.Second) {
		return nil, nil, errors.New("the server does not start")
	}
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		return nil, nil, err
	}
	stop = func() {
		nc.Close()
		s.Shutdown()
		s.WaitForShutdown()
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	o, err := js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: testBucket, TTL: time.Hour})
	return &testStore{objectStore: o, js: js}, stop, err
}

// testStore counts what is asked of it.
type testStore struct {
	objectStore
	js         jetstream.JetStream
	puts, gets atomic.Int32

	get  func()                      // is called before each Get
	info func(*jetstream.ObjectInfo) // may change what GetInfo returns
}

func (s *testStore) Put(ctx context.Context, meta jetstream.ObjectMeta, r io.Reader) (*jetstream.ObjectInfo, error) {
	s.puts.Add(1)
	return s.objectStore.Put(ctx, meta, r)
}

func (s *testStore) Get(ctx context.Context, name string, opts ...jetstream.GetObjectOpt) (jetstream.ObjectResult, error) {
	s.gets.Add(1)
	o, err := s.objectStore.Get(ctx, name, opts...)
	if s.get != nil {
		s.get()
	}
	return o, err
}

func (s *testStore) GetInfo(ctx context.Context, name string, opts ...jetstream.GetObjectInfoOpt) (*jetstream.ObjectInfo, error) {
	info, err := s.objectStore.GetInfo(ctx, name, opts...)
	if err == nil && s.info != nil {
		s.info(info)
	}
	return info, err
}

func newStore(t *testing.T) *testStore {
	t.Helper()
	s, stop, err := startStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return s
}

// contentSize is the size of what stands for executables, in bytes: some chunks of the store, and not whole ones.
const contentSize = 300_001

// contentOf returns the content of the executable with this number.
func contentOf(i int) []byte {
	return bytes.Repeat([]byte{byte(i), 1, 2, 3, 5, 7, byte(i >> 8)}, contentSize/7+1)[:contentSize]
}

// put uploads the executable with this number.
func (s *testStore) put(t *testing.T, i int) Program {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, contentOf(i), 0o700); err != nil {
		t.Fatal(err)
	}
	p := programOf(contentOf(i))
	if err := upload(proctest.Within(t), s, path, p); err != nil {
		t.Fatal(err)
	}
	return p
}

// replace puts another object under the name of a program.
func (s *testStore) replace(t *testing.T, p Program, content []byte) {
	t.Helper()
	if _, err := s.PutBytes(proctest.Within(t), p.Hash, content); err != nil {
		t.Fatal(err)
	}
}

// lose removes the chunks of an object, and not what is known of it.
func (s *testStore) lose(t *testing.T, p Program) {
	t.Helper()
	ctx := proctest.Within(t)
	info, err := s.objectStore.GetInfo(ctx, p.Hash)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := s.js.Stream(ctx, "OBJ_"+testBucket)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(ctx, jetstream.WithPurgeSubject("$O."+testBucket+".C."+info.NUID)); err != nil {
		t.Fatal(err)
	}
}

func (s *testStore) content(t *testing.T, p Program) []byte {
	t.Helper()
	b, err := s.GetBytes(proctest.Within(t), p.Hash)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestUploadOnce(t *testing.T) {
	s := newStore(t)
	for range 3 {
		p := s.put(t, 1)
		if !bytes.Equal(s.content(t, p), contentOf(1)) {
			t.Error("the store has something else")
		}
	}
	if n := s.puts.Load(); n != 1 {
		t.Errorf("uploaded %d times, want once", n)
	}
	// What is there but is another object is replaced, and so is what will expire soon.
	for want, damage := range map[string]func(p Program){
		"another size":    func(p Program) { s.replace(t, p, []byte("something else")) },
		"another content": func(p Program) { s.replace(t, p, contentOf(2)) },
		"an old one": func(Program) {
			s.info = func(info *jetstream.ObjectInfo) { info.ModTime = info.ModTime.Add(-40 * time.Minute) }
		},
	} {
		damage(programOf(contentOf(1)))
		before := s.puts.Load()
		p := s.put(t, 1)
		if n := s.puts.Load() - before; n != 1 {
			t.Errorf("%s: uploaded %d times, want once", want, n)
		}
		if !bytes.Equal(s.content(t, p), contentOf(1)) {
			t.Errorf("%s: the store has something else", want)
		}
		s.info = nil
	}
}

func TestUploadAtOnce(t *testing.T) {
	s := newStore(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { s.put(t, 1) })
	}
	wg.Wait()
	if !bytes.Equal(s.content(t, programOf(contentOf(1))), contentOf(1)) {
		t.Error("the store has something else")
	}
}

func TestUploadOfAnotherFile(t *testing.T) {
	s := newStore(t)
	path := filepath.Join(t.TempDir(), "program")
	p := programOf(contentOf(1))
	for what, content := range map[string][]byte{
		"another": contentOf(2), "shorter": contentOf(1)[1:], "longer": append(contentOf(1), 0), "empty": nil,
	} {
		if err := os.WriteFile(path, content, 0o700); err != nil {
			t.Fatal(err)
		}
		err := upload(proctest.Within(t), s, path, p)
		var altered *AlteredError
		if !errors.As(err, &altered) || altered.Where != path {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := upload(proctest.Within(t), s, path+"x", p); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	wantErr(t, upload(proctest.Within(t), s, path, Program{Hash: "x"}), "SHA-256")
	if _, err := s.GetInfo(proctest.Within(t), p.Hash); !errors.Is(err, jetstream.ErrObjectNotFound) {
		t.Errorf("the store has %v", err)
	}
	stream, err := s.js.Stream(proctest.Within(t), "OBJ_"+testBucket)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := stream.Info(proctest.Within(t)); err != nil || info.State.Msgs != 0 {
		t.Errorf("the store has %d messages left, %v", info.State.Msgs, err)
	}
}

func TestVerifier(t *testing.T) {
	p := programOf([]byte("content"))
	for _, tt := range []struct {
		content, read string
		altered       bool
	}{
		{"content", "content", false},
		{"Content", "Content", true},
		{"conten", "conten", true},
		{"contents", "content", true},
		{"content and more", "content", true},
		{"", "", true},
	} {
		for name, r := range map[string]io.Reader{
			"at once": strings.NewReader(tt.content), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.content)),
			"with its end": iotest.DataErrReader(strings.NewReader(tt.content)),
		} {
			got, err := io.ReadAll(verify(r, p, "a test"))
			var altered *AlteredError
			if errors.As(err, &altered) != tt.altered || (err != nil) != tt.altered || !strings.HasPrefix(tt.read, string(got)) {
				t.Errorf("%q %s: %q, %v", tt.content, name, got, err)
			}
		}
	}
	broken := errors.New("broken")
	if _, err := io.ReadAll(verify(iotest.ErrReader(broken), p, "a test")); err != broken {
		t.Errorf("a reader that fails: %v", err)
	}
}

func TestUploadEndsWithItsContext(t *testing.T) {
	s := newStore(t)
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, contentOf(1), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := upload(proctest.Ended(), s, path, programOf(contentOf(1))); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

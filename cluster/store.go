package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// stall is how long a transfer may go without a byte.
const stall = 15 * time.Second

// transferTime is how long the transfer of so many bytes may take: a minute, and what they take
// at 128 KiB/s.
func transferTime(size int64) time.Duration {
	return time.Minute + time.Duration(size>>17)*time.Second
}

// upload puts an executable into an object store, under its hash. If it is there already nothing is sent, unless it is
// to expire there soon: within half of the time that the store keeps what it gets. Uploads of one
// executable by several at once do no harm; the store keeps one.
//
// It takes no longer than [transferTime]. The error is an [*AlteredError] if the file is not the program; nothing is in
// the store then.
func upload(ctx context.Context, store jetstream.ObjectStore, path string, p Program) error {
	if err := p.check(); err != nil {
		return fmt.Errorf("cluster: upload a program: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, transferTime(p.Size))
	defer cancel()
	if there, err := uploaded(ctx, store, p); there || err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cluster: upload a program: %w", err)
	}
	defer f.Close()
	// First without sending anything: what a Put has sent before it fails may stay in the store, and a Put that ends very soon
	// may leave a goroutine of the client behind, see main_test.go.
	if _, err := io.Copy(io.Discard, verify(f, p, path)); err != nil {
		return fmt.Errorf("cluster: upload program %s: %w", p.Name, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("cluster: upload program %s: %w", p.Name, err)
	}
	source := verify(f, p, path)
	if _, err := store.Put(ctx, jetstream.ObjectMeta{Name: p.Hash, Description: p.Name}, source); err != nil {
		return fmt.Errorf("cluster: upload program %s: %w", p.Name, err)
	}
	return nil
}

// uploaded reports whether a program is in the store, and will be for a while.
func uploaded(ctx context.Context, store jetstream.ObjectStore, p Program) (bool, error) {
	info, err := store.GetInfo(ctx, p.Hash)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("cluster: look for program %s in the object store: %w", p.Name, err)
	}
	if digest, err := jetstream.DecodeObjectDigest(info.Digest); err != nil || hex.EncodeToString(digest) != p.Hash || info.Size != uint64(p.Size) {
		return false, nil
	}
	status, err := store.Status(ctx)
	if err != nil {
		return false, fmt.Errorf("cluster: ask how long the object store keeps programs: %w", err)
	}
	keeps := status.TTL()
	return keeps <= 0 || time.Since(info.ModTime) < keeps/2, nil
}

// verifier reads an executable and ends with an error, rather than with io.EOF, if it is not the
// program. It reads one byte more than the program has, at most.
type verifier struct {
	r     io.Reader
	p     Program
	where string
	hash  hash.Hash
	size  int64
}

// verify returns a reader of r, which is at where.
func verify(r io.Reader, p Program, where string) *verifier {
	return &verifier{r: r, p: p, where: where, hash: sha256.New()}
}

func (v *verifier) Read(b []byte) (int, error) {
	if room := v.p.Size + 1 - v.size; int64(len(b)) > room {
		b = b[:room]
	}
	n, err := v.r.Read(b)
	v.hash.Write(b[:n])
	v.size += int64(n)
	switch {
	case v.size > v.p.Size:
		return 0, &AlteredError{Program: v.p, Where: v.where, Size: v.size}
	case err == io.EOF:
		if sum := hex.EncodeToString(v.hash.Sum(nil)); sum != v.p.Hash {
			return n, &AlteredError{Program: v.p, Where: v.where, Hash: sum, Size: v.size}
		}
	}
	return n, err
}

// inStore is where an altered object is.
const inStore = "what the object store has"

// download writes the object that belongs to a program to w, as far as it is the program: w is to be used only if the
// error is nil. The error is an [*AlteredError] if the object is another one. It ends with ctx, or when nothing has come for
// idle.
func download(ctx context.Context, store jetstream.ObjectStore, p Program, w io.Writer, idle time.Duration) (nuid string, err error) {
	object, err := openObject(ctx, store, p.Hash, idle)
	if err != nil {
		return "", err
	}
	defer object.close()
	nuid = object.info.NUID
	if object.info.Size != uint64(p.Size) {
		return nuid, &AlteredError{Program: p, Where: inStore, Size: int64(object.info.Size)}
	}
	source := verify(object, p, inStore)
	_, err = io.Copy(w, source)
	if errors.Is(err, jetstream.ErrDigestMismatch) && object.ctx.Err() == nil {
		// The store's own check, whose reader keeps the end from verifier.
		err = &AlteredError{Program: p, Where: inStore, Hash: hex.EncodeToString(source.hash.Sum(nil)), Size: source.size}
	}
	return nuid, blame(object.ctx, err)
}

// object is one of an object store that is being read. It takes as long as it takes, where the client gives all of it five seconds.
type object struct {
	info   *jetstream.ObjectInfo
	result jetstream.ObjectResult
	ctx    context.Context // ends too when nothing has come for idle
	cancel context.CancelCauseFunc
	idle   time.Duration
	watch  *time.Timer
}

// openObject returns an object, which is read until ctx ends, or nothing has come for idle.
func openObject(ctx context.Context, store jetstream.ObjectStore, name string, idle time.Duration) (*object, error) {
	o := &object{idle: idle}
	o.ctx, o.cancel = context.WithCancelCause(ctx)
	o.watch = time.AfterFunc(idle, func() { o.cancel(errStalled) })
	var err error
	if o.result, err = store.Get(impatient{o.ctx}, name); err == nil {
		o.info, err = o.result.Info()
	}
	if err == nil && o.info.Name != name { // or of that name in another bucket, where who may write here may not read
		err = errLinked
	}
	if err != nil {
		err = blame(o.ctx, err)
		o.close()
		return nil, err
	}
	return o, nil
}

// Read goes on after the deadlines of impatient.
func (o *object) Read(b []byte) (int, error) {
	for {
		n, err := o.result.Read(b)
		if n > 0 {
			o.watch.Reset(o.idle)
		}
		if n > 0 || err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if o.ctx.Err() != nil {
			return 0, context.Cause(o.ctx)
		}
	}
}

func (o *object) close() {
	o.watch.Stop()
	if o.result != nil {
		o.result.Close()
	}
	o.cancel(nil)
}

var (
	errStalled = errors.New("nothing has come from the object store for too long")
	errLinked  = errors.New("what has its name in the object store is a link to another one")
)

// blame returns err, with why ctx has ended if it has.
func blame(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	return err
}

// impatient is a context whose deadline is always near. The reader of an object does not look at
// its context while it waits, only at the deadline, which it asks for each time.
type impatient struct{ context.Context }

const lookUp = 100 * time.Millisecond

// Deadline says when to look up the next time.
func (c impatient) Deadline() (time.Time, bool) { return time.Now().Add(lookUp), true }

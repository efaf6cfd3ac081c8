package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/nats-io/nats.go/jetstream"
)

// objects returns a bucket of objects.
func (l *natsLink) objects(ctx context.Context, bucket string) (jetstream.ObjectStore, error) {
	l.mu.Lock()
	store := l.stores[bucket]
	l.mu.Unlock()
	if store != nil {
		return store, nil
	}
	store, err := l.js.ObjectStore(ctx, bucket)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", bucket, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stores[bucket] = store
	return store, nil
}

func (l *natsLink) putBlob(ctx context.Context, job, name string, data []byte) error {
	bucket := blobsBucket + userOf(job)
	ctx, cancel := l.guardObjects(ctx, bucket)
	defer cancel()
	store, err := l.objects(ctx, bucket)
	if err == nil {
		_, err = store.Put(ctx, jetstream.ObjectMeta{Name: name}, bytes.NewReader(data))
	}
	return blame(ctx, err)
}

func (l *natsLink) getBlob(ctx context.Context, job, name string, size int64) ([]byte, error) {
	bucket := blobsBucket + userOf(job)
	ctx, cancel := l.guardObjects(ctx, bucket)
	defer cancel()
	store, err := l.objects(ctx, bucket)
	if err != nil {
		return nil, blame(ctx, err)
	}
	data, err := fetchBlob(ctx, store, name, size)
	return data, blame(ctx, err)
}

func (l *natsLink) dropBlob(ctx context.Context, job, name string) {
	bucket := blobsBucket + userOf(job)
	ctx, cancel := l.guardObjects(ctx, bucket)
	defer cancel()
	if store, err := l.objects(ctx, bucket); err == nil {
		store.Delete(ctx, name) // otherwise it goes by its age
	}
}

// fetchBlob returns an object that is to have so many bytes, which may be hostile.
func fetchBlob(ctx context.Context, store jetstream.ObjectStore, name string, size int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, transferTime(size))
	defer cancel()
	object, err := openObject(ctx, store, name, stall)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return nil, errNoBlob
	} else if errors.Is(err, errLinked) || errors.Is(err, jetstream.ErrCantGetBucket) || errors.Is(err, jetstream.ErrBadObjectMeta) {
		return nil, fmt.Errorf("%w: %w", errNoBlob, err)
	} else if err != nil {
		return nil, err
	}
	defer object.close()
	if size < 0 || object.info.Size != uint64(size) {
		return nil, fmt.Errorf("%w: what has its name has %d bytes and not %d", errNoBlob, object.info.Size, size)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(object, data); err != nil {
		return nil, blame(object.ctx, err)
	}
	if _, err := object.Read(make([]byte, 1)); err != io.EOF { // which is told when the digest is right
		return nil, fmt.Errorf("the end of the object: %w", blame(object.ctx, err))
	}
	return data, nil
}

package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed84f35039/multiproc/bench/peers/life"
)

// argument is how many bytes a single call has.
const argument = 100

// call makes one call at a time.
func (e *engine) call(n int, stream bool, how string) (life.Figures, error) {
	next, err := e.results(stream)
	if err == nil {
		err = e.work(stream, how)
	}
	if err != nil {
		return nil, err
	}
	task := make([]byte, argument)
	return life.Latencies(n, func(i int) error {
		binary.LittleEndian.PutUint64(task, uint64(i))
		future, err := e.js.PublishAsync(taskSubject, task)
		if err != nil {
			return err
		}
		result, err := next(resultWait)
		if err == nil && !bytes.Equal(result, task) {
			err = errors.New("another result came back")
		}
		if err != nil {
			return err
		}
		select { // it was there long before the result
		case <-future.Ok():
			return nil
		case err := <-future.Err():
			return err
		}
	})
}

// window is how many messages are under way.
const window = 128

// squares makes n calls, so many in a message.
func (e *engine) squares(n int, stream bool, calls int) (life.Figures, error) {
	next, err := e.results(stream)
	if err == nil {
		err = e.work(stream, squared)
	}
	if err != nil {
		return nil, err
	}
	out := make([]uint64, n)
	return life.Rate(n, func() error {
		clear(out)
		for sent, came := 0, 0; came < n; {
			for ; sent < n && sent-came < window*calls; sent = min(n, sent+calls) {
				task := binary.LittleEndian.AppendUint64(make([]byte, 0, 8+8*calls), uint64(sent))
				for x := sent; x < min(n, sent+calls); x++ {
					task = binary.LittleEndian.AppendUint64(task, uint64(x))
				}
				if _, err := e.js.PublishAsync(taskSubject, task); err != nil {
					return err
				}
			}
			result, err := next(resultWait)
			if err != nil {
				return fmt.Errorf("%d results are missing: %w", n-came, err)
			}
			first := int(binary.LittleEndian.Uint64(result))
			for result = result[8:]; len(result) >= 8; result = result[8:] {
				out[first] = binary.LittleEndian.Uint64(result)
				first++
				came++
			}
		}
		for i := 0; i < n; i += max(1, n/100) {
			if out[i] != uint64(i)*uint64(i) {
				return fmt.Errorf("the square of %d came out as %d", i, out[i])
			}
		}
		return nil
	})
}

// payload puts an object and gets it, so often.
func (e *engine) payload(size, ways int) (life.Figures, error) {
	store, err := e.js.CreateObjectStore(e.ctx, jetstream.ObjectStoreConfig{Bucket: "blobs", Storage: e.storage})
	if err != nil {
		return nil, err
	}
	in := make([]byte, size)
	rand.Read(in)
	var took []time.Duration
	for i := range 4 {
		data := in
		began := time.Now()
		for range ways {
			name := rand.Text()
			if _, err := store.PutBytes(e.ctx, name, data); err != nil {
				return nil, err
			}
			if data, err = store.GetBytes(e.ctx, name); err != nil {
				return nil, err
			}
			if err := store.Delete(e.ctx, name); err != nil {
				return nil, err
			}
		}
		if !bytes.Equal(in, data) {
			return nil, errors.New("another object came back")
		}
		if i > 0 {
			took = append(took, time.Since(began))
		}
	}
	slices.Sort(took)
	return life.Figures{"rate": float64(size*ways) / took[len(took)/2].Seconds()}, nil
}

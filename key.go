package multiproc

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/seed84f35039/multiproc/internal/wire"
)

// Key returns the idempotency key of the call that runs in ctx, the context that its function got,
// or one that is derived from it. Each time that the same call is run, by a Retry or because a cluster has lost sight of its
// first run, it has the same key, and no other call of any program has that. A function that changes something can tell by it what
// it has changed before:
//
//	_, err := db.ExecContext(ctx, "INSERT INTO payments (key, cents) VALUES (?, ?) ON CONFLICT DO NOTHING", multiproc.Key(ctx), cents)
//
// What a function calls in turn are calls with keys of their own, new ones each time. Outside a call, and in the functions of
// Setup and Teardown, the key is empty. It has at most 276 bytes: letters, digits, dots and
// dashes, then a slash and a number. It is not a secret.
func Key(ctx context.Context) string {
	if c, ok := ctx.Value(keyKey{}).(interface{ key() string }); ok {
		return c.key()
	}
	return ""
}

// keyKey is the key by which a context has the innermost one that has a key() string.
type keyKey struct{}

// ownKey returns how the keys of calls begin that this process makes: 128 bits that the system
// had for it when it started, at random. (What crypto/rand says when asked would cost each worker its start.)
var ownKey = sync.OnceValue(func() string {
	return strconv.FormatUint(rand.Uint64(), 36) + strconv.FormatUint(rand.Uint64(), 36)
})

// numbered is how many calls of this process have been numbered.
var numbered atomic.Uint64

// numbers returns the first of n numbers for calls of this process.
func numbers(n int) uint64 { return numbered.Add(uint64(n)) - uint64(n) }

func formatKey(prefix string, number uint64) string {
	return prefix + "/" + strconv.FormatUint(number, 10)
}

// batchContext is what the contexts of the calls of a batch have in common that run in the process which
// made them.
type batchContext struct {
	context.Context
	prefix string // of the keys; "": ownKey
	first  uint64 // number of call 0
}

// callInBatch is the context of one of them. Calls may take no longer than to make it.
type callInBatch struct {
	*batchContext
	i int
}

func (c *callInBatch) key() string {
	prefix := c.prefix
	if prefix == "" {
		prefix = ownKey()
	}
	return formatKey(prefix, c.first+uint64(c.i))
}

// Value implements [context.Context].
func (c *callInBatch) Value(key any) any {
	if key == (keyKey{}) {
		return c
	}
	return c.Context.Value(key)
}

func (c *callContext) key() string {
	if c.from.prefix == "" {
		return ""
	}
	return formatKey(c.from.prefix, c.id+c.from.offset)
}

// origins are made for many frames of calls at a time: what refers to them lives longer than the calls.
type origins struct {
	key  string // as of the last frame that said one
	made []origin
}

// of returns that of calls from id on that came with that head.
func (s *origins) of(h wire.Head, id uint64, worker *workerContext) *origin {
	from := origin{worker: worker}
	if id != 0 {
		if len(h.Key) > 0 && s.key != string(h.Key) {
			s.key = string(h.Key)
		}
		from.prefix, from.offset = s.key, h.First-id
	}
	if n := len(s.made); n > 0 && s.made[n-1] == from {
		return &s.made[n-1]
	}
	if len(s.made) == cap(s.made) {
		s.made = make([]origin, 0, min(2*cap(s.made)+1, 32))
	}
	s.made = append(s.made, from)
	return &s.made[len(s.made)-1]
}

package proctest

import (
	"context"
	"errors"
	"strings"

	"github.com/seed84f35039/multiproc"
)

// Bomb is an argument, and Debris a result, whose own encoding goes wrong at the place
// that it names: "encode argument", "decode argument", "encode result" or "decode
// result", then ": " and how, which is "error", "panic", or an end that die knows.
type Bomb struct{ Where string }

// Debris is the result of [Explode].
type Debris struct{ Where string }

// Explode passes the place on.
var Explode = multiproc.Register("explode", func(_ context.Context, b Bomb) (Debris, error) {
	return Debris(b), nil
})

func goOff(at, where string) error {
	how, ok := strings.CutPrefix(where, at+": ")
	switch {
	case !ok:
		return nil
	case how == "error":
		return errors.New("bomb went off")
	case how == "panic":
		panic("bomb went off")
	}
	return die(how)
}

// MarshalBinary implements encoding.BinaryMarshaler.
func (b Bomb) MarshalBinary() ([]byte, error) {
	return []byte(b.Where), goOff("encode argument", b.Where)
}

// UnmarshalBinary implements encoding.BinaryUnmarshaler.
func (b *Bomb) UnmarshalBinary(data []byte) error {
	b.Where = string(data)
	return goOff("decode argument", b.Where)
}

// MarshalBinary implements encoding.BinaryMarshaler.
func (d Debris) MarshalBinary() ([]byte, error) {
	return []byte(d.Where), goOff("encode result", d.Where)
}

// UnmarshalBinary implements encoding.BinaryUnmarshaler.
func (d *Debris) UnmarshalBinary(data []byte) error {
	d.Where = string(data)
	return goOff("decode result", d.Where)
}

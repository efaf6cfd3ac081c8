package wire

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"sync"

	"github.com/fxamacker/cbor/v2"
)

// MaxDepth is how deeply structs, slices, arrays and maps may be nested: a linked
// list of this many elements still travels, a cycle does not.
const MaxDepth = 10_000

var (
	encMode = must(cbor.EncOptions{
		Time:          cbor.TimeRFC3339Nano,
		TimeTag:       cbor.EncTagRequired,
		NaNConvert:    cbor.NaNConvertNone,
		InfConvert:    cbor.InfConvertNone,
		ByteArray:     cbor.ByteArrayToByteSlice,
		TextMarshaler: cbor.TextMarshalerTextString,
	}.UserBufferEncMode())
	decMode = must(cbor.DecOptions{
		MaxNestedLevels:  MaxDepth + 100, // what is not recursive adds a few
		MaxArrayElements: 1<<31 - 1,
		MaxMapPairs:      1<<31 - 1,
		IndefLength:      cbor.IndefLengthForbidden, // nested, they take quadratic time
		DupMapKey:        cbor.DupMapKeyEnforcedAPF, // otherwise one of two is lost
		IntDec:           cbor.IntDecConvertSignedOrBigInt,
		DefaultMapType:   reflect.TypeFor[map[string]any](),
		UTF8:             cbor.UTF8DecodeInvalid, // Go strings need not be UTF-8
		TextUnmarshaler:  cbor.TextUnmarshalerTextString,
	}.DecMode())
)

func must[M any](m M, err error) M {
	if err != nil {
		panic(err) // the options above are constant
	}
	return m
}

// Encode appends the CBOR encoding of *v to dst. v is a pointer to the value to be
// sent, which must have passed [Checker.Value]: of one that contains itself the
// encoding has no end. A panic in the value's own marshalling methods becomes an
// error. On error dst is returned as it was.
func Encode(dst []byte, v any) (out []byte, err error) {
	out, raw, err := EncodeSplit(dst, v)
	return append(out, raw...), err
}

// EncodeSplit is [Encode], but where v points to a slice of bytes or numbers of at least
// [Large] bytes, their memory is not copied: it is returned as raw, which the encoding
// ends with. Otherwise raw is nil.
func EncodeSplit(dst []byte, v any) (out, raw []byte, err error) {
	if out, raw, ok := AppendFast(dst, v); ok {
		return out, raw, nil
	}
	out, err = encodeAny(dst, v)
	return out, nil, err
}

// encodeAny encodes a value of any type.
func encodeAny(dst []byte, v any) (out []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			out, err = dst, fmt.Errorf("panic while encoding: %v", r)
		}
	}()
	buf := buffers.Get().(*bytes.Buffer)
	*buf = *bytes.NewBuffer(dst)
	out = dst
	if err = encMode.MarshalToBuffer(v, buf); err == nil {
		out = buf.Bytes()
	}
	*buf = bytes.Buffer{}
	buffers.Put(buf)
	return out, err
}

// buffers saves one allocation per call of Encode: the codec wants a *bytes.Buffer.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// Decode decodes data, which must be one CBOR item, into *v, which must be zero:
// what data does not mention is left as it is. A slice of bytes or numbers refers to data
// afterwards if that has more than [Large] bytes; nothing else does. A panic in the value's
// own unmarshalling methods becomes an error.
func Decode(data []byte, v any) (err error) {
	if DecodeFast(data, v) {
		return nil
	}
	return decodeAny(data, v)
}

// decodeAny decodes a value of any type.
func decodeAny(data []byte, v any) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic while decoding: %v", r)
		}
	}()
	err = decMode.Unmarshal(data, v)
	if err == io.EOF || err == io.ErrUnexpectedEOF { // not to be taken for the end of a stream
		return fmt.Errorf("data is cut short: %v", err)
	}
	return err
}

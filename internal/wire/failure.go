package wire

import (
	"fmt"
	"reflect"
)

// Cause tells in which way a call failed. The numbers are part of the protocol.
type Cause int

// The causes of a failure.
const (
	CauseError       Cause = 1 // the function returned an error
	CausePanic       Cause = 2 // the function panicked or ended its goroutine
	CauseUnknownFunc Cause = 3 // the worker knows no function of that name
	CauseArgument    Cause = 4 // the argument could not be decoded
	CauseResult      Cause = 5 // the result could not be encoded
)

// Failure is the body of a Failed frame: an error that crosses a process.
type Failure struct {
	Cause     Cause    `cbor:"1,keyasint"`
	Type      string   `cbor:"2,keyasint,omitempty"` // Go type of the error or of the panic's value
	Message   string   `cbor:"3,keyasint,omitempty"` // its text
	Stack     string   `cbor:"4,keyasint,omitempty"` // of the panic, or the error's own longer text (%+v)
	Sentinels []string `cbor:"5,keyasint,omitempty"` // codes of the known errors that it wraps
}

// FromError describes an error that a function returned. codes lists the codes of
// the sentinels that it wraps. A panic in the error's own methods becomes part of
// the text (package fmt sees to that).
func FromError(err error, codes []string) Failure {
	f := Failure{Cause: CauseError, Type: TypeName(err), Message: fmt.Sprintf("%v", err), Sentinels: codes}
	if long := fmt.Sprintf("%+v", err); long != f.Message {
		f.Stack = long
	}
	return f
}

// FromPanic describes the value of a panic and the stack at that place.
func FromPanic(value any, stack []byte, codes []string) Failure {
	return Failure{Cause: CausePanic, Type: TypeName(value), Message: fmt.Sprintf("%v", value), Stack: string(stack), Sentinels: codes}
}

// TypeName returns the name of the type of v, "nil" for nil.
func TypeName(v any) string {
	if v == nil {
		return "nil"
	}
	return reflect.TypeOf(v).String()
}

// AppendFailure appends the encoding of f to dst.
func AppendFailure(dst []byte, f Failure) ([]byte, error) { return Encode(dst, &f) }

// DecodeFailure decodes the encoding of a Failure and checks its cause.
func DecodeFailure(data []byte) (Failure, error) {
	var f Failure
	if err := Decode(data, &f); err != nil {
		return Failure{}, fmt.Errorf("decode failure: %w", err)
	}
	if f.Cause < CauseError || f.Cause > CauseResult {
		return Failure{}, fmt.Errorf("failure of unknown cause %d", f.Cause)
	}
	if len(f.Sentinels) == 0 {
		f.Sentinels = nil // as it is when they are left out
	}
	return f, nil
}

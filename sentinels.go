package multiproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/seed84f35039/multiproc/internal/wire"
)

// sentinels are the errors that keep their identity on the way between processes,
// by the code under which they travel.
var sentinels = struct {
	sync.RWMutex
	byCode map[string]error
}{byCode: map[string]error{
	"context.Canceled":            context.Canceled,
	"context.DeadlineExceeded":    context.DeadlineExceeded,
	"errors.ErrUnsupported":       errors.ErrUnsupported,
	"fs.ErrClosed":                fs.ErrClosed,
	"fs.ErrExist":                 fs.ErrExist,
	"fs.ErrInvalid":               fs.ErrInvalid,
	"fs.ErrNotExist":              fs.ErrNotExist,
	"fs.ErrPermission":            fs.ErrPermission,
	"io.EOF":                      io.EOF,
	"io.ErrUnexpectedEOF":         io.ErrUnexpectedEOF,
	"multiproc.ErrClosed":         ErrClosed,
	"multiproc.ErrEncoding":       ErrEncoding,
	"multiproc.ErrNotInitialized": ErrNotInitialized,
	"multiproc.ErrTooDeep":        ErrTooDeep,
	"multiproc.ErrUnknownFunc":    ErrUnknownFunc,
	"os.ErrDeadlineExceeded":      os.ErrDeadlineExceeded,
	"os.ErrProcessDone":           os.ErrProcessDone,
}}

// RegisterError makes errors.Is(err, sentinel) hold in the caller when a function
// in another process returned an error that wraps sentinel. The code names the
// error on the way; it must be the same in every process and belong to no other
// error. RegisterError returns the error, so that one line declares and registers
// it:
//
//	var ErrNoSuchUser = multiproc.RegisterError("users.ErrNoSuchUser", errors.New("no such user"))
//
// Call it at package level. It panics on an empty code, a nil error, and a code
// that is taken. It is safe for concurrent use.
func RegisterError(code string, sentinel error) error {
	if code == "" || sentinel == nil {
		panic("multiproc: RegisterError needs a code and an error")
	}
	sentinels.Lock()
	defer sentinels.Unlock()
	if other, taken := sentinels.byCode[code]; taken {
		panic(fmt.Sprintf("multiproc: RegisterError(%q, %q): the code is taken by %q", code, sentinel, other))
	}
	sentinels.byCode[code] = sentinel
	return sentinel
}

// codesOf returns the codes of the registered errors that v, if it is an error,
// wraps. The errors' own methods may panic; they then count as another's.
func codesOf(v any) (codes []string) {
	err, ok := v.(error)
	if !ok || err == nil {
		return nil
	}
	defer func() {
		if recover() != nil {
			codes = nil
		}
	}()
	sentinels.RLock()
	defer sentinels.RUnlock()
	for code, sentinel := range sentinels.byCode {
		if errors.Is(err, sentinel) {
			codes = append(codes, code)
		}
	}
	slices.Sort(codes)
	return codes
}

// errorsOf returns the errors of the codes that are known here.
func errorsOf(codes []string) (errs []error) {
	sentinels.RLock()
	defer sentinels.RUnlock()
	for _, code := range codes {
		if err, ok := sentinels.byCode[code]; ok {
			errs = append(errs, err)
		}
	}
	return errs
}

// errorFrom makes the error of a call from a failure that arrived from, or could
// have arrived from, another process. cause is the error itself where the function
// ran in this one.
func errorFrom(at CallInfo, f wire.Failure, cause error) error {
	wrapped := []error{cause}
	if cause == nil {
		wrapped = errorsOf(f.Sentinels)
	}
	switch f.Cause {
	case wire.CausePanic:
		return &PanicError{CallInfo: at, Type: f.Type, Value: f.Message, Stack: f.Stack, wrapped: wrapped}
	case wire.CauseUnknownFunc:
		return &located{at, ErrUnknownFunc}
	case wire.CauseArgument, wire.CauseResult:
		return &located{at, fmt.Errorf("%w: %s", ErrEncoding, f.Message)}
	default:
		return &RemoteError{CallInfo: at, Type: f.Type, Message: f.Message, Detail: f.Stack, wrapped: wrapped}
	}
}

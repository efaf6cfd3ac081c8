package cluster

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrUnsigned is the error of a program that nobody has signed.
	ErrUnsigned = errors.New("cluster: the program is not signed; sign it with: multiproc key sign EXECUTABLE")

	// ErrBadSignature is the error of a program whose signature does not fit what it is said to
	// have signed: one of the two was altered. It is also that of a signed manifest that makes no sense here.
	ErrBadSignature = errors.New("cluster: the signature of the program is wrong; sign it anew with: multiproc key sign EXECUTABLE")
)

// UntrustedError is the error of a program that was signed by a key that is not trusted here.
type UntrustedError struct {
	Key PublicKey // by which it was signed
}

// Error names the key and says how to trust it.
func (e *UntrustedError) Error() string {
	return fmt.Sprintf("cluster: the program is signed by %v, which is not trusted here; if you know whose key it is: multiproc key trust %[1]v", e.Key)
}

// ExpiredError is the error of a program that may not be started any more.
type ExpiredError struct {
	Program Program
}

// Error names the program and says since when.
func (e *ExpiredError) Error() string {
	return fmt.Sprintf("cluster: the signature of program %s is good until %s and no longer; sign it anew with: multiproc key sign --not-after DATE EXECUTABLE",
		e.Program.Name, e.Program.NotAfter.Format(time.RFC3339))
}

// PlatformError is the error of a program that is for another system or processor than that of
// the agent.
type PlatformError struct {
	Program      Program
	GOOS, GOARCH string // of the agent
}

// Error names both platforms.
func (e *PlatformError) Error() string {
	return fmt.Sprintf("cluster: program %s is for %s/%s and cannot run on %s/%s; build it for that with: GOOS=%[4]s GOARCH=%[5]s go build",
		e.Program.Name, e.Program.GOOS, e.Program.GOARCH, e.GOOS, e.GOARCH)
}

// AlteredError is the error of an executable that is not the one that was signed. It was not run.
type AlteredError struct {
	Program Program // what was signed
	Where   string  // where the other executable is: a file or an object store
	Hash    string  // its SHA-256, empty if it was not read to its end
	Size    int64   // its size in bytes, at least
}

// Error says what differs and where.
func (e *AlteredError) Error() string {
	what := fmt.Sprintf("it has %d bytes or more where %d were signed", e.Size, e.Program.Size)
	if e.Hash != "" {
		what = fmt.Sprintf("its SHA-256 is %s (%d bytes) where %s (%d bytes) was signed", e.Hash, e.Size, e.Program.Hash, e.Program.Size)
	}
	return fmt.Sprintf("cluster: program %s: %s is not the executable that was signed: %s", e.Program.Name, e.Where, what)
}

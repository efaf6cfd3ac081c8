package cluster

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// lease is what a job says as long as it is alive: which program runs its calls, and how.
type lease struct {
	Program Program       // as the submitter says
	Signed  SignedProgram // as somebody has signed it, or zero
	Terms   terms
}

// leaseOf returns the lease of a job of an executable, which key signs, if there is one.
func leaseOf(exe string, key PrivateKey, pool *multiproc.PoolConfig) (l lease, err error) {
	if l.Terms, err = termsOf(pool); err != nil {
		return l, fmt.Errorf("%s: %w", "Config.Pool", err)
	}
	if l.Program, err = ReadProgram(exe); err != nil {
		return l, err
	}
	if !key.IsZero() {
		l.Signed = Sign(l.Program, key)
		return l, nil
	}
	l.Signed, err = ReadSignature(exe)
	if errors.Is(err, ErrUnsigned) { // which some agents run
		return l, nil
	}
	if err != nil {
		return l, err
	}
	signed, err := Trust{l.Signed.Key: ""}.Verify(l.Signed) // as agents will do
	if err == nil && signed.Hash != l.Program.Hash {
		err = fmt.Errorf("%w: %s is that of another executable, perhaps of one before it was built anew", ErrBadSignature, exe+SignatureSuffix)
	}
	return l, err
}

func decodeLease(data []byte) (l lease, err error) {
	err = wire.Decode(data, &l)
	return l, err
}

// admit returns the program of a lease if this agent runs it, or why not. Its job has begun here at that time.
func (a *agent) admit(l *lease, function string, began time.Time) (Program, error) {
	p, err := a.cfg.Trust.verify(l.Signed, began)
	if errors.Is(err, ErrUnsigned) && a.cfg.AllowUnsigned {
		p, err = l.Program, nil
	}
	if err != nil {
		return p, err
	}
	if p.Hash != l.Program.Hash {
		return p, fmt.Errorf("%w: it is that of another executable", ErrBadSignature)
	}
	if err := p.CheckPlatform(runtime.GOOS, runtime.GOARCH); err != nil {
		return p, err
	}
	for _, f := range append(l.Terms.functions(), function) {
		if len(p.Functions) > 0 && !slices.Contains(p.Functions, f) {
			return p, fmt.Errorf("who has signed the program does not allow the function %s, only %v", f, p.Functions)
		}
	}
	return p, nil
}

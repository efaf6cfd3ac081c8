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
	Version int           // of the protocol
	Program Program       // as the submitter says
	Signed  SignedProgram // as somebody has signed it, or zero
	Terms   terms
}

// leaseOf returns the lease of a job of an executable, which key signs, if there is one.
func leaseOf(exe string, key PrivateKey, pool *multiproc.PoolConfig) (l lease, err error) {
	l.Version = wire.Version
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

// decodeLease reads a lease, which is hostile until checked.
func decodeLease(data []byte) (l lease, err error) {
	if err = wire.Decode(data, &l); err != nil {
		err = fmt.Errorf("the lease of the job is not understood: %w; is the program built with another version of multiproc than the agent?", err)
	}
	return l, err
}

// admit returns the program of a lease if this agent runs it, or why not. Its job has begun here at that time.
func (a *agent) admit(l *lease, function string, began time.Time) (Program, error) {
	if l.Version != wire.Version {
		return Program{}, fmt.Errorf("the program speaks version %d of the protocol, and this agent version %d: build both with the same version of multiproc", l.Version, wire.Version)
	}
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

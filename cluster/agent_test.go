package cluster

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// TestAdmit has jobs whose leases say that a program may be run, and an agent that has to believe the signature alone.
func TestAdmit(t *testing.T) {
	key, err1 := NewKey()
	other, err2 := NewKey()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	program := func(n int, functions ...string) Program {
		return Program{Hash: fmt.Sprintf("%064x", n), Size: 1, GOOS: runtime.GOOS, GOARCH: runtime.GOARCH, Name: "p", Functions: functions}
	}
	elsewhere := program(1)
	elsewhere.GOARCH = "s390x"
	a := newAgent(AgentConfig{Trust: Trust{key.Public(): "us"}, Pool: multiproc.PoolConfig{Workers: 1}}, false)
	for what, c := range map[string]struct {
		lease lease
		want  error // or none
		says  string
	}{
		"as it was signed":      {lease{Version: wire.Version, Program: program(1), Signed: Sign(program(1), key)}, nil, ""},
		"an allowed function":   {lease{Version: wire.Version, Program: program(1), Signed: Sign(program(1, "g", "f"), key)}, nil, ""},
		"another function":      {lease{Version: wire.Version, Program: program(1), Signed: Sign(program(1, "g"), key)}, nil, "does not allow the function f"},
		"another executable":    {lease{Version: wire.Version, Program: program(2), Signed: Sign(program(1), key)}, ErrBadSignature, ""},
		"nobody has signed it":  {lease{Version: wire.Version, Program: program(1)}, ErrUnsigned, ""},
		"a foreign key":         {lease{Version: wire.Version, Program: program(1), Signed: Sign(program(1), other)}, nil, "which is not trusted here"},
		"another version":       {lease{Version: wire.Version + 1, Program: program(1), Signed: Sign(program(1), key)}, nil, "build both with the same version"},
		"for another processor": {lease{Version: wire.Version, Program: elsewhere, Signed: Sign(elsewhere, key)}, nil, "s390x"},
		"a setup that is not allowed": {
			lease{Version: wire.Version, Program: program(1), Signed: Sign(program(1, "f"), key), Terms: terms{Setup: rawSetup{Func: "h"}}}, nil, "does not allow the function h",
		},
		"a teardown that is not allowed": {
			lease{Version: wire.Version, Program: program(1), Signed: Sign(program(1, "f"), key), Terms: terms{Teardown: rawSetup{Func: "h"}}}, nil, "does not allow the function h",
		},
	} {
		p, err := a.admit(&c.lease, "f", time.Now())
		switch {
		case c.want == nil && c.says == "":
			if err != nil || p.Hash != c.lease.Program.Hash {
				t.Errorf("%s: %v, %v", what, p, err)
			}
		case c.want != nil && !errors.Is(err, c.want), err == nil, !strings.Contains(err.Error(), c.says):
			t.Errorf("%s: %v", what, err)
		}
	}
}

// deafLink does not take the first answers.
type deafLink struct {
	agentLink
	deaf  int
	heard int
}

func (*deafLink) life() context.Context { return context.Background() }

func (l *deafLink) answer(context.Context, string, []byte) error {
	if l.deaf--; l.deaf >= 0 {
		return errors.New("no room")
	}
	l.heard++
	return nil
}

// TestAnswerBeforeAck has no room for answers for a while: a chunk is not acknowledged before its answer is stored, and is given
// back if that never happens.
func TestAnswerBeforeAck(t *testing.T) {
	a := newAgent(AgentConfig{Pool: multiproc.PoolConfig{Workers: 1}}, false)
	defer a.end()
	link := &deafLink{deaf: 2}
	a.link = link
	d := &oneDelivery{}
	a.say(proctest.Within(t), &chunk{Job: "me.job"}, d, &outcome{}, true)
	if !d.acked || d.again || link.heard != 1 || link.deaf != -1 {
		t.Errorf("acknowledged: %t, given back: %t, %d answers", d.acked, d.again, link.heard)
	}
	link, d = &deafLink{deaf: 1 << 30}, &oneDelivery{}
	a.link = link
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	a.say(ctx, &chunk{Job: "me.job"}, d, &outcome{}, true)
	if d.acked || !d.again {
		t.Errorf("without room acknowledged: %t, given back: %t", d.acked, d.again)
	}
}

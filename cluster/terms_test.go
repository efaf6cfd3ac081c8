package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/internal/proctest"
	"github.com/seed84f35039/multiproc/internal/wire"
)

// TestTerms has what a submitter wants meet what an agent allows.
func TestTerms(t *testing.T) {
	want := multiproc.PoolConfig{
		Workers: 7, CallTimeout: time.Minute, KillGrace: time.Second, MemoryLimit: 1 << 30, MaxTasks: 10, Nice: 5,
		Retry: multiproc.Retry{Attempts: 3, Backoff: time.Second}, Setup: proctest.Square.With(3),
	}
	mine, err := termsOf(&want)
	if err != nil {
		t.Fatal(err)
	}
	got := mine.apply(multiproc.PoolConfig{Workers: 2, CallTimeout: time.Hour, KillGrace: time.Millisecond, MemoryLimit: 1 << 40, OpenFiles: 100})
	name, arg, err := got.Setup.Encode()
	_, wantArg, _ := want.Setup.Encode()
	if err != nil || name != proctest.Square.Name() || string(arg) != string(wantArg) || len(arg) == 0 {
		t.Errorf("the setup is %s %x, %v", name, arg, err)
	}
	got.Setup = nil
	if diff := cmp.Diff(multiproc.PoolConfig{
		Workers: 2, CallTimeout: time.Minute, KillGrace: time.Millisecond, MemoryLimit: 1 << 30, OpenFiles: 100, MaxTasks: 10, Nice: 5,
		Retry: multiproc.Retry{Attempts: 3, Backoff: time.Second},
	}, got); diff != "" {
		t.Errorf("what the agent makes of it (-want +got):\n%s", diff)
	}
	other, err := termsOf(&multiproc.PoolConfig{Setup: proctest.Square.With(4)})
	if err != nil || mine.key("p") == other.key("p") || mine.key("p") == mine.key("q") {
		t.Error("keys are not what they tell apart", err)
	}
	for what, c := range map[string]struct {
		cfg  multiproc.PoolConfig
		says string
	}{
		"a function":      {multiproc.PoolConfig{Retry: multiproc.Retry{If: func(error) bool { return true }}}, "Retry.If"},
		"an environment":  {multiproc.PoolConfig{Env: []string{"LD_PRELOAD=x"}}, "Env"},
		"CPUs":            {multiproc.PoolConfig{CPUs: []int{1}}, "CPUs"},
		"a bad setup":     {multiproc.PoolConfig{Setup: &multiproc.Setup{}}, "Setup"},
		"a large setup":   {multiproc.PoolConfig{Teardown: proctest.Echo.With(make([]byte, maxTerms))}, "65536"},
		"a bad directory": {multiproc.PoolConfig{Dir: "/tmp"}, "Dir"},
	} {
		if _, err := termsOf(&c.cfg); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestNobodyForThisPlatform has agents there that cannot run this program.
func TestNobodyForThisPlatform(t *testing.T) {
	c := newCluster(Config{User: "me"})
	for id, platform := range map[string]string{"a": "plan9-amd64", "b": "plan9-amd64", "c": "linux-s390x"} {
		data, err := encodePresence(&presence{Name: id, Platform: platform, Slots: 4, Version: wire.Version})
		if err != nil {
			t.Fatal(err)
		}
		c.agentSays(id, data)
	}
	proctest.WantErr(t, c.noAgents(), ErrNoAgents)
	for _, says := range []string{here, "2 for plan9-amd64", "1 for linux-s390x"} {
		if !strings.Contains(c.noAgents().Error(), says) {
			t.Errorf("%q does not say %q", c.noAgents(), says)
		}
	}
	data, err := encodePresence(&presence{Name: "old", Platform: here, Slots: 4, Version: wire.Version - 1})
	if err != nil {
		t.Fatal(err)
	}
	c.agentSays("old", data)
	if says := fmt.Sprintf("1 for %s with version %d of the protocol, and not %d", here, wire.Version-1, wire.Version); !strings.Contains(c.noAgents().Error(), says) {
		t.Errorf("%q does not say %q", c.noAgents(), says)
	}
	if c.slots != 0 {
		t.Errorf("%d slots", c.slots)
	}
	c.agentSays("b", nil)
	if !strings.Contains(c.noAgents().Error(), "1 for plan9-amd64") {
		t.Errorf("%q after one is gone", c.noAgents())
	}
}

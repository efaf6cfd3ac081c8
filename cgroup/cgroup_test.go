package cgroup_test

import (
	"math"
	"strings"
	"testing"

	"github.com/seed84f35039/multiproc/cgroup"
)

// TestConfig has everything that is wrong with a configuration be told, whatever the system.
func TestConfig(t *testing.T) {
	for _, test := range []struct {
		cfg    cgroup.Config
		wanted []string
	}{
		{cgroup.Config{Memory: -1, CPUs: 0.001, PIDs: -2, Parent: "mine"}, []string{"Memory is -1;", "CPUs is 0.001;", "PIDs is -2;", `Parent is "mine";`}},
		{cgroup.Config{CPUs: -1}, []string{"CPUs is -1;"}},
		{cgroup.Config{CPUs: math.NaN()}, []string{"CPUs is NaN;"}},
		{cgroup.Config{CPUs: math.Inf(1)}, []string{"CPUs is +Inf;"}},
		{cgroup.Config{Parent: "/a/../b"}, []string{`Parent is "/a/../b";`}},
		{cgroup.Config{Parent: "/a/"}, []string{`Parent is "/a/";`}},
	} {
		cage, err := cgroup.New(test.cfg)
		if err == nil {
			cage.Close()
			t.Errorf("%+v is accepted", test.cfg)
			continue
		}
		for _, want := range append(test.wanted, "cgroup: Config: ", "; give ") {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: got %q, want %q in it", test.cfg, err, want)
			}
		}
		if n := strings.Count(err.Error(), "; give "); n != len(test.wanted) {
			t.Errorf("%+v: %d problems, want %d: %v", test.cfg, n, len(test.wanted), err)
		}
	}
}

// TestNoCage uses what New has not made.
func TestNoCage(t *testing.T) {
	for _, cage := range []*cgroup.Cage{nil, {}} {
		if _, err := cage.Admit(1); err == nil || !strings.Contains(err.Error(), "not made by cgroup.New") {
			t.Errorf("got %v", err)
		}
		if err := cage.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

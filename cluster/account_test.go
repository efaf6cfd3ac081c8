//go:build unix

package cluster_test

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestPermissionsAreOfOneAccount shows what the ready configuration cannot prevent: the server sends what alice has stored to
// the subject that she gives for the answer, where she may not publish. If this fails because NATS checks that, docs/cluster.md is to
// say so.
func TestPermissionsAreOfOneAccount(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, nil)
	g.setup(t, "alice", "bob")
	js, err := jetstream.New(g.connect(t, "operator", "_INBOX.setup"))
	if err != nil {
		t.Fatal(err)
	}
	alice := g.connect(t, "alice", "_INBOX.user-alice")
	if _, err := alice.RequestWithContext(proctest.Within(t), "$O.mp-blobs-alice.M.x", []byte("no result")); err != nil {
		t.Fatal(err)
	}
	if err := alice.PublishRequest("$JS.API.DIRECT.GET.OBJ_mp-blobs-alice.$O.mp-blobs-alice.M.x", "mp.result.bob.job", nil); err != nil {
		t.Fatal(err)
	}
	proctest.Eventually(t, proctest.Patience, "the results of bob have what alice has sent", func() bool {
		stream, err := js.Stream(proctest.Within(t), "MP_RESULTS_bob")
		return err == nil && stream.CachedInfo().State.Msgs == 1
	})
}

//go:build unix

package cluster_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/cluster"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// guarded is a server with the ready configuration, deploy/nats/nats.conf.
type guarded struct {
	server *cluster.Server
	file   string
	url    string
	tls    cluster.TLS
	seed   map[string]string // files, by user
}

// startGuarded starts a server with the ready configuration, in which it replaces addresses, files and keys, and what edit says.
func startGuarded(t *testing.T, edit func(conf string) string) *guarded {
	t.Helper()
	conf, err := os.ReadFile("../deploy/nats/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	g := &guarded{tls: cluster.TLS{CA: cert}, seed: map[string]string{}}
	replace := []string{
		"/etc/multiproc/server.pem", cert, "/etc/multiproc/server.key", key, "0.0.0.0:4222", "127.0.0.1:-1", "/var/lib/multiproc", dir,
	}
	for _, user := range []string{"operator", "agents", "alice", "bob", "nobody", "stranger"} {
		pair, err1 := nkeys.CreateUser()
		seed, err2 := pair.Seed()
		public, err3 := pair.PublicKey()
		g.seed[user] = filepath.Join(dir, user+".nk")
		if err := errors.Join(err1, err2, err3, os.WriteFile(g.seed[user], append(seed, '\n'), 0o600)); err != nil {
			t.Fatal(err)
		}
		if user == "nobody" { // is let in, but has no permissions
			replace = append(replace, "users: [", "users: [\n    { nkey: "+public+" }")
		} else if user != "stranger" {
			replace = append(replace, `"public key of `+user+`"`, public)
		}
	}
	text := string(conf)
	for i := 0; i < len(replace); i += 2 {
		if n := strings.Count(text, replace[i]); n != 1 {
			t.Fatalf("%q is %d times in the configuration", replace[i], n)
		}
		text = strings.Replace(text, replace[i], replace[i+1], 1)
	}
	if edit != nil {
		text = edit(text)
	}
	g.file = filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(g.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	g.start(t, "")
	t.Cleanup(func() { g.server.Close() })
	_, address, _ := strings.Cut(g.server.URL(), "://")
	g.url = "tls://" + address
	return g
}

// start starts the server, at an address that is not that of the file if it is said.
func (g *guarded) start(t *testing.T, listen string) {
	t.Helper()
	s, err := cluster.StartServer(cluster.ServerConfig{File: g.file, Listen: listen})
	if err != nil {
		t.Fatal(err)
	}
	g.server = s
}

// restart ends the server and starts it again.
func (g *guarded) restart(t *testing.T) {
	t.Helper()
	if err := g.server.Close(); err != nil {
		t.Error(err)
	}
	g.start(t, strings.TrimPrefix(g.url, "tls://"))
}

// setup makes the streams of users, as the operator.
func (g *guarded) setup(t *testing.T, users ...string) {
	t.Helper()
	if err := cluster.Setup(proctest.Within(t), cluster.SetupConfig{URL: g.url, TLS: g.tls, Credentials: g.seed["operator"], Users: users}); err != nil {
		t.Fatal(err)
	}
}

// certificate makes one for 127.0.0.1 that is its own authority.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err1 := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	secret, err2 := x509.MarshalPKCS8PrivateKey(private)
	cert, key = filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	err3 := os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	err4 := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// connect returns a connection of a user, until the test ends.
func (g *guarded) connect(t *testing.T, user, inbox string) *nats.Conn {
	t.Helper()
	option, err := nats.NkeyOptionFromSeed(g.seed[user])
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(g.url, option, nats.RootCAs(g.tls.CA), nats.CustomInboxPrefix(inbox))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func (g *guarded) config(user string) cluster.Config {
	return cluster.Config{URL: g.url, TLS: g.tls, Credentials: g.seed[user], User: user}
}

// TestPermissions has submitters, agents and others with the ready configuration do what they may, and try what they may
// not.
func TestPermissions(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, nil)
	g.setup(t, "alice", "bob")
	g.setup(t, "alice", "bob") // once more, which changes nothing
	startAgent(t, cluster.AgentConfig{URL: g.url, TLS: g.tls, Credentials: g.seed["agents"], AllowUnsigned: true, Pool: multiproc.PoolConfig{Workers: 2}})
	for _, user := range []string{"alice", "bob"} {
		c := dial(t, g.config(user))
		out, err := proctest.Square.Map(proctest.Within(t), c, proctest.Numbers(5000))
		if err != nil || len(out) != 5000 || out[7] != 49 {
			t.Errorf("%s: %d results, %v", user, len(out), err)
		}
		large := bytes.Repeat([]byte("large"), 1<<20) // by the object store
		if back, err := proctest.Echo.Call(proctest.Within(t), c, large); err != nil || !bytes.Equal(back, large) {
			t.Errorf("%s: %d bytes came back, %v", user, len(back), err)
		}
	}

	wrong := g.config("bob")
	wrong.User = "alice"
	for what, cfg := range map[string]cluster.Config{"bob as alice": wrong, "a user without rights": g.config("nobody")} {
		began := time.Now()
		_, err := cluster.Dial(proctest.Within(t), cfg)
		if denied, ok := errors.AsType[*cluster.PermissionError](err); !ok {
			t.Errorf("%s: %v", what, err)
		} else if !strings.Contains(denied.Error(), "ermissions") {
			t.Errorf("%s: the error says %q", what, denied)
		}
		t.Logf("%s: refused after %v", what, time.Since(began))
	}
	if _, err := cluster.Dial(proctest.Within(t), g.config("stranger")); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a stranger: %v", err)
	}
	plain := g.config("alice")
	plain.TLS = cluster.TLS{}
	if _, err := cluster.Dial(proctest.Within(t), plain); err == nil {
		t.Error("a server whose certificate nobody knows is trusted")
	}
	err := cluster.RunAgent(proctest.Within(t), cluster.AgentConfig{
		URL: g.url, TLS: g.tls, Credentials: g.seed["nobody"], AllowUnsigned: true, CacheDir: t.TempDir(), Logger: quietly,
	})
	if _, ok := errors.AsType[*cluster.PermissionError](err); !ok {
		t.Errorf("an agent without rights: %v", err)
	}

	for user, tries := range map[string][]string{
		"bob": {
			"mp.task.linux-amd64.alice.job.1", "mp.control.alice.job", "$KV.mp-leases.alice.job", "mp.result.alice.job", "mp.result.bob.job",
			"$JS.API.CONSUMER.CREATE.MP_RESULTS_alice.c.mp.result.alice.job", "$JS.API.STREAM.MSG.GET.MP_RESULTS_alice", "$JS.API.DIRECT.GET.MP_RESULTS_alice",
			"$JS.API.STREAM.MSG.GET.MP_TASKS", "$JS.API.CONSUMER.MSG.NEXT.MP_TASKS.agents-linux-amd64", "$JS.API.STREAM.PURGE.MP_TASKS",
			"$JS.API.STREAM.DELETE.MP_TASKS", "$JS.API.STREAM.CREATE.MINE", "$O.mp-programs-alice.C.x", "$O.mp-programs-alice.M.x",
			"$JS.API.DIRECT.GET.OBJ_mp-blobs-alice.x", "$KV.mp-agents.x", "$JS.ACK.MP_TASKS.agents-linux-amd64.1.1.1.1.1",
		},
		"agents": {
			"mp.task.linux-amd64.alice.job.1", "$O.mp-programs-alice.C.x", "$O.mp-programs-alice.M.x", "$KV.mp-leases.alice.job", "mp.control.alice.job",
			"$JS.API.STREAM.DELETE.MP_TASKS", "$JS.API.STREAM.PURGE.MP_TASKS", "$JS.API.STREAM.MSG.GET.MP_RESULTS_alice",
			"$JS.API.CONSUMER.CREATE.MP_RESULTS_alice.c.mp.result.alice.job", "$JS.API.CONSUMER.DELETE.MP_TASKS.agents-linux-amd64",
		},
		"operator": {"mp.task.linux-amd64.alice.job.1", "mp.result.alice.job", "$O.mp-programs-alice.C.x"},
		"nobody":   {"mp.task.linux-amd64.nobody.job.1", "mp.result.alice.job", "$JS.API.INFO", "$O.mp-programs-alice.C.x"},
	} {
		g.denies(t, user, tries, []string{"_INBOX.user-alice.>", "mp.task.>", "mp.result.>", "$KV.>", "_INBOX.>", ">"})
	}
}

// denies tries to publish and to listen as a user, all of which the server is to refuse.
func (g *guarded) denies(t *testing.T, user string, publish, subscribe []string) {
	t.Helper()
	option, err := nats.NkeyOptionFromSeed(g.seed[user])
	if err != nil {
		t.Fatal(err)
	}
	violations := make(chan error, 100)
	nc, err := nats.Connect(g.url, option, nats.RootCAs(g.tls.CA), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		violations <- err
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), proctest.Patience)
	defer cancel()
	try := func(what, subject string, f func() error) {
		if err := errors.Join(f(), nc.FlushWithContext(ctx)); err != nil {
			t.Fatal(err)
		}
		// What the server says comes before its answer to the Flush, but in a goroutine of its own.
		select {
		case err := <-violations:
			if !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), `"`+subject+`"`) {
				t.Errorf("%s may not %s %s: %v", user, what, subject, err)
			}
		case <-ctx.Done():
			t.Errorf("%s may %s %s", user, what, subject)
		}
	}
	for _, subject := range publish {
		try("publish to", subject, func() error { return nc.Publish(subject, nil) })
	}
	for _, subject := range subscribe {
		try("listen to", subject, func() error { _, err := nc.SubscribeSync(subject); return err })
	}
}

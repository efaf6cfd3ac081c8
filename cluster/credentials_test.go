//go:build unix

package cluster_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/seed84f35039/multiproc"
	"github.com/seed84f35039/multiproc/cluster"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// TestCredentials has a server that lets in who has a JWT of its account, and a certificate.
func TestCredentials(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	operator, err1 := nkeys.CreateOperator()
	account, err2 := nkeys.CreateAccount()
	system, err4 := nkeys.CreateAccount()
	user, err3 := nkeys.CreateUser()
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	operatorKey, _ := operator.PublicKey()
	accountKey, _ := account.PublicKey()
	systemKey, _ := system.PublicKey()
	userKey, _ := user.PublicKey()
	seed, _ := user.Seed()
	mine := jwt.NewAccountClaims(accountKey)
	mine.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	operatorJWT, err1 := jwt.NewOperatorClaims(operatorKey).Encode(operator)
	accountJWT, err2 := mine.Encode(operator)
	systemJWT, err4 := jwt.NewAccountClaims(systemKey).Encode(operator)
	userJWT, err3 := jwt.NewUserClaims(userKey).Encode(account)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	creds, err := jwt.FormatUserConfig(userJWT, seed)
	if err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf("listen: 127.0.0.1:-1\njetstream { store_dir: %q }\noperator: %s\nresolver: MEMORY\nsystem_account: %s\n"+
		"resolver_preload: { %s: %s, %s: %s }\ntls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }\n",
		dir, operatorJWT, systemKey, accountKey, accountJWT, systemKey, systemJWT, cert, key, cert)
	file, badFile := filepath.Join(dir, "user.creds"), filepath.Join(dir, "bad.creds")
	if err := errors.Join(os.WriteFile(file, creds, 0o600), os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o600),
		os.WriteFile(badFile, []byte("nothing of use"), 0o600)); err != nil {
		t.Fatal(err)
	}
	s, err := cluster.StartServer(cluster.ServerConfig{File: filepath.Join(dir, "conf")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	url := strings.Replace(s.URL(), "nats://", "tls://", 1)
	tls := cluster.TLS{CA: cert, Cert: cert, Key: key}
	startAgent(t, cluster.AgentConfig{URL: url, Credentials: file, TLS: tls, AllowUnsigned: true, Pool: multiproc.PoolConfig{Workers: 1}})
	c := dial(t, cluster.Config{URL: url, Credentials: file, TLS: tls})
	if out, err := proctest.Square.Call(proctest.Within(t), c, 3); out != 9 || err != nil {
		t.Errorf("got %d, %v", out, err)
	}
	for what, cfg := range map[string]cluster.Config{
		"no certificate":                 {Credentials: file, TLS: cluster.TLS{CA: cert}},
		"no credentials":                 {TLS: tls},
		"a certificate without a key":    {Credentials: file, TLS: cluster.TLS{CA: cert, Cert: cert}},
		"a file without credentials":     {Credentials: badFile, TLS: tls},
		"a file that is not there":       {Credentials: filepath.Join(dir, "none"), TLS: tls},
		"authorities that are not there": {Credentials: file, TLS: cluster.TLS{CA: filepath.Join(dir, "none"), Cert: cert, Key: key}},
	} {
		cfg.URL = url
		if c, err := cluster.Dial(proctest.Within(t), cfg); err == nil {
			c.Close()
			t.Errorf("%s: connected", what)
		} else {
			t.Logf("%s: %v", what, err)
		}
	}
}

// TestServerSaysWhatIsWrong has a second server want an address that is taken.
func TestServerSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := startServer(t, cluster.ServerConfig{})
	_, err := cluster.StartServer(cluster.ServerConfig{Listen: strings.TrimPrefix(s.URL(), "nats://"), Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("the error is %v", err)
	}
}

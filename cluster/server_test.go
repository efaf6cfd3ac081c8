//go:build unix

package cluster_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/seed84f35039/multiproc/cluster"
	"github.com/seed84f35039/multiproc/internal/proctest"
)

// serverFile returns a configuration file with this text.
func serverFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestServerThatAnybodyMayJoin has servers with and without users listen for other servers. None of them is told of others but
// in its file, without which a server of a cluster does not start.
func TestServerThatAnybodyMayJoin(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t, t.TempDir())
	const (
		routes   = "routes: [nats://127.0.0.1:1]\n"
		users    = "authorization { users: [{ user: u, password: p }] }\n"
		password = "authorization { user: s, password: p }\n"
	)
	tls := fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q }\n", cert, key, cert)
	for what, test := range map[string]struct {
		listen, clients, servers string
		refused                  bool
	}{
		"no users":                {"0.0.0.0:0", "", "", false},
		"users":                   {"0.0.0.0:0", users, "", true},
		"users, on all addresses": {":0", users, "", true},
		"one user":                {"0.0.0.0:0", "authorization { user: u, password: p }\n", "", true},
		"a token":                 {"0.0.0.0:0", "authorization { token: t }\n", "", true},
		"keys":                    {"0.0.0.0:0", "authorization { users: [{ nkey: UB3FYZ5VDCG4Z6GNMPD6ISKCVJHCO64TWN5KEDNLTN2WNEVPIISCTROP }] }\n", "", true},
		"certificates of clients": {"0.0.0.0:0", strings.Replace(tls, " }", ", verify: true }", 1), "", true},
		"authorities of nobody":   {"0.0.0.0:0", users, fmt.Sprintf("tls { cert_file: %q, key_file: %q }\n", cert, key), true},
		"loopback":                {"127.0.0.1:0", users, "", false},
		"localhost":               {"localhost:0", users, "", false},
		"a password":              {"0.0.0.0:0", users, password, false},
		"certificates of servers": {"0.0.0.0:0", users, tls, false},
	} {
		file := serverFile(t, test.clients+"cluster {\n"+routes+test.servers+"}\n")
		s, err := cluster.StartServer(cluster.ServerConfig{File: file, Listen: "127.0.0.1:0", Dir: t.TempDir(), ClusterListen: test.listen})
		if err == nil {
			s.Close()
		}
		if refused := err != nil && strings.Contains(err.Error(), "add to the file cluster { authorization {"); refused != test.refused || !refused && err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestServersKnowEachOther has two servers find each other as the ready configuration, deploy/nats/nats.conf, says once its block for
// that is no comment any more.
func TestServersKnowEachOther(t *testing.T) {
	t.Parallel()
	conf, err := os.ReadFile("../deploy/nats/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	_, block, ok := strings.Cut(string(conf), "\n# cluster {\n")
	block, _, ended := strings.Cut(block, "\n# }\n")
	if !ok || !ended {
		t.Fatal("there is no block")
	}
	cert, key := certificate(t, t.TempDir())
	text := strings.NewReplacer("\n# ", "\n", "/etc/multiproc/route.pem", cert, "/etc/multiproc/route.key", key, "/etc/multiproc/route-ca.pem", cert).
		Replace("authorization { user: u, password: p }\ncluster {\n" + block + "\n}\n")
	one, err1 := net.Listen("tcp", "127.0.0.1:0")
	two, err2 := net.Listen("tcp", "127.0.0.1:0")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	routes := []string{one.Addr().String(), two.Addr().String()}
	if err := errors.Join(one.Close(), two.Close()); err != nil {
		t.Fatal(err)
	}
	var clients []*nats.Conn
	for i, listen := range routes {
		server := startServer(t, cluster.ServerConfig{
			File: serverFile(t, text), Name: fmt.Sprint("server", i), ClusterListen: listen, Routes: []string{"nats://" + routes[0], "nats://" + routes[1]},
		})
		nc, err := nats.Connect(server.URL(), nats.UserInfo("u", "p"))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		clients = append(clients, nc)
	}
	heard, err := clients[1].SubscribeSync("news")
	if err != nil {
		t.Fatal(err)
	}
	proctest.Eventually(t, proctest.Patience, "what the first server is sent comes from the second", func() bool {
		if err := clients[0].Publish("news", nil); err != nil {
			t.Fatal(err)
		}
		n, _, err := heard.Pending()
		return n > 0 && err == nil
	})
}

package cluster

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// startTimeout is how long a server may take to start.
const startTimeout = 10 * time.Second

// startStep is after how long it is looked why a server has not started.
const startStep = 50 * time.Millisecond

// embedded is a server within this process, for this process alone.
type embedded struct {
	s   *server.Server
	dir string
}

// embed starts a server without a listener, which keeps its data in a directory of its own that is
// removed at its end.
func embed() (*embedded, error) {
	dir, err := os.MkdirTemp("", "multiproc-nats-")
	if err != nil {
		return nil, err
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "multiproc-" + rand.Text()[:8], DontListen: true, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: dir,
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	e := &embedded{s, dir}
	s.Start()
	if !s.ReadyForConnections(startTimeout) {
		e.close()
		return nil, fmt.Errorf("the NATS server did not start within %v", startTimeout)
	}
	return e, nil
}

// option makes a connection go to the server.
func (e *embedded) option() nats.Option { return nats.InProcessServer(e.s) }

// close ends the server, when nobody is connected any more.
func (e *embedded) close() error {
	e.s.Shutdown()
	e.s.WaitForShutdown()
	return os.RemoveAll(e.dir)
}

// ServerConfig configures [StartServer].
type ServerConfig struct {
	// Listen is the address for clients. Empty means "127.0.0.1:4222"; port 0 means one that is
	// free.
	Listen string

	// Dir is where the server keeps what it has to, which no other server may use meanwhile. It is
	// made if need be (mode 0700). It has to be given, unless File has a store_dir.
	Dir string

	// Name is that of the server, of its own in a cluster. Empty means that of the host.
	Name string

	// ClusterListen is the address for the other servers of a cluster of three or five. Empty
	// means a server by itself. Where File has users it also has to say how servers know each
	// other, in its block cluster, or this is a loopback address.
	ClusterListen string

	// Routes is where the other servers are, such as "nats://10.0.0.2:6222". Empty means what
	// File says.
	Routes []string

	// File is a configuration file of nats-server, for all that is not said here, such as users,
	// their permissions and TLS. Empty means that everybody who can connect may do everything.
	File string

	// Debug has the server log to standard error. Otherwise it says nothing.
	Debug bool
}

// clusterName is that of servers that are a cluster.
const clusterName = "multiproc"

// Server is a NATS server with JetStream, for those who have none.
type Server struct {
	s    *server.Server
	lock *os.File
}

// StartServer starts a server in this process. The errors say what is wrong with the
// configuration, that the directory is in use, or that the server does not start within 10 seconds.
func StartServer(cfg ServerConfig) (*Server, error) {
	s, err := startServer(cfg)
	if err != nil {
		return nil, fmt.Errorf("cluster: server: %w", err)
	}
	return s, nil
}

func startServer(cfg ServerConfig) (_ *Server, err error) {
	options := &server.Options{}
	if cfg.File != "" {
		if options, err = server.ProcessConfigFile(cfg.File); err != nil {
			return nil, err
		}
	}
	if cfg.Listen == "" && options.Port == 0 {
		cfg.Listen = "127.0.0.1:4222"
	}
	var errs []error
	if cfg.Listen != "" {
		options.Host, options.Port, err = hostPort(cfg.Listen)
		errs = append(errs, err)
	}
	if cfg.ClusterListen != "" {
		if options.Cluster.Name == "" {
			options.Cluster.Name = clusterName
		}
		options.Cluster.Host, options.Cluster.Port, err = hostPort(cfg.ClusterListen)
		errs = append(errs, err)
		if len(cfg.Routes) > 0 {
			options.Routes = server.RoutesFromStr(strings.Join(cfg.Routes, ","))
		}
		introduce(options)
		if guarded(options) && !routesGuarded(options) {
			errs = append(errs, fmt.Errorf("not everybody is let in by %s, but whoever reaches %s would be a server that may do everything; "+
				"add to the file cluster { authorization { user: …, password: … }, tls { cert_file: …, key_file: …, ca_file: … } }", cfg.File, cfg.ClusterListen))
		}
	} else if len(cfg.Routes) > 0 {
		errs = append(errs, errors.New("there are Routes, but no ClusterListen where the others find this server"))
	}
	if cfg.Dir == "" && options.StoreDir == "" {
		errs = append(errs, errors.New("no Dir is given; it is where the server keeps what it has to"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if cfg.Dir != "" {
		options.StoreDir = cfg.Dir
	}
	if cfg.Name == "" && options.ServerName == "" {
		cfg.Name, _ = os.Hostname()
	}
	if cfg.Name != "" {
		options.ServerName = cfg.Name
	}
	options.JetStream, options.NoSigs, options.NoLog = true, true, !cfg.Debug
	if options.PingInterval == 0 {
		options.PingInterval, options.MaxPingsOut = 5*time.Second, 2
	}
	srv := &Server{}
	if srv.lock, err = lockDir(options.StoreDir); err != nil {
		return nil, err
	}
	if srv.s, err = server.NewServer(options); err != nil {
		srv.lock.Close()
		return nil, err
	}
	fatal := make(fatalErrors, 1)
	if cfg.Debug {
		srv.s.ConfigureLogger()
	} else {
		srv.s.SetLogger(fatal, false, false)
	}
	srv.s.Start()
	for deadline := time.Now().Add(startTimeout); !srv.s.ReadyForConnections(startStep); {
		select {
		case err = <-fatal:
		default:
			if time.Now().After(deadline) {
				err = fmt.Errorf("it did not start within %v; is %s in use?", startTimeout, net.JoinHostPort(options.Host, strconv.Itoa(options.Port)))
			}
		}
		if err != nil {
			srv.Close()
			return nil, err
		}
	}
	return srv, nil
}

// introduce has the server give the others the user that it wants of them, where a route names none.
func introduce(options *server.Options) {
	for _, route := range options.Routes {
		if route.User == nil && options.Cluster.Username != "" {
			route.User = url.UserPassword(options.Cluster.Username, options.Cluster.Password)
		}
	}
}

// guarded reports whether clients have to say who they are.
func guarded(o *server.Options) bool {
	return len(o.Users)+len(o.Nkeys)+len(o.TrustedOperators)+len(o.TrustedKeys) > 0 || o.Username != "" || o.Authorization != "" ||
		o.TLSConfig != nil && o.TLSConfig.ClientAuth == tls.RequireAndVerifyClientCert
}

// routesGuarded reports whether other servers have to, or are on this machine.
func routesGuarded(o *server.Options) bool {
	if o.Cluster.Username != "" || o.Cluster.TLSConfig != nil && o.Cluster.TLSConfig.ClientCAs != nil {
		return true
	}
	ip := net.ParseIP(o.Cluster.Host)
	return ip.IsLoopback() || o.Cluster.Host == "localhost"
}

// fatalErrors is a logger that keeps the first reason for which a server does not start, and nothing else.
type fatalErrors chan error

func (f fatalErrors) Fatalf(format string, v ...any) {
	select {
	case f <- fmt.Errorf(format, v...):
	default:
	}
}

func (fatalErrors) Noticef(string, ...any) {}
func (fatalErrors) Warnf(string, ...any)   {}
func (fatalErrors) Errorf(string, ...any)  {}
func (fatalErrors) Debugf(string, ...any)  {}
func (fatalErrors) Tracef(string, ...any)  {}

// lockDir takes the lock of a directory.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "multiproc.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	ok, err := true, error(nil)
	if haveLocks {
		ok, err = tryLock(f, true)
	}
	if err == nil && !ok {
		err = fmt.Errorf("another server keeps its data in %s", dir)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func hostPort(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err == nil {
		port, err = strconv.Atoi(text)
	}
	if err != nil || port < 0 || port > 1<<16-1 {
		return "", 0, fmt.Errorf("%q is no address; give it as host:port", address)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// URL returns where clients find the server.
func (s *Server) URL() string { return s.s.ClientURL() }

// Close ends the server, and returns when it has.
func (s *Server) Close() error {
	s.s.Shutdown()
	s.s.WaitForShutdown()
	return s.lock.Close()
}

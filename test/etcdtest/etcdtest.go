// Package etcdtest gives tests a real etcd in the test's own process: one member or several, on
// loopback, without durability and with quick elections.
package etcdtest

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/daypass/daypass/test/sitetest"
)

// patience is the longest time that a member may take to start or to end.
const patience = time.Minute

// Server is one member. It must be used from one goroutine only.
type Server struct {
	URL  string // for clients
	Host string // the URL without its scheme

	t       testing.TB
	config  *embed.Config
	running *embed.Etcd
	admin   *clientv3.Client // of Users
	prefix  string           // of Users
}

// TLS names the PEM files of a server that requires client certificates.
type TLS struct{ Certificate, Key, CA string }

// Start starts a cluster of one member, which ends with the test.
func Start(t testing.TB) *Server { return start(t, 1, nil)[0] }

// StartTLS is like Start, but the server requires client certificates.
func StartTLS(t testing.TB, files TLS) *Server { return start(t, 1, &files)[0] }

// StartCluster starts a cluster of n members.
func StartCluster(t testing.TB, n int) []*Server { return start(t, n, nil) }

func start(t testing.TB, n int, files *TLS) []*Server {
	t.Helper()
	servers, cluster := make([]*Server, n), make([]string, n)
	dir := t.TempDir()
	for i := range servers {
		config := embed.NewConfig()
		config.Name = fmt.Sprintf("m%d", i)
		config.Dir = filepath.Join(dir, config.Name)
		config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
		config.TickMs, config.ElectionMs = 20, 200
		if n > 1 { // a member that a busy machine holds up for a moment is no reason for an election
			config.TickMs, config.ElectionMs = 50, 600
		}
		config.UnsafeNoFsync = true
		config.BcryptCost = 4
		config.MaxTxnOps = 512
		peer, client := free(t, "http"), free(t, "http")
		if files != nil {
			client.Scheme = "https"
			tls := &config.ClientTLSInfo
			tls.CertFile, tls.KeyFile, tls.TrustedCAFile, tls.ClientCertAuth = files.Certificate, files.Key, files.CA, true
		}
		config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
		cluster[i] = config.Name + "=" + peer.String()
		servers[i] = &Server{URL: client.String(), Host: client.Host, t: t, config: config}
	}
	for _, s := range servers {
		s.config.InitialCluster = strings.Join(cluster, ",")
		s.begin()
		t.Cleanup(s.Stop)
	}
	for _, s := range servers {
		s.ready()
	}
	return servers
}

// free returns an address that stays free while no member listens there.
func free(t testing.TB, scheme string) url.URL {
	t.Helper()
	address, err := sitetest.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return url.URL{Scheme: scheme, Host: address}
}

func (s *Server) begin() {
	s.t.Helper()
	running, err := embed.StartEtcd(s.config)
	if err != nil {
		s.t.Fatalf("starting etcd: %v", err)
	}
	s.running = running
}

func (s *Server) ready() {
	s.t.Helper()
	select {
	case <-s.running.Server.ReadyNotify():
	case err := <-s.running.Err():
		s.t.Fatalf("starting etcd: %v", err)
	case <-time.After(patience):
		s.t.Fatal("starting etcd: it is not ready in time")
	}
}

// Stop ends the member if it is running, and keeps its data.
func (s *Server) Stop() {
	if s.running != nil {
		s.running.Close()
		s.running = nil
	}
}

// Start starts a stopped member again, at the same address. If other members of the cluster are not
// running, it may not be ready when Start returns.
func (s *Server) Start() {
	s.t.Helper()
	s.begin()
	if !strings.Contains(s.config.InitialCluster, ",") {
		s.ready()
	}
}

// Forget deletes the data of a stopped member.
func (s *Server) Forget() {
	s.t.Helper()
	if err := os.RemoveAll(s.config.Dir); err != nil {
		s.t.Fatal(err)
	}
}

// Backup copies the data of a stopped member. restore puts the copy in their place; the member has to
// be stopped then, too.
func (s *Server) Backup() (restore func()) {
	s.t.Helper()
	kept := filepath.Join(s.t.TempDir(), "backup")
	if err := os.CopyFS(kept, os.DirFS(s.config.Dir)); err != nil {
		s.t.Fatal(err)
	}
	return func() {
		s.t.Helper()
		s.Forget()
		if err := os.CopyFS(s.config.Dir, os.DirFS(kept)); err != nil {
			s.t.Fatal(err)
		}
	}
}

// Full makes the cluster refuse writes, as it does when its space is used up, or ends that.
func (s *Server) Full(full bool) {
	s.t.Helper()
	action := etcdserverpb.AlarmRequest_DEACTIVATE
	if full {
		action = etcdserverpb.AlarmRequest_ACTIVATE
	}
	maintenance := etcdserverpb.NewMaintenanceClient(s.Client().ActiveConnection())
	_, err := maintenance.Alarm(s.t.Context(), &etcdserverpb.AlarmRequest{Action: action, MemberID: uint64(s.running.Server.MemberID()), Alarm: etcdserverpb.AlarmType_NOSPACE})
	if err != nil {
		s.t.Fatal(err)
	}
}

// Users turns authentication on. The user may read and write under prefix, unless Grant takes that
// away.
func (s *Server) Users(user, password, prefix string) {
	s.t.Helper()
	s.admin = s.Client()
	s.prefix = prefix
	ctx := s.t.Context()
	_, rootErr := s.admin.UserAdd(ctx, "root", "secret of root")
	_, rootRoleErr := s.admin.UserGrantRole(ctx, "root", "root")
	_, roleErr := s.admin.RoleAdd(ctx, "daypass")
	_, userErr := s.admin.UserAdd(ctx, user, password)
	_, grantErr := s.admin.UserGrantRole(ctx, user, "daypass")
	if err := errors.Join(rootErr, rootRoleErr, roleErr, userErr, grantErr); err != nil {
		s.t.Fatal(err)
	}
	s.Grant(true)
	if _, err := s.admin.AuthEnable(ctx); err != nil {
		s.t.Fatal(err)
	}
	admin, err := clientv3.New(clientv3.Config{Endpoints: []string{s.URL}, Username: "root", Password: "secret of root", DialTimeout: patience, Logger: zap.NewNop()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { admin.Close() })
	s.admin = admin
}

// Grant gives the user of Users its rights, or takes them away.
func (s *Server) Grant(granted bool) {
	s.t.Helper()
	end := clientv3.GetPrefixRangeEnd(s.prefix)
	var err error
	if granted {
		_, err = s.admin.RoleGrantPermission(s.t.Context(), "daypass", s.prefix, end, clientv3.PermissionType(clientv3.PermReadWrite))
	} else {
		_, err = s.admin.RoleRevokePermission(s.t.Context(), "daypass", s.prefix, end)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// Client returns another client's connection, without TLS and without a password.
func (s *Server) Client() *clientv3.Client {
	s.t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{s.URL}, DialTimeout: patience, Logger: zap.NewNop()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { client.Close() })
	return client
}

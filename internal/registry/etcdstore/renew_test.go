package etcdstore_test

import (
	"crypto/tls"
	"encoding/pem"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/registry/etcdstore"
	"github.com/daypass/daypass/test/etcdtest"

	"github.com/daypass/daypass/test/pgtest"
)

// TestRenewPassword: the file and etcd may change in either order, and a password that etcd
// refuses changes nothing.
func TestRenewPassword(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	admin := server.Client()
	for _, user := range []string{"root", "daypass"} {
		if _, err := admin.UserAdd(t.Context(), user, "first"); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.UserGrantRole(t.Context(), user, "root"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := admin.AuthEnable(t.Context()); err != nil {
		t.Fatal(err)
	}
	root, err := clientv3.New(clientv3.Config{Endpoints: []string{server.URL}, Username: "root", Password: "first", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	with := func(password string) etcdstore.Config {
		config := at(server)
		config.Prefix = prefix
		config.Username, config.Password = "daypass", keyring.Secret(password)
		return config
	}
	s := open(t, with("first"))
	create(t, s, "a", "1")
	works := func() bool { _, err := s.List(t.Context(), ""); return err == nil }

	// The file changes first.
	told := make(chan error, 10)
	s.Renew(with("second"), func(err error) { told <- err })
	select {
	case err := <-told:
		if !strings.Contains(err.Error(), "authentication failed") || strings.Contains(err.Error(), "second") {
			t.Errorf("refused: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("a password that etcd does not take is not reported")
	}
	if !works() {
		t.Error("the password before does not work any more")
	}
	if _, err := root.UserChangePassword(t.Context(), "daypass", "second"); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, "reading with the second password", works)

	// etcd changes first.
	if _, err := root.UserChangePassword(t.Context(), "daypass", "third"); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, "the second password is refused", func() bool { return !works() })
	s.Renew(with("third"), nil)
	pgtest.Eventually(t, "reading with the third password", works)

	// A mistake is made, and then undone.
	s.Renew(with("typo"), nil)
	s.Renew(with("third"), nil)
	if !works() {
		t.Error("the third password does not work any more")
	}
	if _, err := s.Create(t.Context(), "b", nil); err != nil {
		t.Errorf("writing: %v", err)
	}
	if len(told) > 0 {
		t.Errorf("told more than once: %v", <-told)
	}
}

// TestRenewAuthorities: another authority takes effect without a restart, and a wrong one
// changes nothing.
func TestRenewAuthorities(t *testing.T) {
	t.Parallel()
	one, two := newAuthority(t), newAuthority(t)
	var files etcdtest.TLS
	files.Certificate, files.Key = one.issue("server")
	files.CA = one.file
	server := etcdtest.StartTLS(t, files)
	pair, err := tls.LoadX509KeyPair(one.issue("client"))
	if err != nil {
		t.Fatal(err)
	}
	trusting := func(all ...*authority) etcdstore.Config {
		c := at(server)
		c.Prefix, c.TLS = prefix, &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: all[0].pool()}
		for _, a := range all {
			c.TLS.RootCAs.AddCert(a.cert)
			c.Authorities = append(c.Authorities, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})...)
		}
		return c
	}
	s := open(t, trusting(one))
	create(t, s, "a", "1")
	told := make(chan error, 10)
	s.Renew(trusting(two), func(err error) { told <- err })
	if err := <-told; !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("refused: %v", err)
	}
	if _, err := s.List(t.Context(), ""); err != nil {
		t.Errorf("after authorities that etcd's certificate is not from: %v", err)
	}
	s.Renew(trusting(one, two), func(err error) { told <- err })
	certificate, key := two.issue("server")
	server.Stop()
	for _, f := range [][2]string{{certificate, files.Certificate}, {key, files.Key}} {
		if err := os.Rename(f[0], f[1]); err != nil {
			t.Fatal(err)
		}
	}
	server.Start()
	pgtest.Eventually(t, "reading from the server with the other certificate", func() bool {
		list, err := s.List(t.Context(), "")
		return err == nil && slices.ContainsFunc(list, func(r registry.Record) bool { return r.Key == "a" })
	})
}

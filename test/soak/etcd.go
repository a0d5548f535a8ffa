//go:build linux

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/daypass/daypass/test/sitetest"
)

// The three members of etcd are processes of this program, so that they can be killed. They use TLS
// with one another and with clients, and require client certificates. They have two users: root,
// and daypass, which may use only its own prefix.

const (
	members    = 3
	etcdPrefix = "daypass/"
	etcdUser   = "daypass"
)

// member is the configuration of one member, which its process reads from a file.
type member struct {
	Name, Dir, Peer, Client, Cluster, State string
	Certificate, Key, CA                    string

	process *sitetest.Process
}

// serveMember is the process of a member.
func serveMember(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var m member
	if err := json.Unmarshal(text, &m); err != nil {
		return err
	}
	config := embed.NewConfig()
	config.Name, config.Dir, config.InitialCluster, config.ClusterState = m.Name, m.Dir, m.Cluster, m.State
	config.InitialClusterToken = "soak"
	config.LogLevel, config.LogOutputs = "error", []string{"stderr"}
	config.UnsafeNoFsync = true // processes are killed here, not machines
	config.BcryptCost = 4
	peer, err := url.Parse(m.Peer)
	if err != nil {
		return err
	}
	client, err := url.Parse(m.Client)
	if err != nil {
		return err
	}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	config.ClientTLSInfo.CertFile, config.ClientTLSInfo.KeyFile = m.Certificate, m.Key
	config.ClientTLSInfo.TrustedCAFile, config.ClientTLSInfo.ClientCertAuth = m.CA, true
	config.PeerTLSInfo = config.ClientTLSInfo
	running, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer running.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	select {
	case <-stop:
		return nil
	case err := <-running.Err():
		return err
	}
}

// etcd is the cluster. It must be used from one goroutine at a time.
type etcd struct {
	dir     string
	log     *os.File
	members [members]*member
	root    *clientv3.Client
	tls     *tls.Config // of the user root
	// wiped counts the restores. Each restore uses new directories.
	wiped int
}

func startEtcd(ctx context.Context, dir string) (_ *etcd, err error) {
	e := &etcd{dir: dir}
	defer func() {
		if err != nil {
			e.stop()
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := makeCertificates(dir, "etcd", "root", etcdUser, "gateway"); err != nil {
		return nil, err
	}
	if e.log, err = os.Create(filepath.Join(dir, "etcd.log")); err != nil {
		return nil, err
	}
	var cluster, endpoints []string
	for i := range e.members {
		peer, err := sitetest.FreeAddress()
		if err != nil {
			return nil, err
		}
		client, err := sitetest.FreeAddress()
		if err != nil {
			return nil, err
		}
		m := &member{Name: fmt.Sprintf("m%d", i), Peer: "https://" + peer, Client: "https://" + client, State: "new",
			Certificate: filepath.Join(dir, "etcd.crt"), Key: filepath.Join(dir, "etcd.key"), CA: filepath.Join(dir, "ca.crt")}
		m.Dir = filepath.Join(dir, m.Name)
		e.members[i] = m
		cluster = append(cluster, m.Name+"="+m.Peer)
		endpoints = append(endpoints, m.Client)
	}
	for _, m := range e.members {
		m.Cluster = strings.Join(cluster, ",")
		if err := e.begin(m); err != nil {
			return nil, err
		}
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "root.crt"), filepath.Join(dir, "root.key"))
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	e.tls = &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots}
	if e.root, err = clientv3.New(clientv3.Config{Endpoints: endpoints, TLS: e.tls, DialTimeout: 5 * time.Second, Logger: zap.NewNop()}); err != nil {
		return nil, err
	}
	if err := e.ready(ctx); err != nil {
		return nil, err
	}
	return e, e.secure(ctx)
}

// secure makes the users, as docs/several-servers.md describes it.
func (e *etcd) secure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	certificate := &clientv3.UserAddOptions{NoPassword: true} // the common name is the user
	for _, step := range []func() error{
		func() error { _, err := e.root.UserAddWithOptions(ctx, "root", "", certificate); return err },
		func() error { _, err := e.root.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := e.root.RoleAdd(ctx, etcdUser); return err },
		func() error {
			_, err := e.root.RoleGrantPermission(ctx, etcdUser, etcdPrefix, clientv3.GetPrefixRangeEnd(etcdPrefix), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := e.root.UserAddWithOptions(ctx, etcdUser, "", certificate); return err },
		func() error { _, err := e.root.UserGrantRole(ctx, etcdUser, etcdUser); return err },
		func() error { _, err := e.root.AuthEnable(ctx); return err },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("making etcd's users: %w", err)
		}
	}
	return nil
}

// begin starts the process of a member.
func (e *etcd) begin(m *member) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	file := filepath.Join(e.dir, m.Name+".json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	m.process, err = sitetest.Run(e.log, nil, self, "-etcd-member", file)
	return err
}

// ready waits until a majority answers a write.
func (e *etcd) ready(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		once, over := context.WithTimeout(limited, 2*time.Second)
		_, err := e.root.Put(once, "soak", "")
		over()
		if err == nil {
			return nil
		}
		if !pause(limited, 50*time.Millisecond) {
			return fmt.Errorf("etcd does not answer: %w", err)
		}
	}
}

// healthy waits until a member answers as a follower or leader that has caught up.
func (e *etcd) healthy(ctx context.Context, m *member) error {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{m.Client}, TLS: e.tls, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer client.Close()
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		once, over := context.WithTimeout(limited, 2*time.Second)
		_, err := client.Get(once, "soak") // linearizable
		over()
		if err == nil {
			return nil
		}
		if !pause(limited, 50*time.Millisecond) {
			return fmt.Errorf("%s does not answer: %w", m.Name, err)
		}
	}
}

func (m *member) kill() { m.process.End(syscall.SIGKILL, 10*time.Second) }

// replace removes a dead member and its data from the cluster, and adds the member again.
func (e *etcd) replace(ctx context.Context, m *member) error {
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	list, err := e.root.MemberList(limited)
	if err != nil {
		return fmt.Errorf("listing etcd's members: %w", err)
	}
	for _, one := range list.Members {
		if one.Name == m.Name {
			if _, err := e.root.MemberRemove(limited, one.ID); err != nil {
				return fmt.Errorf("removing a member: %w", err)
			}
		}
	}
	if err := os.RemoveAll(m.Dir); err != nil {
		return err
	}
	for { // the cluster refuses until it is sure of its other members
		if _, err = e.root.MemberAdd(limited, []string{m.Peer}); err == nil {
			break
		}
		if !pause(limited, 200*time.Millisecond) {
			return fmt.Errorf("adding a member: %w", err)
		}
	}
	m.State = "existing"
	if err := e.begin(m); err != nil {
		return err
	}
	return e.healthy(ctx, m)
}

// save writes a snapshot to a file.
func (e *etcd) save(ctx context.Context, file string) error {
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err := snapshot.NewV3(zap.NewNop()).Save(limited, clientv3.Config{
		Endpoints: []string{e.members[0].Client}, TLS: e.tls, DialTimeout: 5 * time.Second, Logger: zap.NewNop()}, file)
	if err != nil {
		return fmt.Errorf("saving a snapshot: %w", err)
	}
	return nil
}

// restore kills all members, and starts them again with the contents of a snapshot.
func (e *etcd) restore(ctx context.Context, file string) error {
	e.wiped++
	for _, m := range e.members {
		m.kill()
	}
	for _, m := range e.members {
		if err := os.RemoveAll(m.Dir); err != nil {
			return err
		}
		err := snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{SnapshotPath: file, Name: m.Name, OutputDataDir: m.Dir,
			PeerURLs: []string{m.Peer}, InitialCluster: m.Cluster, InitialClusterToken: fmt.Sprintf("soak-%d", e.wiped)})
		if err != nil {
			return fmt.Errorf("restoring a snapshot: %w", err)
		}
		m.State = "new"
		if err := e.begin(m); err != nil {
			return err
		}
	}
	return e.ready(ctx)
}

func (e *etcd) stop() {
	if e.root != nil {
		e.root.Close()
	}
	for _, m := range e.members {
		if m != nil {
			m.process.End(syscall.SIGKILL, 10*time.Second)
		}
	}
	if e.log != nil {
		e.log.Close()
	}
}

// makeCertificates makes an authority, ca.crt, and certificates for 127.0.0.1 with the given common
// names.
func makeCertificates(dir string, names ...string) error {
	now := time.Now()
	issue := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey, file string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, nil, err
		}
		if parent == nil {
			parent, signer = template, key
		}
		template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.Add(48*time.Hour)
		raw, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
		if err != nil {
			return nil, nil, err
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, nil, err
		}
		certificate, err := x509.ParseCertificate(raw)
		return certificate, key, errors.Join(err,
			os.WriteFile(filepath.Join(dir, file+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), 0o600),
			os.WriteFile(filepath.Join(dir, file+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	}
	ca, signer, err := issue(&x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "soak"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil, "ca")
	if err != nil {
		return err
	}
	for i, name := range names {
		if _, _, err := issue(&x509.Certificate{SerialNumber: big.NewInt(int64(2 + i)), Subject: pkix.Name{CommonName: name},
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, ca, signer, name); err != nil {
			return err
		}
	}
	return nil
}

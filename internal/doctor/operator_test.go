package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/clustercheck"
	"github.com/daypass/daypass/internal/config"
)

// has fails the test unless the report has a finding of that severity with the text, and a remedy
// for everything that is not OK.
func has(t *testing.T, r *Report, severity Severity, text string) {
	t.Helper()
	for _, f := range r.Findings {
		if f.Severity != OK && f.Do == "" {
			t.Errorf("%q has no remedy", f.Message)
		}
	}
	if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == severity && strings.Contains(f.Message, text) }) {
		t.Errorf("findings = %+v, want %s with %q", r.Findings, severity, text)
	}
}

// TestClusters: clusters that do not answer are waited for together, each is reported in its place,
// and with what was found.
func TestClusters(t *testing.T) {
	cfg := &config.Config{}
	for i := range atOnce {
		cfg.Clusters = append(cfg.Clusters, config.Cluster{Identifier: fmt.Sprintf("acme-%d", i)})
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ahead := now.Add(10 * time.Minute)
	var all sync.WaitGroup
	all.Add(atOnce)
	o := &Operator{Check: func(ctx context.Context, c config.Cluster) (clustercheck.Report, error) {
		all.Done()
		all.Wait() // until every check has begun
		switch c.Identifier {
		case "acme-0":
			return clustercheck.Report{Findings: []clustercheck.Finding{{Severity: clustercheck.Broken, Code: "password", Message: "acme_admin"}, {Severity: clustercheck.Broken, Code: "login"}}}, nil
		case "acme-1":
			return clustercheck.Report{Clock: &ahead, Asked: now}, nil
		case "acme-2":
			return clustercheck.Report{}, fmt.Errorf("checking cluster %q: %w", c.Identifier, context.DeadlineExceeded)
		}
		return clustercheck.Report{Findings: []clustercheck.Finding{{Severity: clustercheck.Warning, Code: "tls"}}}, nil
	}}
	mask := &Mask{}
	for _, c := range cfg.Clusters {
		mask.Cluster(c.Identifier)
	}
	r := NewReport(mask, nil)
	o.clusters(t.Context(), r, cfg)
	has(t, r, Error, "[cluster 1]: logons do not work, or not all: 2 errors (password, login), no warnings")
	has(t, r, Error, "this machine's clock is 10m0s behind that of the server of [cluster 2]")
	has(t, r, Error, "[cluster 3]: the check broke off: no answer in time")
	has(t, r, Warning, "[cluster 4]: daypass cluster check finds no errors, 1 warning (tls)")
	if len(r.Findings) != atOnce+1 || !strings.Contains(r.Findings[atOnce].Message, fmt.Sprintf("[cluster %d]", atOnce)) {
		t.Errorf("findings = %+v, want one for each cluster in order, and a clock", r.Findings)
	}
}

// TestPorts: addresses that are in use, or another machine's, are reported before a server starts.
func TestPorts(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	cfg := &config.Config{API: config.API{Listen: other.Addr().String()}, Gateway: config.Gateway{Listen: "203.0.113.9:5439"}, Metrics: config.Metrics{Listen: "127.0.0.1:0"}}
	r := NewReport(&Mask{}, nil)
	(&Operator{}).ports(t.Context(), r, cfg)
	has(t, r, Error, "api.listen: something else listens at 127.0.0.1:")
	has(t, r, Error, "gateway.listen: [host 1] is not an address of this machine")
	if len(r.Findings) != 2 {
		t.Errorf("findings = %+v, want two", r.Findings)
	}
	r = NewReport(&Mask{}, nil)
	(&Operator{}).ports(t.Context(), r, &config.Config{API: config.API{Listen: "127.0.0.1:0"}, Peers: &config.Peers{Listen: "0.0.0.0:0"}})
	has(t, r, OK, "nothing else listens")
}

// TestDisks: the audit log may have a disk of its own, which fills while the other has room.
func TestDisks(t *testing.T) {
	const gib = 1 << 30
	for _, test := range []struct {
		name        string
		data, audit [2]uint64 // free, total
		severity    Severity
		want        string
		findings    int
	}{
		{"one disk with room", [2]uint64{50 * gib, 100 * gib}, [2]uint64{50 * gib, 100 * gib}, OK, "the disk of the data directory has room", 1},
		{"one disk that fills", [2]uint64{4 * gib, 100 * gib}, [2]uint64{4 * gib, 100 * gib}, Warning, "the disk of the data directory has 4096 MiB left, less than 5%", 1},
		{"one full disk", [2]uint64{0, 100 * gib}, [2]uint64{0, 100 * gib}, Error, "the disk of the data directory has 0 MiB left", 1},
		{"two, the second one full", [2]uint64{50 * gib, 100 * gib}, [2]uint64{0, 10 * gib}, Error, "the disk of the audit log has 0 MiB left: what cannot be recorded is refused", 2},
		{"two, the first one full", [2]uint64{0, 100 * gib}, [2]uint64{5 * gib, 10 * gib}, Error, "the disk of the data directory has 0 MiB left", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := NewReport(&Mask{}, nil)
			r.disks("data", func(path string) (free, total uint64, ok bool) {
				if filepath.Base(path) == "audit" {
					return test.audit[0], test.audit[1], true
				}
				return test.data[0], test.data[1], true
			})
			has(t, r, test.severity, test.want)
			if len(r.Findings) != test.findings {
				t.Errorf("findings = %+v, want %d", r.Findings, test.findings)
			}
		})
	}
}

// TestAdvertised: a name that is not in DNS, and an address where something else answers.
func TestAdvertised(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	go func() {
		for {
			conn, err := mute.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("220 mail\r\n"))
			conn.Close()
		}
	}()
	port := mute.Addr().(*net.TCPAddr).Port
	for _, test := range []struct {
		host, want string
	}{
		{"gateway.invalid", "where clients are told to log on, cannot be resolved on this machine"},
		{"127.0.0.1", "cannot be reached from this machine: it does not offer TLS"},
	} {
		r := NewReport(&Mask{}, nil)
		(&Operator{}).advertised(t.Context(), r, &config.Config{Gateway: config.Gateway{Listen: "127.0.0.1:1", Advertise: config.Endpoint{Host: test.host, Port: port}}}, true)
		has(t, r, Warning, test.want)
		if r.Failed() {
			t.Errorf("%s: findings = %+v, want no error: another machine may see another network", test.host, r.Findings)
		}
	}
}

// authority signs certificates for TestChain.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func issue(t *testing.T, name string, by *authority, until time.Time, aia ...string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: until.AddDate(-1, 0, 0), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, IssuingCertificateURL: aia}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err == nil {
		template, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &authority{template, key}
}

// TestChain: what may be wrong with a file of several certificates, and what is right.
func TestChain(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	later := now.AddDate(0, 6, 0)
	root := issue(t, "root", nil, later)
	between := issue(t, "between", root, later)
	leaf := issue(t, "leaf", between, later, "http://authority.example/between.crt")
	expired := issue(t, "expired", root, now.Add(-time.Hour))
	private := issue(t, "private", root, later)
	file := func(list ...*authority) (der [][]byte) {
		for _, a := range list {
			der = append(der, a.certificate.Raw)
		}
		return der
	}
	for _, test := range []struct {
		name     string
		file     [][]byte
		severity Severity
		want     string
	}{
		{"whole", file(leaf, between), OK, ""},
		{"with its root", file(leaf, between, root), OK, ""},
		{"of a private authority", file(private), OK, ""},
		{"of its own", file(root), OK, ""},
		{"upside down", file(between, leaf), Error, "certificate 1 in the file of api.tls is not signed by the next one"},
		{"one missing in the middle", file(leaf, root), Error, "certificate 1 in the file of api.tls is not signed by the next one"},
		{"an expired one", file(issue(t, "leaf", expired, later), expired), Error, "certificate 2 in the file of api.tls, which signed the one before, expired on"},
		{"without those in between", file(leaf), Warning, "it lacks those in between"},
		{"not a certificate", [][]byte{leaf.certificate.Raw, {1, 2, 3}}, Error, "certificate 2 in the file of api.tls cannot be read"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := NewReport(&Mask{}, nil)
			r.chain("api", test.file, now)
			if test.severity == OK {
				if len(r.Findings) > 0 {
					t.Errorf("findings = %+v, want none", r.Findings)
				}
				return
			}
			has(t, r, test.severity, test.want)
		})
	}
}

// TestClock: from 20 seconds on the report warns, from 5 minutes on it is an error.
func TestClock(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for skew, want := range map[time.Duration]Severity{0: OK, 19 * time.Second: OK, -20 * time.Second: Warning, 4 * time.Minute: Warning, -5 * time.Minute: Error, 10 * time.Minute: Error} {
		r := NewReport(&Mask{}, nil)
		r.clock("the API", now, now.Add(skew))
		has(t, r, want, "")
	}
}

// TestPlainly: an error of a deadline says so, without the address that package net writes.
func TestPlainly(t *testing.T) {
	if got := plainly(fmt.Errorf("dial: %w", context.DeadlineExceeded)); got != "no answer in time" {
		t.Errorf("plainly = %q", got)
	}
	if got := plainly(errors.New("refused")); got != "refused" {
		t.Errorf("plainly = %q", got)
	}
}

// TestFilesOfAnotherAccount: a file that may not be read is not lost. The remedy is to change its
// owner, and never to restore, remove or replace it.
func TestFilesOfAnotherAccount(t *testing.T) {
	data := t.TempDir()
	name := filepath.Join(data, "keyring.json")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(name, 65532, -1); err != nil {
			t.Fatal(err)
		}
	} else if err := os.Chmod(name, 0); err != nil {
		t.Fatal(err)
	}
	cfg := &config.Config{Data: data, Keyring: name}
	o := &Operator{Now: time.Now}
	r := NewReport(&Mask{ShowNames: true}, nil)
	o.files(r, cfg)
	has(t, r, Error, "may not use what is in the data directory: ")
	o.registry(r, cfg, false)
	has(t, r, Warning, "there are keys, but no registry.db")
	if os.Geteuid() != 0 {
		o.keys(r, cfg)
		has(t, r, Error, "permission denied")
		if last := r.Findings[len(r.Findings)-1]; !strings.Contains(last.Do, "chown -R") || strings.Contains(last.Do, "restore") {
			t.Errorf("remedy: %s", last.Do)
		}
	}
	readOnly := fmt.Errorf("opening it: %w", &fs.PathError{Op: "open", Path: name, Err: errors.New("read-only file system")})
	if do := remedy(readOnly, "restore it"); strings.Contains(do, "restore") {
		t.Errorf("remedy(%v) = %s", readOnly, do)
	}
	lost := fmt.Errorf("opening it: %w", fs.ErrPermission)
	if do := remedy(lost, "restore it"); !strings.Contains(do, "chown -R") || strings.Contains(do, "restore") || remedy(fs.ErrNotExist, "restore it") != "restore it" {
		t.Errorf("remedy(%v) = %s", lost, do)
	}
}

// TestSeveralHosts: each host of a cluster is reported, and a remedy for one that is down. The mask
// hides their names.
func TestSeveralHosts(t *testing.T) {
	report := clustercheck.Report{Hosts: []clustercheck.Host{
		{Address: "db1.example.net:5432", State: clustercheck.Down, Problem: "nothing listens there", Do: "start PostgreSQL there"},
		{Address: "db2.example.net:5432", State: clustercheck.Primary}, {Address: "db3.example.net:5432", State: clustercheck.Standby},
	}}
	r := NewReport(&Mask{ShowNames: true}, nil)
	r.cluster("sales", report, nil)
	for _, want := range []Finding{
		{"clusters", Warning, "sales: host db1.example.net:5432 is down: nothing listens there", "start PostgreSQL there, or take it out of upstream"},
		{"clusters", OK, "sales: host db2.example.net:5432 answers (primary)", ""}, {"clusters", OK, "sales: host db3.example.net:5432 answers (standby)", ""},
	} {
		if !slices.Contains(r.Findings, want) {
			t.Errorf("no %+v in %+v", want, r.Findings)
		}
	}
	mask := &Mask{}
	mask.Host("db1.example.net")
	r = NewReport(mask, nil)
	r.cluster("sales", report, nil)
	for _, f := range r.Findings {
		if strings.Contains(f.Message, "db1") {
			t.Errorf("a host's name is reported: %s", f.Message)
		}
	}
}

package server

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/metrics"
	"github.com/daypass/daypass/test/pgtest"
	"github.com/daypass/daypass/test/sitetest"
)

// makeCertificate returns a certificate for 127.0.0.1 and daypass.example.com, and its key, both
// as PEM.
func makeCertificate(t *testing.T, name string, from, until time.Time) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: from, NotAfter: until, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"daypass.example.com"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// volume is a directory in the layout in which Kubernetes mounts Secrets and ConfigMaps: the
// names are links into ..data, which is a link to a directory with a time in its name. A change
// creates another directory and replaces the link.
type volume struct {
	t   *testing.T
	dir string

	mu      sync.Mutex // guards the files in dir and version
	version int
}

func (v *volume) put(files map[string][]byte) {
	v.t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.version++
	check := func(err error) {
		v.t.Helper()
		if err != nil {
			v.t.Fatal(err)
		}
	}
	name := fmt.Sprintf("..2026_11_28_%d", v.version)
	check(os.MkdirAll(filepath.Join(v.dir, name), 0o700))
	for file, data := range files {
		check(os.WriteFile(filepath.Join(v.dir, name, file), data, 0o600))
		if _, err := os.Lstat(filepath.Join(v.dir, file)); err != nil {
			check(os.Symlink("..data/"+file, filepath.Join(v.dir, file)))
		}
	}
	check(os.Symlink(name, filepath.Join(v.dir, "..data_tmp")))
	old, _ := os.Readlink(filepath.Join(v.dir, "..data"))
	check(os.Rename(filepath.Join(v.dir, "..data_tmp"), filepath.Join(v.dir, "..data")))
	if old != "" {
		check(os.RemoveAll(filepath.Join(v.dir, old)))
	}
}

// shown returns the name in the certificate of the server at address. With postgres it asks for
// TLS as a PostgreSQL client does.
func shown(t *testing.T, address string, postgres bool) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if postgres {
		_, _ = conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}) // SSLRequest
		if answer := make([]byte, 1); readByte(conn, answer) != 'S' {
			t.Fatalf("the gateway answers %q to SSLRequest", answer)
		}
	}
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // only the name matters here
	if err := secure.Handshake(); err != nil {
		t.Fatal(err)
	}
	return secure.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func readByte(conn net.Conn, into []byte) byte {
	_, _ = conn.Read(into)
	return into[0]
}

// TestFilesAreFollowed replaces each kind of file that a configuration names, as Kubernetes
// does, and waits until the server uses the new file, without a signal.
func TestFilesAreFollowed(t *testing.T) {
	t.Parallel() // the test mostly waits
	s := newServed(t, "127.0.0.1:1", adminListener)
	v := &volume{t: t, dir: filepath.Join(s.dir, "volume")}
	day := 24 * time.Hour
	files := map[string][]byte{
		"secret":      []byte(sitetest.Keys["bob"][1] + "\n"),
		"password":    []byte("administrative secret\n"),
		"policy.json": []byte(`{"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}}`),
		"jwks.json":   []byte(`{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`),
	}
	files["api.crt"], files["api.key"] = makeCertificate(t, "api 1", time.Now().Add(-day), time.Now().Add(90*day))
	files["gateway.crt"], files["gateway.key"] = makeCertificate(t, "gateway 1", time.Now().Add(-day), time.Now().Add(90*day))
	const config = `account: "123456789012"
region: us-east-1
data: ../data
api: {listen: "127.0.0.1:0", tls: {certificate: api.crt, key: api.key}}
gateway: {listen: "127.0.0.1:0", tls: {certificate: gateway.crt, key: gateway.key}}
admin: {listen: "127.0.0.1:0"}
clusters:
  - {identifier: examplecluster, upstream: "postgres://daypass@127.0.0.1:1/postgres?sslmode=disable", upstream_password_file: password}
iam:
  users:
    - name: bob
      access_keys: [{id: AKIAI44QH8DHBEXAMPLE, secret_file: secret}]
      policies: [policy.json]
  oidc_providers:
    - {issuer: "https://token.example.com", audiences: [daypass], jwks_file: jwks.json}
`
	files["daypass.yaml"] = []byte(config)
	v.put(files)
	s.config = filepath.Join(v.dir, "daypass.yaml")
	var reads atomic.Int64 // of the configuration
	s.read = func() { reads.Add(1) }
	s.start()
	api := strings.TrimPrefix(s.where.API, "https://")
	if got := shown(t, api, false) + ", " + shown(t, s.where.Gateway.String(), true); got != "api 1, gateway 1" {
		t.Fatalf("the certificates shown are %s", got)
	}
	replace := func(name string, data []byte) {
		t.Helper()
		mark := s.log.Len()
		files[name] = data
		v.put(files)
		pgtest.Eventually(t, "the new "+name, func() bool {
			text := s.log.String()[mark:]
			return strings.Contains(text, "configuration reloaded") && strings.Contains(text, name)
		})
	}
	files["api.key"], files["gateway.key"] = nil, nil
	files["api.crt"], files["api.key"] = makeCertificate(t, "api 2", time.Now().Add(-day), time.Now().Add(90*day))
	certificate, key := makeCertificate(t, "gateway 2", time.Now().Add(-day), time.Now().Add(90*day))
	files["gateway.key"] = key
	replace("gateway.crt", certificate)
	if got := shown(t, api, false) + ", " + shown(t, s.where.Gateway.String(), true); got != "api 2, gateway 2" {
		t.Errorf("the certificates shown are %s", got)
	}
	replace("password", []byte("another administrative secret\n"))
	replace("secret", []byte("another secret of bob's that is long\n"))
	replace("jwks.json", []byte(`{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw"}]}`))
	replace("policy.json", []byte(`{"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Action": "sts:*", "Resource": "*"}}`))
	replace("daypass.yaml", []byte(config+"  # nothing\n"))
	if strings.Contains(s.log.String(), "was refused") {
		t.Errorf("a good file was refused")
	}

	// Files are replaced one after the other, and one has a fault: nothing changes, and the
	// log reports the fault once, however long it lasts.
	mark := s.log.Len()
	files["policy.json"] = []byte(`{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*"}}`)
	v.put(files)
	metric := func(line string) func() bool {
		return func() bool {
			_, _, text := s.get("http://" + s.where.Admin + "/metrics")
			return strings.Contains(text, "\n"+line+"\n")
		}
	}
	pgtest.Eventually(t, "the refusal", metric("daypass_config_reload_ok 0"))
	for range 2 { // once the second attempt has begun, the first is over
		attempts := reads.Load()
		s.offset.Add(int64(time.Minute))
		pgtest.Eventually(t, "another attempt", func() bool { return reads.Load() > attempts })
	}
	if text := s.log.String(); strings.Count(text[mark:], "the configuration was refused") != 1 || !strings.Contains(text[mark:], "policy.json:1") {
		t.Errorf("the log does not say once what is wrong:\n%s", text[mark:])
	}
	if _, _, body := s.get("http://" + s.where.Admin + "/readyz"); !strings.Contains(body, "was refused") || !strings.Contains(body, "policy.json:1") {
		t.Errorf("/readyz does not warn: %s", body)
	}
	files["policy.json"] = []byte(`{"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}}`)
	v.put(files)
	pgtest.Eventually(t, "the end of the refusal", metric("daypass_config_reload_ok 1"))

	// A file disappears and comes back.
	path := filepath.Join(v.dir, "secret")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, "the refusal", metric("daypass_config_reload_ok 0"))
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	s.offset.Add(int64(time.Minute))
	pgtest.Eventually(t, "the end of the refusal", metric("daypass_config_reload_ok 1"))
}

// TestFilesReplacedInTheMiddle: a volume is swapped while its files are being read, after a
// change and after SIGHUP. The files that were read may be half old and half new, so they are
// not used. The server reads the new files without another signal.
func TestFilesReplacedInTheMiddle(t *testing.T) {
	t.Parallel() // the test mostly waits
	for _, signal := range []bool{false, true} {
		s := newServed(t, "127.0.0.1:1", "")
		text, err := os.ReadFile(s.config)
		if err != nil {
			t.Fatal(err)
		}
		v := &volume{t: t, dir: filepath.Join(s.dir, "volume")}
		put := func(version int) {
			v.put(map[string][]byte{"daypass.yaml": fmt.Appendf(text[:len(text):len(text)], "  # version %d\n", version), "upstream.password": []byte("administrative secret\n")})
		}
		put(0)
		s.config = filepath.Join(v.dir, "daypass.yaml")
		const inForce = "configuration reloaded"
		reads := make(chan int, 100) // how many configurations were put in force before each read
		s.read = func() {
			reads <- strings.Count(s.log.String(), inForce)
			if len(reads) == 1 {
				put(2)
			}
		}
		s.start()
		if signal {
			s.hangup <- syscall.SIGHUP
		} else {
			put(1)
		}
		pgtest.Eventually(t, "the files that are there in the end", func() bool { return len(reads) > 1 && strings.Contains(s.log.String(), inForce) })
		if first, second := <-reads, <-reads; first != 0 || second != 0 {
			t.Errorf("SIGHUP %t: %d and %d configurations were put in force before the files had been read in one piece", signal, first, second)
		}
	}
}

// TestFileCutShort: a configuration file that ends within a line, as one that is being written or was
// written to a full disk, is not put in force, even if what is there would be a sound configuration. It
// is after SIGHUP, and once it has its end.
func TestFileCutShort(t *testing.T) {
	t.Parallel() // the test mostly waits
	s := newServed(t, "127.0.0.1:1", "")
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.start()
	const inForce, refused = "configuration reloaded", "ends within a line, and may not be written to its end"
	wait := func(what, text string, times int) {
		t.Helper()
		pgtest.Eventually(t, what, func() bool { return strings.Count(s.log.String(), text) == times })
	}
	write(string(text) + "  # cut sho")
	wait("the refusal of a file that is cut short", refused, 1)
	write(string(text) + "  # cut short no more\n")
	wait("the whole file", inForce, 1)
	write(string(text) + "  # whole")
	s.hangup <- syscall.SIGHUP
	wait("the file after SIGHUP", inForce, 2)
}

// TestCertificatesExpire: each certificate that is about to expire is reported once a day, and
// again when it has expired.
func TestCertificatesExpire(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := metrics.Certificate{Use: "gateway", File: "gw.crt", NotAfter: start.Add(90 * 24 * time.Hour), RenewBy: start.Add(76 * 24 * time.Hour)}
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	var e expiry
	lines := map[int]string{}
	for hour := range 92 * 24 {
		out.Reset()
		e.look(log, []metrics.Certificate{c}, start.Add(time.Duration(hour)*time.Hour))
		if out.Len() > 0 {
			lines[hour] = out.String()
		}
	}
	for hour, text := range lines {
		over := hour > 90*24
		if hour < 76*24 || !strings.Contains(text, "file=gw.crt") || strings.Contains(text, "has expired") != over || strings.Contains(text, "level=ERROR") != over {
			t.Errorf("hour %d: %s", hour, text)
		}
	}
	if len(lines) != 15+2 || lines[76*24] == "" || lines[90*24+1] == "" {
		t.Errorf("%d lines, want one a day from the 76th on, and another at the end", len(lines))
	}
	out.Reset()
	c.NotAfter, c.RenewBy = start.Add(180*24*time.Hour), start.Add(166*24*time.Hour)
	e.look(log, []metrics.Certificate{c}, start.Add(92*24*time.Hour))
	if out.Len() > 0 || len(e.told) > 0 {
		t.Errorf("after the renewal: %s", out.String())
	}
}

// TestCertificatesInUse: metrics and readiness list the certificates in the configuration and
// the server's own.
func TestCertificatesInUse(t *testing.T) {
	s := newServed(t, "127.0.0.1:1", adminListener)
	certificate, key := makeCertificate(t, "api", time.Now().Add(-80*time.Hour), time.Now().Add(4*time.Hour))
	for name, data := range map[string][]byte{"api.crt": certificate, "api.key": key} {
		if err := os.WriteFile(filepath.Join(s.dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("limits: {rate: 0}"), []byte("tls: {certificate: api.crt, key: api.key}"), 1)
	if err := os.WriteFile(s.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	pgtest.Eventually(t, "the warning", func() bool { return strings.Contains(s.log.String(), "a certificate expires soon") })
	_, _, scrape := s.get("http://" + s.where.Admin + "/metrics")
	for _, use := range []string{"api", "gateway", "gateway authority"} {
		if !strings.Contains(scrape, `daypass_certificate_not_after_timestamp_seconds{cluster="",use="`+use+`"} `) ||
			!strings.Contains(scrape, `daypass_certificate_renew_by_timestamp_seconds{cluster="",use="`+use+`"} `) {
			t.Errorf("the scrape lacks the certificate of the %s", use)
		}
	}
	_, _, body := s.get("http://" + s.where.Admin + "/readyz")
	if !strings.Contains(body, "the certificate of the api expires on") || strings.Contains(body, "the gateway expires") {
		t.Errorf("/readyz = %s", body)
	}
	s.offset.Store(int64(5 * time.Hour))
	pgtest.Eventually(t, "the error", func() bool { return strings.Contains(s.log.String(), "a certificate has expired") })
}

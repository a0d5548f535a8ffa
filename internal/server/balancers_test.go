package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/redshift"
	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/test/pgtest"
	"github.com/daypass/daypass/test/sitetest"
)

// proxyExamples returns the configurations in docs/proxies.md in the given language.
func proxyExamples(t *testing.T, language string) (found []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/proxies.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		found = append(found, block[1])
	}
	return found
}

// balanced is a server whose API has TLS, with a balancer in front of both listeners.
type balanced struct {
	*served
	api, gateway string // the balancer's addresses
	roots        *x509.CertPool
}

// newBalanced starts a server with a PostgreSQL behind it. api and gateway are added to the
// sections of the listeners.
func newBalanced(t *testing.T, database, api, gateway string) *balanced {
	t.Helper()
	b := &balanced{served: newServed(t, database, ""), roots: x509.NewCertPool()}
	certificate, key := makeCertificate(t, "daypass.example.com", time.Now().Add(-time.Hour), time.Now().Add(90*24*time.Hour))
	b.roots.AppendCertsFromPEM(certificate)
	for name, data := range map[string][]byte{"daypass.crt": certificate, "daypass.key": key, "daypass-ca.crt": certificate} {
		if err := b.site.Write(name, string(data)); err != nil {
			t.Fatal(err)
		}
	}
	b.delay = time.Minute
	b.replace("limits: {rate: 0}", "limits: {rate: 0}, tls: {certificate: daypass.crt, key: daypass.key}, "+api)
	if gateway != "" {
		b.replace("gateway: {", "gateway: {"+gateway+", ")
	}
	b.start()
	t.Cleanup(func() { // before start's clean-up, which would wait for the delay
		select {
		case <-b.hurry:
		default:
			close(b.hurry)
		}
	})
	for _, address := range []*string{&b.api, &b.gateway} {
		var err error
		if *address, err = sitetest.FreeAddress(); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// run starts the balancer. The example's addresses are replaced by those of the test.
func (b *balanced) run(program string, args ...string) {
	b.t.Helper()
	log := &pgtest.Log{}
	p, err := sitetest.Run(log, nil, program, args...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		p.End(syscall.SIGTERM, 10*time.Second)
		if b.t.Failed() {
			b.t.Logf("the log of %s:\n%s", program, log)
		}
	})
	if err := p.Reachable(b.t.Context(), b.api); err != nil {
		b.t.Fatalf("%v\n%s", err, log)
	}
}

// nginx runs nginx with a configuration of the documents.
func (b *balanced) nginx(example string) {
	b.t.Helper()
	dir := b.dir
	begin := "daemon off;\npid " + dir + "/nginx.pid;\nerror_log stderr;\nevents {}\n"
	if module := "/usr/lib/nginx/modules/ngx_stream_module.so"; strings.Contains(example, "stream {") {
		if _, err := os.Stat(module); err == nil { // Debian packages it as a separate file
			begin = "load_module " + module + ";\n" + begin
		}
	}
	own := "http {\n    access_log off;\n"
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		own += fmt.Sprintf("    %s_temp_path %s/%s;\n", kind, dir, kind)
	}
	example = strings.Replace(example, "http {\n", own, 1)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(begin+b.local(strings.ReplaceAll(example, "/etc/nginx/", dir+"/"))), 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.run("nginx", "-e", "stderr", "-c", file)
}

// local replaces the addresses of the examples.
func (b *balanced) local(example string) string {
	return strings.NewReplacer(
		"listen 443", "listen "+b.api, "listen 5439", "listen "+b.gateway, "bind :443", "bind "+b.api, "bind :5439", "bind "+b.gateway,
		"10.0.0.10:8440", strings.TrimPrefix(b.where.API, "https://"), "10.0.0.10:5439", b.where.Gateway.String(),
		"check port 8440", "check port "+b.where.API[strings.LastIndex(b.where.API, ":")+1:]).Replace(example)
}

// check asks for a credential with the SDK and logs on with it, from an address of its own, and
// looks for that address in the audit log.
func (b *balanced) check(throughGateway bool) {
	b.t.Helper()
	ctx := b.t.Context()
	const client = "127.0.6.7"
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}}
	_, port, _ := net.SplitHostPort(b.api)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: b.roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, b.api)
		},
	}
	defer transport.CloseIdleConnections()
	sdk := redshift.New(redshift.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("https://daypass.example.com:" + port), HTTPClient: &http.Client{Transport: transport},
		Credentials: credentials.NewStaticCredentialsProvider(sitetest.Keys["ana"][0], sitetest.Keys["ana"][1], ""), RetryMaxAttempts: 1,
	})
	got, err := sdk.GetClusterCredentials(ctx, &redshift.GetClusterCredentialsInput{ClusterIdentifier: aws.String("examplecluster"), DbUser: aws.String("alice"), DbName: aws.String("dev")})
	if err != nil {
		b.t.Fatal(err)
	}
	b.site.Gateway = b.where.Gateway.String()
	if throughGateway {
		b.site.Gateway = b.gateway
	}
	config, err := b.site.Logon(aws.ToString(got.DbUser), aws.ToString(got.DbPassword), "dev")
	if err != nil {
		b.t.Fatal(err)
	}
	config.DialFunc = dialer.DialContext
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		b.t.Fatal(err)
	}
	// More than a balancer's buffer, in both directions.
	var length int
	if err := conn.QueryRow(ctx, "SELECT length($1 || repeat('x', 1000000))", strings.Repeat("y", 1_000_000)).Scan(&length); err != nil || length != 2_000_000 {
		b.t.Errorf("a long query through the balancer: %d, %v", length, err)
	}
	if err := conn.Close(ctx); err != nil {
		b.t.Error(err)
	}
	pgtest.Eventually(b.t, "the session's end is in the audit log", func() bool { return b.sessionEnds() == 1 })
	for _, line := range auditLines(b.t, b.served) {
		if from := line["sourceIPAddress"]; from != client {
			b.t.Errorf("the audit log has %v as the source of %v, want %s", from, line["eventName"], client)
		}
	}
}

// TestBehindNginx issues a credential and logs on through nginx, with the configurations of
// docs/proxies.md.
func TestBehindNginx(t *testing.T) {
	if _, err := exec.LookPath("nginx"); err != nil {
		t.Log("NOT CHECKED: there is no nginx in PATH")
		return
	}
	examples := proxyExamples(t, "nginx")
	if len(examples) != 2 {
		t.Fatalf("docs/proxies.md has %d configurations of nginx, want 2", len(examples))
	}
	database := startDatabase(t)
	t.Run("TLS ends at nginx", func(t *testing.T) {
		b := newBalanced(t, database, "trusted_proxies: [127.0.0.1]", "")
		b.nginx(examples[0])
		b.check(false)
	})
	t.Run("TLS passes through", func(t *testing.T) {
		b := newBalanced(t, database, "proxy_protocol: {from: [127.0.0.1]}", "proxy_protocol: {from: [127.0.0.1]}")
		b.nginx(examples[1])
		b.check(true)
	})
}

// TestBehindHAProxy issues a credential and logs on through HAProxy, with the configuration of
// docs/proxies.md, whose health checks have to notice a server that is about to leave.
func TestBehindHAProxy(t *testing.T) {
	if _, err := exec.LookPath("haproxy"); err != nil {
		t.Log("NOT CHECKED: there is no haproxy in PATH")
		return
	}
	examples := proxyExamples(t, "haproxy")
	if len(examples) != 1 {
		t.Fatalf("docs/proxies.md has %d configurations of HAProxy, want 1", len(examples))
	}
	b := newBalanced(t, startDatabase(t), "proxy_protocol: {from: [127.0.0.1]}", "proxy_protocol: {from: [127.0.0.1]}")
	stats, file := filepath.Join(b.dir, "stats"), filepath.Join(b.dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte("global\n    stats socket "+stats+"\n"+
		strings.Replace(b.local(examples[0]), "defaults\n", "defaults\n    default-server inter 200ms\n", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	b.run("haproxy", "-db", "-f", file)
	health := func() string {
		conn, err := net.Dial("unix", stats) // it may not be there yet
		if err != nil {
			return err.Error()
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "show stat\n"); err != nil {
			return err.Error()
		}
		rows, err := csv.NewReader(conn).ReadAll()
		if err != nil || len(rows) == 0 {
			return fmt.Sprintf("HAProxy's statistics: %v", err)
		}
		var all []string
		for _, row := range rows[1:] {
			value := map[string]string{}
			for i, name := range rows[0] {
				value[strings.TrimPrefix(name, "# ")] = row[i]
			}
			if value["svname"] == "daypass1" {
				all = append(all, value["pxname"]+" "+value["status"]+" "+strings.TrimPrefix(value["check_status"], "* "))
			}
		}
		return strings.Join(all, ", ")
	}
	pgtest.Eventually(t, "both health checks pass", func() bool { return health() == "api UP L7OK, gateway UP L7OK" })
	b.check(true)

	stopped := make(chan error, 1)
	stop := b.stop
	b.stop = func() error { return <-stopped }
	go func() { stopped <- stop() }()
	pgtest.Eventually(t, "both health checks fail", func() bool { return health() == "api DOWN L7STS, gateway DOWN L7STS" })
	if !listening(b.where.Gateway.String()) {
		t.Error("the gateway stopped listening before the balancer knew")
	}
	close(b.hurry)
}

package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/redshift"
	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/postgres"
	"github.com/daypass/daypass/test/pgtest"
	"github.com/daypass/daypass/test/sitetest"
)

// TestComposeProject prepares deploy/compose as its documentation says, runs its two processes
// with what the script made, and logs on. The image and Compose's own reading of the project are
// tested in the release module.
func TestComposeProject(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Log("NOT CHECKED: there is no openssl in PATH")
		return
	}
	site, err := sitetest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := site.Path("compose")
	if err := os.CopyFS(dir, os.DirFS("../../deploy/compose")); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	prepare := func() {
		t.Helper()
		if out, err := exec.Command("sh", filepath.Join(dir, "prepare"), "localhost").CombinedOutput(); err != nil {
			t.Fatalf("prepare: %v\n%s", err, out)
		}
	}
	prepare()
	password, certificate := read("secrets/upstream/password"), read("api-ca.crt")
	prepare()
	if read("secrets/upstream/password") != password || read("api-ca.crt") != certificate {
		t.Error("a second run replaced what the first had made")
	}

	t.Cleanup(func() {
		if err := site.Close(); err != nil {
			t.Error(err)
		}
	})
	installation, err := pgtest.Installation()
	if err != nil {
		t.Fatal(err)
	}
	steps := []sitetest.Step{{Database: "postgres", SQL: "CREATE DATABASE dev"}, {Database: "postgres", SQL: read("postgres/initdb/daypass.sql")}}
	for from, to := range map[string]string{"tls.crt": "server.crt", "tls.key": "server.key"} {
		// The server writes its own copies, which then belong to its account.
		steps = append(steps, sitetest.Step{Database: "postgres", SQL: "COPY (SELECT unnest(string_to_array('" + strings.TrimSpace(read("postgres/tls/"+from)) + "', E'\\n'))) TO PROGRAM 'umask 077; cat > " + to + "'"})
	}
	steps = append(steps, sitetest.Step{Database: "postgres", SQL: "ALTER SYSTEM SET ssl = on"}, sitetest.Step{Database: "postgres", SQL: "SELECT pg_reload_conf()"})
	if err := site.StartDatabase(t.Context(), installation, postgres.Options{}, steps...); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, "PostgreSQL offers TLS", func() bool {
		conn, err := pgx.Connect(t.Context(), strings.Replace(site.Database.ConnString(postgres.Superuser, "postgres"), "sslmode=disable", "sslmode=require", 1))
		if err != nil {
			return false
		}
		return conn.Close(t.Context()) == nil && conn.Config().TLSConfig != nil
	})

	configuration := strings.NewReplacer(
		"/etc/daypass/", dir+"/", "/var/lib/daypass/data", site.Path("data"),
		"0.0.0.0:8440", site.API, "0.0.0.0:5439", site.Gateway, "0.0.0.0:9441", "127.0.0.1:0",
		"daypass@postgres:5432/postgres?", fmt.Sprintf("daypass@localhost:%d/postgres?", site.Database.Port()),
	).Replace(read("config/daypass.yaml"))
	if err := site.Write("daypass.yaml", configuration); err != nil {
		t.Fatal(err)
	}
	s := &served{t: t, site: site, dir: site.Dir, config: site.ConfigFile(), log: &pgtest.Log{}}
	s.start()

	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(certificate))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	port := s.where.API[strings.LastIndex(s.where.API, ":"):]
	sdk := redshift.New(redshift.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("https://localhost" + port), HTTPClient: &http.Client{Transport: transport}, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("AKIAIOSFODNN7EXAMPLE", strings.TrimSpace(read("secrets/access-keys/ana")), ""),
	})
	got, err := sdk.GetClusterCredentials(t.Context(), &redshift.GetClusterCredentialsInput{
		ClusterIdentifier: aws.String("examplecluster"), DbUser: aws.String("ana"), DbName: aws.String("dev"), AutoCreate: aws.Bool(true),
	})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := s.logon(issued{DbUser: aws.ToString(got.DbUser), DbPassword: aws.ToString(got.DbPassword)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var user string
	if err := conn.QueryRow(t.Context(), "SELECT current_user").Scan(&user); err != nil || user != "ana" {
		t.Errorf("the session is %s's, %v, want ana's", user, err)
	}
}

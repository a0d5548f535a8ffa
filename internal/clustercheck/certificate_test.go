package clustercheck_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/clustercheck"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestCheckOfTheCertificate: the check warns before the server's certificate expires. Once it has, or
// its authority or name is another one, the check and the error of a logon tell so.
func TestCheckOfTheCertificate(t *testing.T) {
	f := alone(t, pgtest.Start(t), "CREATEROLE")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	ours, now := net.IPv4(127, 0, 0, 1), time.Now()
	other, _ := pgtest.Certificate(t, key, 0)
	for name, row := range map[string]struct {
		from, until time.Duration
		address     net.IP
		root        []byte // nil: the certificate itself
		code, text  string // "": nothing to report
	}{
		"for months":        {-day, 100 * day, ours, nil, "", ""},
		"soon":              {-100 * day, 10 * day, ours, nil, "certificate-expires", "expires on " + now.Add(10*day).UTC().Format("2006-01-02")},
		"short, but new":    {-time.Hour, time.Hour, ours, nil, "", ""},
		"expired":           {-10 * day, -day, ours, nil, "certificate", "expired on " + now.Add(-day).UTC().Format("2006-01-02")},
		"another authority": {-day, 100 * day, ours, other, "certificate", "no authority in sslrootcert"},
		"another host":      {-day, 100 * day, net.IPv4(192, 0, 2, 1), nil, "certificate", "192.0.2.1"},
	} {
		certificate, keyPEM := pgtest.CertificateFor(t, key, 0, now.Add(row.from), now.Add(row.until), row.address)
		f.SecureWith(t, certificate, keyPEM)
		if row.root == nil {
			row.root = certificate
		}
		root := filepath.Join(t.TempDir(), "root.crt")
		if err := os.WriteFile(root, row.root, 0o600); err != nil {
			t.Fatal(err)
		}
		admin := f.Another(func(c *dbuser.Config) {
			if c.Conn, err = pgx.ParseConfig(strings.Replace(f.ConnString(f.As, "postgres"), "sslmode=disable", "sslmode=verify-full&sslrootcert="+root, 1)); err != nil {
				t.Fatal(err)
			}
		})
		report, err := clustercheck.Check(t.Context(), admin.Admin)
		if err != nil {
			t.Fatal(err)
		}
		if row.code != "" && len(clustertest.Findings(report, row.code, row.text)) != 1 || row.code == "" && strings.Contains(clustertest.Text(report), "certificate-expires") ||
			report.Broken() != (row.code == "certificate") {
			t.Errorf("%s: %s", name, clustertest.Text(report))
		}
		c, err := admin.Pool.Acquire(t.Context())
		if err == nil {
			admin.Pool.Release(c)
		}
		if refused := err != nil && strings.Contains(err.Error(), "the certificate of its server is not accepted; run `daypass cluster check"); refused != (row.code == "certificate") {
			t.Errorf("%s: Acquire: %v", name, err)
		}
	}
}

// TestCheckOfALoginThatExpires: PostgreSQL does not tell an expired password from a wrong one, so the
// check warns before, and names the cause afterwards.
func TestCheckOfALoginThatExpires(t *testing.T) {
	f := alone(t, pgtest.Start(t), "CREATEROLE")
	const day = 24 * time.Hour
	for _, row := range []struct {
		until    string
		severity clustercheck.Severity // OK: nothing to report
	}{
		{"infinity", clustercheck.OK},
		{time.Now().Add(60 * day).Format(time.RFC3339), clustercheck.Notice},
		{time.Now().Add(2 * day).Format(time.RFC3339), clustercheck.Warning},
	} {
		f.Run("alter role %s valid until '"+row.until+"'", f.As.Name)
		report := f.Check()
		found := clustertest.Findings(report, "login-expires", f.As.Name)
		if row.severity == clustercheck.OK && len(found) != 0 || row.severity != clustercheck.OK && (len(found) != 1 || found[0].Severity != row.severity) {
			t.Errorf("valid until %s: %s", row.until, clustertest.Text(report))
		}
		f.Mend(clustercheck.Report{Findings: found})
		if found = clustertest.Findings(f.Check(), "login-expires", ""); len(found) != 0 {
			t.Errorf("after what the check prints: %+v", found)
		}
	}
	f.Run("alter role %s valid until '2020-01-01'", f.As.Name)
	report, err := clustercheck.Check(t.Context(), f.Another().Admin)
	if err != nil || len(clustertest.Findings(report, "password", "alter role \""+f.As.Name+"\" valid until 'infinity'")) != 1 {
		t.Errorf("expired: %v %s", err, clustertest.Text(report))
	}
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestProxyRoots: as with libpq, a mode that does not check the name is refused if anyone could get
// a certificate that passes.
func TestProxyRoots(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("APPDATA", home)
	ca := filepath.Join(home, "ca.crt")
	if err := os.WriteFile(ca, []byte("CA"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ mode, file, want, fault string }{
		{"verify-full", systemCA, "", ""},
		{"verify-full", "", "", ""},
		{"verify-full", ca, "CA", ""},
		{"verify-ca", ca, "CA", ""},
		{"require", ca, "CA", ""},
		{"require", "", "", ""},
		{"verify-ca", systemCA, "", "use verify-full"},
		{"require", systemCA, "", "use verify-full"},
		{"verify-ca", "", "", "name the gateway's CA"},
	} {
		roots, err := (&logon{sslMode: row.mode, sslRootCert: row.file}).roots()
		if string(roots) != row.want || (err != nil) != (row.fault != "") || err != nil && !strings.Contains(err.Error(), row.fault) {
			t.Errorf("%s with %q: %q, %v", row.mode, row.file, roots, err)
		}
	}
}

// TestProxyChecksCertificates: nothing but a flag or the map makes the check of a gateway's
// certificate weaker, wherever the gateway is.
func TestProxyChecksCertificates(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("APPDATA", home)
	ca := filepath.Join(home, "ca.crt")
	if err := os.WriteFile(ca, []byte("CA"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"gateway.example.com", "127.0.0.1", "::1", "localhost"} {
		for _, row := range []struct{ flag, env, want, fault string }{
			{"", "", "", "no CA certificate is known"},
			{"", "DAYPASS_SSLROOTCERT", "verify-full", ""},
			{"", "PGSSLROOTCERT", "verify-full", ""},
			{"require", "", "require", ""},
			{"verify-ca", "DAYPASS_SSLROOTCERT", "verify-ca", ""},
		} {
			at := &logon{host: host}
			err := (&connectOptions{sslMode: row.flag}).secureForProxy(at, func(name string) string {
				return map[string]string{"PGSSLMODE": "disable", row.env: ca}[name]
			})
			if (err != nil) != (row.fault != "") || err != nil && !strings.Contains(err.Error(), row.fault) || err == nil && at.sslMode != row.want {
				t.Errorf("%s, %+v: %s, %v", host, row, at.sslMode, err)
			}
		}
	}
}

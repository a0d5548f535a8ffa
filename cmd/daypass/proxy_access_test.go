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

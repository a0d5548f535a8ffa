//go:build unix

package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestModes: a warning is given for a secret that others can read, whichever key names it, and
// for any file that others can change. Files without secrets may be readable.
func TestModes(t *testing.T) {
	file := wholeSite(t)
	dir := filepath.Dir(file)
	policy := `{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "redshift:JoinGroup", "Resource": "*"}}`
	text := strings.Replace(whole, "      permissions_boundary: {", "      permissions_boundary: boundary.json\n    - name: bob\n      permissions_boundary: {", 1)
	for name, data := range map[string]string{"boundary.json": policy, "daypass.yaml": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	load := func() string {
		t.Helper()
		c, err := LoadEnv(file, wholeEnvironment)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(c.Warnings, "\n")
	}
	base := load()
	if strings.Contains(base, "(mode") {
		t.Fatalf("with everything closed: %s", base)
	}
	for _, row := range []struct {
		file    string
		private bool
		keys    []string
	}{
		{"secret", true, []string{"clusters[1].upstream_password_file"}},
		{"seed", true, []string{"iam.users[0].mfa_devices[2].seed_file"}},
		{"server.key", true, []string{"api.tls.key"}},
		{"server.crt", false, []string{"api.tls.certificate"}},
		{"ca.crt", false, []string{"registry.etcd.tls.ca"}},
		{"jwks.json", false, []string{"iam.oidc_providers[0].jwks_file"}},
		{"boundary.json", false, []string{"iam.users[0].permissions_boundary"}},
		{"daypass.yaml", true, []string{"iam.users[0].access_keys[0].secret: is a secret, and"}},
	} {
		path := filepath.Join(dir, row.file)
		for mode, what := range map[os.FileMode]string{0o604: "read by others", 0o640: "read by its group", 0o602: "changed by others", 0o660: "changed by its group"} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			got, want := load(), fmt.Sprintf("%s can be %s (mode %04o): run chmod", path, what, mode)
			warned := row.private || strings.HasPrefix(what, "changed")
			if strings.Contains(got, want) != warned || strings.Count(got, "(mode") > 1 {
				t.Errorf("%s at %04o: %s\nwant %q: %v", row.file, mode, got, want, warned)
			}
			if warned && !strings.Contains(got, row.keys[0]) {
				t.Errorf("%s at %04o: the warning does not name %s: %s", row.file, mode, row.keys[0], got)
			}
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Anyone may read a file that contains no secret.
	if err := os.WriteFile(file, []byte(smallConfig), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := load(); got != "" {
		t.Errorf("without a secret: %s", got)
	}
	if err := os.WriteFile(file, []byte(smallConfig+"clusters:\n  - {identifier: a, upstream: \"postgres://u:hunter2hunter2@127.0.0.1/x?sslmode=disable\"}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := load(); !strings.Contains(got, "clusters[0].upstream: is a secret, and") || strings.Contains(got, "hunter2") {
		t.Errorf("with a password in upstream: %s", got)
	}
}

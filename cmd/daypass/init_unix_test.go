//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestInitForTheServersAccount: root writes files to a directory that belongs to the group of
// the server's account. Only that account can read them.
func TestInitForTheServersAccount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("NOT CHECKED: only root gives files away")
		return
	}
	const group = 65532
	dir := t.TempDir()
	if err := os.Chown(dir, 0, group); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "daypass.yaml")
	if code, stdout, stderr := commandLine(t, "init", "--config", path, "--data", "/var/lib/daypass"); code != 0 {
		t.Fatalf("init = %d\n%s%s", code, stdout, stderr)
	}
	for _, name := range []string{path, filepath.Join(dir, "admin.secret")} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if owner := info.Sys().(*syscall.Stat_t); owner.Uid != 0 || owner.Gid != group || info.Mode().Perm() != 0o640 {
			t.Errorf("%s: owner %d, group %d, mode %04o, want 0, %d, 0640", name, owner.Uid, owner.Gid, info.Mode().Perm(), group)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), "\ndata: '/var/lib/daypass' ") {
		t.Errorf("%v, want data: /var/lib/daypass in\n%s", err, text)
	}
}

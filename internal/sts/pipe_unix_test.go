//go:build unix

package sts_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/daypass/daypass/internal/sts"
)

// TestPipeForKeys: a pipe or a device in place of a provider's files is an error, and does not hold their
// readers up. The configuration refuses it too, but the file may be replaced later.
func TestPipeForKeys(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, read := range map[string]func(path string) error{
		"jwks_file": sts.CheckKeyFile,
		"ca_file": func(path string) error {
			_, err := sts.ProviderClient(path)
			return err
		},
	} {
		for _, path := range []string{pipe, "/dev/zero"} {
			if err := read(path); err == nil || !strings.Contains(err.Error(), path+" is not a regular file: use one") {
				t.Errorf("%s as %s: %v", path, name, err)
			}
		}
		large := filepath.Join(t.TempDir(), "large")
		if err := os.WriteFile(large, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(large, 1<<40); err != nil {
			t.Fatal(err)
		}
		if err := read(large); err == nil || !strings.Contains(err.Error(), "is larger than") {
			t.Errorf("a huge %s: %v", name, err)
		}
	}
}

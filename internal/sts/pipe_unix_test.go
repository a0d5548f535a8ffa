//go:build unix

package sts_test

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/daypass/daypass/internal/sts"
)

// TestPipeForKeys: a pipe in place of the key file is an error, and does not hold its readers up.
func TestPipeForKeys(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "jwks.json")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sts.CheckKeyFile(pipe); err == nil || !strings.Contains(err.Error(), "is a pipe: use a file") {
		t.Errorf("a pipe as key file: %v", err)
	}
}

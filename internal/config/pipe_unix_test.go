//go:build unix

package config

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// writeOnce writes a text to a named pipe as soon as someone reads it.
func writeOnce(t *testing.T, path, text string) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		pipe, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_, err = pipe.WriteString(text)
			pipe.Close()
		}
		done <- err
	}()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestPipes: a secret can come from a named pipe, once. A pipe that no one writes to is an error, and
// does not keep its reader waiting, who may be a server that reads its files again.
func TestPipes(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "password")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	writeOnce(t, pipe, "from a pipe\n")
	c, err := Parse(filepath.Join(dir, "f.yaml"), []byte(clusterConfigWith("upstream_password_file: password")), testEnvironment)
	if err != nil || c.Clusters[0].Upstream.Password != "from a pipe" {
		t.Fatalf("a password from a pipe: %v", err)
	}
	if c.Clusters[0].ReadPassword != nil || len(c.Files) != 0 {
		t.Errorf("the pipe would be read again: %v", c.Files)
	}
	if _, err := readPipe(pipe, time.Millisecond); err == nil || !strings.Contains(err.Error(), "a pipe that no one writes to") {
		t.Errorf("a pipe without a writer: %v", err)
	}

	// A file that was replaced by a pipe has changed, and looking at it takes nothing out of it.
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := readFile(other).file
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(other, 0o600); err != nil {
		t.Fatal(err)
	}
	first := before.Look()
	if second := first.Look(); first.Sum == before.Sum || second.Sum != first.Sum {
		t.Errorf("a file that is now a pipe: sums %x, %x and %x", before.Sum[:2], first.Sum[:2], second.Sum[:2])
	}
}

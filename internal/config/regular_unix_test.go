//go:build unix

package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/filemode"
)

// TestNamedFilesAreRegular: a device that never ends in the place of each file that a configuration
// names is an error with line and key. So is a pipe, if the file is read more than once; it is not waited
// for.
func TestNamedFilesAreRegular(t *testing.T) {
	file := wholeSite(t)
	pipe := filepath.Join(filepath.Dir(file), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	var names, again []string
	done := map[string]bool{}
	for _, text := range variants {
		_, places := wholePlaces(t, text)
		for n, p := range places {
			if done[p.path] || p.row.value != path && p.row.value != secretFile && p.row.value != policy {
				continue
			}
			done[p.path] = true
			refuse := func(with string) {
				t.Helper()
				changed, line := replaced(t, text, n, with)
				began := time.Now()
				_, err := Parse(file, changed, wholeEnvironment)
				if want := fmt.Sprintf("%s:%d: %s: %s %v", file, line, p.path, with, filemode.ErrNotRegular); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v, want %s", with, err, want)
				}
				if took := time.Since(began); took > writerPatience && with == pipe {
					t.Errorf("%s: it took %v", p.path, took)
				}
			}
			name := p.row.name
			if p.row.value != policy {
				refuse("/dev/zero")
				names = append(names, name)
			}
			if p.row.reread || p.row.regular {
				refuse(pipe)
				again = append(again, name)
			}
		}
	}
	distinct := func(names []string) string {
		slices.Sort(names)
		return strings.Join(slices.Compact(names), " ")
	}
	if got, want := distinct(names), "ca ca_file certificate client_secret_file file jwks_file key password_file secret_file seed_file upstream_password_file"; got != want {
		t.Errorf("keys that name a file: %s, want %s", got, want)
	}
	if got, want := distinct(again), "ca_file certificate file jwks_file key"; got != want {
		t.Errorf("keys whose file is read again: %s, want %s", got, want)
	}
	for _, name := range upstreamFiles {
		for _, with := range []string{"/dev/zero", pipe} {
			upstream := fmt.Sprintf("upstream: \"postgres://u@db.example/x?sslmode=verify-full&%s=%s\"", name, with)
			_, err := Parse(file, []byte(clusterConfigWith(upstream)), testEnvironment)
			if want := "clusters[0].upstream: " + name + ": " + with + " is not a regular file"; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s=%s: %v, want %s", name, with, err, want)
			}
		}
	}
	for _, with := range []string{"/dev/zero"} {
		if _, err := Load(with); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
			t.Errorf("the configuration itself, %s: %v", with, err)
		}
		if _, err := LoadProxyMaps(with); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
			t.Errorf("a file of maps, %s: %v", with, err)
		}
	}
	for _, with := range []string{"/dev/zero", pipe} {
		if _, err := ReadAgain(with); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
			t.Errorf("sslrootcert of a map, %s: %v", with, err)
		}
	}
}

// TestFilesThatBecomePipes: files that are read again are replaced by pipes after the configuration was
// loaded. Those who read them are not kept waiting.
func TestFilesThatBecomePipes(t *testing.T) {
	file := wholeSite(t)
	dir := filepath.Dir(file)
	c, err := Parse(file, []byte(whole), wholeEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"secret", "server.crt"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found := 0
	for _, cluster := range c.Clusters {
		if cluster.ReadPassword == nil {
			continue
		}
		found++
		if _, err := cluster.ReadPassword(); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
			t.Errorf("upstream_password_file of %s: %v", cluster.Identifier, err)
		}
	}
	if found == 0 {
		t.Error("no password is read again")
	}
	if _, err := c.Registry.Etcd.TLS.GetClientCertificate(nil); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("the client certificate for etcd: %v", err)
	}
}

package server

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// widen adds permission bits to a directory and everything in it.
func widen(t *testing.T, dir string, directories, files fs.FileMode) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.Chmod(name, info.Mode()|directories)
		}
		return os.Chmod(name, info.Mode()|files)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ranOnce returns a server that has run once and left all its files.
func ranOnce(t *testing.T) *served {
	t.Helper()
	s := newServed(t, "127.0.0.1:1", "")
	if err := s.tryStart(); err != nil {
		t.Fatal(err)
	}
	s.issue(s.now())
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	return s
}

var kept = []string{"keyring.json", "registry.db", "lock", "tls/ca.key", "tls/server.key", "audit"}

// TestVolumeOfAGroup starts on a directory like a Kubernetes volume with fsGroup after a mount,
// where the group has access to everything.
func TestVolumeOfAGroup(t *testing.T) {
	s := ranOnce(t)
	data := filepath.Join(s.dir, "data")
	widen(t, data, 0o070|fs.ModeSetgid, 0o060)
	s.start()
	log := s.log.String()
	if strings.Count(log, "was open to a group") != 1 {
		t.Errorf("the log does not say once what was done:\n%s", log)
	}
	for _, name := range append(kept, "", "tls") {
		info, err := os.Stat(filepath.Join(data, name))
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has the mode %v, %v", name, info.Mode(), err)
		}
		if !strings.Contains(log, filepath.Join(data, name)) {
			t.Errorf("the log does not name %s", name)
		}
	}
	if info, err := os.Stat(filepath.Join(data, "tls/ca.crt")); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("ca.crt, which is for everyone to read, has the mode %v, %v", info.Mode(), err)
	}
}

// TestOpenToOthers: files that others can read may have been read. The error names all of
// them at once, for root too, and nothing is changed.
func TestOpenToOthers(t *testing.T) {
	s := ranOnce(t)
	data := filepath.Join(s.dir, "data")
	widen(t, data, 0o055, 0o044)
	err := s.tryStart()
	if err == nil {
		_ = s.stop()
		t.Fatal("the server starts")
	}
	for _, name := range append(kept, "") {
		if !strings.Contains(err.Error(), filepath.Join(data, name)+" can be read by others (mode 0") {
			t.Errorf("the error does not name %s: %v", name, err)
		}
	}
	if strings.Contains(err.Error(), ".crt") {
		t.Errorf("certificates are for everyone to read: %v", err)
	}
	if info, err := os.Stat(filepath.Join(data, "keyring.json")); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("the keyring has the mode %v, %v: it was changed", info.Mode(), err)
	}
	for _, one := range []string{"tls/ca.key", "tls/server.key", "registry.db"} {
		s := ranOnce(t)
		path := filepath.Join(s.dir, "data", one)
		if err := os.Chmod(path, 0o606); err != nil {
			t.Fatal(err)
		}
		if err := s.tryStart(); err == nil || !strings.Contains(err.Error(), path+" can be changed by others") {
			t.Errorf("%s at 0606: %v", one, err)
		}
	}
}

// TestKeyringIsMissing: the keys are gone, and what was revoked is not. The server tells, once, and not
// if both are gone.
func TestKeyringIsMissing(t *testing.T) {
	const told = "the keyring was missing"
	s := ranOnce(t)
	start := func() {
		t.Helper()
		if err := s.tryStart(); err != nil {
			t.Fatal(err)
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(names ...string) {
		t.Helper()
		for _, name := range names {
			if err := os.Remove(filepath.Join(s.dir, "data", name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove("keyring.json", "registry.db")
	start()
	if log := s.log.String(); strings.Contains(log, told) {
		t.Errorf("without a registry the log has:\n%s", log)
	}
	remove("keyring.json")
	start()
	start() // the keyring is there
	if log := s.log.String(); strings.Count(log, told) != 1 || !strings.Contains(log, "restore the keyring") || strings.Contains(log, "registry.db was missing") {
		t.Errorf("the log does not tell once:\n%s", log)
	}
}

// TestRegistryIsMissing: a backup has the keys but not what was revoked. The server tells, once, and
// a server that begins has nothing to tell.
func TestRegistryIsMissing(t *testing.T) {
	const told = "what was revoked before is not known"
	s := ranOnce(t)
	if log := s.log.String(); strings.Contains(log, told) {
		t.Errorf("at the first start the log has:\n%s", log)
	}
	if err := os.Remove(filepath.Join(s.dir, "data/registry.db")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is there
		if err := s.tryStart(); err != nil {
			t.Fatal(err)
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
	}
	if log := s.log.String(); strings.Count(log, told) != 1 || !strings.Contains(log, "daypass revoke --all") {
		t.Errorf("the log does not tell once:\n%s", log)
	}
}

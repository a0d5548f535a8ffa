package boltstore_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/registry"
	"github.com/daypass/daypass/internal/registry/boltstore"
	"github.com/daypass/daypass/internal/registry/registrytest"
)

func TestConformance(t *testing.T) {
	paths := map[registry.Store]string{}
	at := func(t *testing.T, path string) registry.Store {
		s, err := boltstore.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		paths[s] = path
		return s
	}
	registrytest.Conformance(t,
		func(t *testing.T) registry.Store { return at(t, filepath.Join(t.TempDir(), "registry.db")) },
		func(t *testing.T, s registry.Store) registry.Store {
			if err := s.(*boltstore.Store).Close(); err != nil {
				t.Fatal(err)
			}
			return at(t, paths[s])
		})
}

func TestLongPrincipal(t *testing.T) {
	s, err := boltstore.Open(filepath.Join(t.TempDir(), "registry.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	registrytest.LongPrincipal(t, s)
}

// filled returns the path of a closed registry with some records.
func filled(t *testing.T, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "registry.db")
	s, err := boltstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := s.Create(context.Background(), fmt.Sprintf("revocation/credential/%05d", i), bytes.Repeat([]byte("needle"), 400)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestDamaged: however the file is damaged, it is refused with the steps to fix it. It never
// causes a crash or counts as an empty registry.
func TestDamaged(t *testing.T) {
	page := os.Getpagesize()
	rows := []struct {
		name   string
		damage func(data []byte) []byte
	}{
		{"empty", func([]byte) []byte { return nil }},
		{"not a registry", func([]byte) []byte { return bytes.Repeat([]byte("no"), 20000) }},
		{"zeros", func(data []byte) []byte { return make([]byte, len(data)) }},
		{"cut to 100 bytes", func(data []byte) []byte { return data[:100] }},
		{"cut to one page", func(data []byte) []byte { return data[:page] }},
		{"cut to two pages", func(data []byte) []byte { return data[:2*page] }},
		{"cut in half", func(data []byte) []byte { return data[:len(data)/2] }},
		{"cut to the last used page", func(data []byte) []byte { return data[:bytes.LastIndex(data, []byte("needle"))-page] }},
		{"both roots", func(data []byte) []byte {
			for _, at := range []int{40, page + 40} {
				data[at] ^= 1
			}
			return data
		}},
		{"a bit of each value", func(data []byte) []byte { return bytes.ReplaceAll(data, []byte("needle"), []byte("neddle")) }},
		{"a key", func(data []byte) []byte {
			return bytes.ReplaceAll(data, []byte("credential/00007"), []byte("credential/0000/"))
		}},
		{"pages of zeros", func(data []byte) []byte { return append(data[:2*page:2*page], make([]byte, len(data)-2*page)...) }},
		{"pages of ones", func(data []byte) []byte {
			return append(data[:2*page:2*page], bytes.Repeat([]byte{0xff}, len(data)-2*page)...)
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			path := filled(t, 24)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, row.damage(data), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := boltstore.Open(path)
			if err == nil {
				list, err := s.List(context.Background(), "")
				s.Close()
				t.Fatalf("Open() = nil, and List() = %d records, %v", len(list), err)
			}
			for _, want := range []string{path, "cannot be read", "daypass revoke --all"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Open() = %v, want a mention of %q", err, want)
				}
			}
		})
	}
}

// TestTruncatedWhileOpen: the watch notices that the file was truncated, and reads fail.
func TestTruncatedWhileOpen(t *testing.T) {
	path := filled(t, 24)
	s, err := boltstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	done := make(chan error, 1)
	began := make(chan struct{}, 100)
	go func() {
		done <- s.Watch(t.Context(), "", func([]registry.Record, bool, time.Time) { began <- struct{}{} })
	}()
	<-began
	if err := os.Truncate(path, int64(2*os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if !strings.Contains(err.Error(), "cannot be read") {
			t.Errorf("Watch() = %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the watch goes on over a truncated file")
	}
	if list, err := s.List(context.Background(), ""); err == nil {
		t.Errorf("List() = %d records of a truncated file", len(list))
	}
}

func TestOneProcess(t *testing.T) {
	path := filled(t, 1)
	s, err := boltstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := boltstore.Open(path); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("second Open() = %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
}

// TestNotOpened: a file that cannot be opened may be sound, so the error does not advise to move it
// away, which would forget what was revoked. A directory in its place is as little a file that was
// read as one on a disk that is mounted read-only.
func TestNotOpened(t *testing.T) {
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := boltstore.Open(path)
	if err == nil {
		s.Close()
		t.Fatal("a directory was opened")
	}
	if !strings.Contains(err.Error(), "open "+path) || strings.Contains(err.Error(), "backup") || strings.Contains(err.Error(), "revoke") {
		t.Errorf("Open = %v", err)
	}
}

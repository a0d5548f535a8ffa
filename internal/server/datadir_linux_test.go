package server

import (
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestForeignFiles restores parts of a data directory as another account, as root does with a
// backup. The error at the start and the doctor's look name all that the server may not use, and
// nothing else, and root sees the same by the owners. Days of the audit log that are over do not
// matter.
func TestForeignFiles(t *testing.T) {
	const us = 65532
	top := t.TempDir()
	if err := os.Chmod(filepath.Dir(top), 0o755); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(top, "data")
	const first, last = "audit/2026-01-01.jsonl", "audit/2026-01-02.jsonl"
	for _, name := range []string{"keyring.json", "registry.db", "lock", "tls/ca.crt", "tls/ca.key", first, last} {
		path := filepath.Join(data, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root := os.Geteuid() == 0
	// give gives a name to this process's account or to the server's. Without root there is one
	// account, and the mode takes its access away.
	give := func(name string, server bool) {
		t.Helper()
		path := filepath.Join(data, name)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		mode, account := os.FileMode(0o600), os.Geteuid()
		if info.IsDir() {
			mode = 0o700
		}
		switch {
		case root && server:
			account = us
		case !root && !server:
			mode = 0
		}
		if err := os.Lchown(path, account, -1); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	all := []string{"", "tls", "audit", "keyring.json", "registry.db", "lock", "tls/ca.crt", "tls/ca.key", first, last}
	for _, foreign := range [][]string{{}, {"keyring.json"}, {"keyring.json", "tls/ca.key"}, {"registry.db"}, {"tls"}, {last}, {first}} {
		for _, name := range all {
			give(name, true)
		}
		for _, name := range foreign {
			give(name, false)
		}
		want := slices.DeleteFunc(slices.Clone(foreign), func(name string) bool { return name == first })
		var startErr error
		var state DataState
		as(us, func() {
			d, err := openDataDir(data, slog.New(slog.DiscardHandler))
			if startErr = err; err == nil {
				d.close()
			}
			state, _ = InspectData(data)
		})
		if !root { // as a process that is not root sees it, or as root does
			state.Foreign = (&dataDir{path: data}).foreign(os.Geteuid())
		}
		for i, name := range want {
			want[i] = filepath.Join(data, name)
		}
		if !slices.Equal(state.Foreign, want) {
			t.Errorf("%v of another account: Foreign = %v", foreign, state.Foreign)
		}
		atStart := slices.DeleteFunc(slices.Clone(want), func(name string) bool { return strings.HasSuffix(name, last) })
		if len(atStart) == 0 {
			if startErr != nil {
				t.Errorf("%v of another account: openDataDir: %v", foreign, startErr)
			}
			continue
		}
		if startErr == nil || !strings.Contains(startErr.Error(), "may not use "+strings.Join(atStart, ", ")+"; ") ||
			!strings.Contains(startErr.Error(), "chown -R ") || !strings.HasSuffix(startErr.Error(), ": "+data) {
			t.Errorf("%v of another account: openDataDir: %v", foreign, startErr)
		}
	}
}

// as runs f with the access of another account to files, if this process is root.
func as(account int, f func()) {
	if os.Geteuid() != 0 {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and the thread ends with the goroutine
		if err := syscall.Setfsuid(account); err != nil {
			panic(err)
		}
		f()
	}()
	<-done
}

package durable

import (
	"errors"
	"io/fs"
	"path/filepath"
	"runtime"
	"testing"
)

// TestSyncDir: a directory is synced everywhere but on Windows, which refuses that. The servers for
// Windows would not start otherwise.
func TestSyncDir(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for _, goos := range []string{"linux", "darwin", "windows"} {
		err := syncDir(goos, missing)
		if skipped := err == nil; skipped != (goos == "windows") || !skipped && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("syncDir on %s = %v, want it skipped on Windows only", goos, err)
		}
	}
	if err := syncDir(runtime.GOOS, t.TempDir()); err != nil {
		t.Error(err)
	}
	if err := SyncDir(missing); (err == nil) != (runtime.GOOS == "windows") {
		t.Errorf("SyncDir = %v, want what this system does", err)
	}
}

// Package durable makes changes of a directory durable, as far as the system needs that.
//
// After a crash of a Unix system, a file that was created or renamed may be missing although its content was
// synced, unless its directory was synced too. Windows cannot do that: FlushFileBuffers needs a handle that may write,
// which that of a directory is not. NTFS has a journal for names instead.
package durable

import (
	"os"
	"runtime"
)

// SyncDir returns when the names in the directory are durable.
func SyncDir(path string) error { return syncDir(runtime.GOOS, path) }

// syncDir is SyncDir on a system, so that a test on one covers what happens on the others.
func syncDir(goos, path string) error {
	if goos == "windows" {
		return nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	err = dir.Sync()
	if closeErr := dir.Close(); err == nil {
		err = closeErr
	}
	return err
}

package server

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// dataDir is the data directory of one running server. It stays locked until
// the process ends, however it ends.
type dataDir struct {
	path string
	lock *os.File
}

// openDataDir makes the directory where it is missing and locks it. A second
// server on the same directory fails at once and is told which process holds it.
func openDataDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("making the data directory: %w; data in the configuration has to name a directory that this account may write to", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("opening the data directory: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the data directory %s may be read by others (mode %04o): it holds the keys; run chmod 700 %s", path, info.Mode().Perm(), path)
	}
	name := filepath.Join(path, "lock")
	lock, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the data directory cannot be written to: %w; give it and what is in it to the account that the server runs as", err)
	}
	if err := Lock(lock); err != nil {
		defer lock.Close()
		if errors.Is(err, ErrLocked) {
			holder, _ := io.ReadAll(io.LimitReader(lock, 64))
			return nil, fmt.Errorf("the data directory %s is in use by process %s: end it first, or give this server another directory", path, strings.TrimSpace(string(holder)))
		}
		return nil, fmt.Errorf("locking the data directory: %w", err)
	}
	err = lock.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintf(lock, "%d\n", os.Getpid())
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("the data directory cannot be written to: %w; make room on its disk", err)
	}
	return &dataDir{path: path, lock: lock}, nil
}

func (d *dataDir) join(elements ...string) string {
	return filepath.Join(append([]string{d.path}, elements...)...)
}

// close gives the directory up.
func (d *dataDir) close() { d.lock.Close() }

// ErrLocked is returned by Lock when another process holds the lock.
var ErrLocked = errors.New("locked by another process")

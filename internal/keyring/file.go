package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daypass/daypass/internal/durable"
	"github.com/daypass/daypass/internal/filemode"
)

// File is a keyring on disk, with the keyring that is in force. Any number of processes may have
// the same file open. Each sees the others' changes at its next Reload, and only one process at
// a time can change the file. Safe for concurrent use.
//
// The file is replaced as a whole (written next to the old one, synced, renamed), so that a
// crash leaves either the old file or the new one. It must be private, as package filemode
// defines it.
type File struct {
	path    string
	current atomic.Pointer[Keyring]

	mu   sync.Mutex // guards what follows, and the order of changes to current
	seen []byte     // content of the file when current was read from it
	err  error      // why the file cannot be used; nil: the file is in force
}

// LoadFile reads an existing keyring. If the file does not exist, the error wraps
// fs.ErrNotExist. Every other error tells the operator what to do.
func LoadFile(path string) (*File, error) {
	data, k, err := read(path)
	if err != nil {
		return nil, err
	}
	f := &File{path: path, seen: data}
	f.current.Store(k)
	return f, nil
}

// OpenFile is LoadFile, but makes a keyring with fresh keys if the file does not exist. The
// directory must exist. If several processes do this at the same time, one makes the keyring and
// all use it.
func OpenFile(path string, now time.Time) (*File, error) {
	f, err := LoadFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := create(path, New(now).Marshal()); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("making keyring %s: %w", path, err)
	}
	return LoadFile(path)
}

// Current returns the current keyring.
func (f *File) Current() *Keyring { return f.current.Load() }

// Reload puts a changed file in force and reports whether it did. If the file cannot be used,
// the keyring in force stays. Reload returns the error once, so that a caller may call it every
// second and log its errors. Err returns the error as long as it lasts.
func (f *File) Reload() (changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, k, err := readChanged(f.path, f.seen)
	if err != nil {
		if f.err != nil && f.err.Error() == err.Error() {
			return false, nil
		}
		f.err = err
		return false, err
	}
	f.err = nil
	if k == nil {
		return false, nil
	}
	f.seen = data
	f.current.Store(k)
	return true, nil
}

// Err returns why the file could not be used at the last Reload, or nil. It is for readiness
// checks: the process keeps working with the keyring in force, but could not be restarted.
func (f *File) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Update reads the file, writes the keyring that change returns (Keyring's Rotate or
// RotateUpstream), and makes that the current one. Updates of other processes wait for it. If it
// fails, the file and the current keyring are unchanged.
func (f *File) Update(change func(*Keyring) *Keyring) (*Keyring, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	locked, err := lock(f.path)
	if err != nil {
		return nil, fmt.Errorf("locking keyring %s: %w", f.path, err)
	}
	defer func() { _ = locked.Close() }()
	_, k, err := read(f.path)
	if err != nil {
		return nil, err
	}
	next := change(k)
	data := next.Marshal()
	if _, err := Parse(data); err != nil { // never write a keyring that cannot be read back
		return nil, fmt.Errorf("keyring %s: the changed keyring %w", f.path, err)
	}
	if err := replace(f.path, locked, data); err != nil {
		return nil, fmt.Errorf("writing keyring %s: %w", f.path, err)
	}
	f.seen, f.err = data, nil
	f.current.Store(next)
	return next, nil
}

func read(path string) ([]byte, *Keyring, error) { return readChanged(path, nil) }

// readChanged returns no keyring if the content of the file equals seen. Comparing the content
// costs no more than a stat and, unlike a stat, never misses a change.
func readChanged(path string, seen []byte) ([]byte, *Keyring, error) {
	data, info, err := filemode.ReadRegular(path, maxSize)
	if err != nil {
		return nil, nil, fmt.Errorf("opening keyring: %w", err)
	}
	if fault := filemode.Check(path, info, filemode.Private); fault != nil {
		return nil, nil, fmt.Errorf("keyring %w; if someone may have read it, run daypass keys rotate --discard --upstream", fault)
	}
	if seen != nil && bytes.Equal(data, seen) {
		return data, nil, nil
	}
	k, err := Parse(data)
	if err != nil {
		return nil, nil, fmt.Errorf("keyring %s %w; restore it from a backup or copy it from another machine of this "+
			"installation. To begin with new keys instead, move it away and start the server: every password and session token "+
			"issued so far then stops working", path, err)
	}
	return data, k, nil
}

// create writes a file that must not exist yet. It links the file into place when it is
// complete, so that no process reads half of it, and the first of several processes wins.
func create(path string, data []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.new") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	if err := fill(temp, data); err != nil {
		return err
	}
	if err := os.Link(temp.Name(), path); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

// replace replaces the file at path, which the caller has locked. After the rename the caller's
// lock no longer protects path and name: it is on the old file, and another process may already
// have locked the new one.
func replace(path string, old *os.File, data []byte) error {
	name := path + ".new" // only the holder of the lock writes it
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	temp, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	// A rotation by root must leave a file that the server's own user can read.
	if err := keepOwner(temp, old); err != nil {
		return errors.Join(err, temp.Close(), os.Remove(name))
	}
	if err := fill(temp, data); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	if err := os.Rename(name, path); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return durable.SyncDir(filepath.Dir(path))
}

func fill(file *os.File, data []byte) error {
	_, err := file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	return err
}

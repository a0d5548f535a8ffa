package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daypass/daypass/internal/filemode"
)

// File is a keyring on disk and the keyring that is in force. Any number of
// processes may have one file open: each sees the others' changes at its next
// Reload, and their changes exclude one another. Safe for concurrent use.
//
// The file is replaced as a whole (written beside itself, synced, renamed), so
// that it is the old one or the new one after a crash at any moment. It must be
// private, as package filemode has it.
type File struct {
	path    string
	current atomic.Pointer[Keyring]

	mu   sync.Mutex // guards what follows, and the order of changes to current
	seen []byte     // content of the file when current was read from it
	err  error      // why the file is not what is in force; nil: it is
}

// LoadFile reads a keyring that exists. The error wraps fs.ErrNotExist if it does
// not; every other error says what the operator can do.
func LoadFile(path string) (*File, error) {
	data, k, err := read(path)
	if err != nil {
		return nil, err
	}
	f := &File{path: path, seen: data}
	f.current.Store(k)
	return f, nil
}

// OpenFile is LoadFile, and makes a keyring with fresh keys if there is none. Its
// directory must exist. Of several processes that do this at once one makes the
// keyring, and all get that one.
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

// Reload brings a changed file into force and says whether it did. A file that
// cannot be used changes nothing: the keyring in force stays. The error for it is
// returned once, so that a caller may call Reload every second and log what it
// returns; Err has it for as long as it lasts.
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

// Err returns why the file was not usable at the last Reload, nil when it was. It
// is for readiness checks: the process works on with the keyring in force, but a
// restart would not.
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
	if _, err := Parse(data); err != nil { // what cannot be read back is never written
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

// readChanged returns no keyring if the file's content is seen. Comparing the
// content costs no more than a stat and, unlike one, never misses a change.
func readChanged(path string, seen []byte) ([]byte, *Keyring, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("opening keyring: %w", err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("opening keyring: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("keyring %s is not a regular file", path)
	}
	if fault := filemode.Check(path, info, filemode.Private); fault != nil {
		return nil, nil, fmt.Errorf("keyring %w; if somebody may have read it, run daypass keys rotate --discard --upstream", fault)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return nil, nil, fmt.Errorf("reading keyring: %w", err)
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

// create writes a file that must not exist yet. It is linked into place when it is
// complete, so that nobody reads half of it and the first of several wins.
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
	return syncDir(filepath.Dir(path))
}

// replace puts data in the place of the file at path, which the caller has locked.
// From the rename on the lock is no longer its own: the new file is another one, which
// the next holder may have locked already, and name is that holder's.
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
	return syncDir(filepath.Dir(path))
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

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	return err
}

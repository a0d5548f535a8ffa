package server

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/daypass/daypass/internal/keyring"
)

// dataDir is the data directory of a running server. It stays locked until the process ends or
// crashes.
type dataDir struct {
	path     string
	lock     *os.File
	instance keyring.Secret // of this run of the server; see Proof
}

// openDataDir makes the directory if necessary and locks it. A second server on the
// same directory fails at once, with the first one's process id.
func openDataDir(path string, log *slog.Logger) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("making the data directory: %w; data in the configuration has to name a directory that this account may write to", err)
	}
	name := filepath.Join(path, "lock")
	lock, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		do := "find out why its disk cannot be written to"
		if errors.Is(err, fs.ErrPermission) {
			do = (&dataDir{path: path}).giveBack()
		}
		return nil, fmt.Errorf("the data directory cannot be written to: %w; %s", err, do)
	}
	d := &dataDir{path: path, lock: lock}
	if err := d.take(); err != nil {
		lock.Close()
		return nil, err
	}
	if err := d.checkModes(log); err != nil {
		lock.Close()
		return nil, err
	}
	if err := d.checkAccess(); err != nil {
		lock.Close()
		return nil, err
	}
	return d, nil
}

// take locks the directory and writes this process's id into the lock file, and the secret by which
// others recognize the server.
func (d *dataDir) take() error {
	if err := Lock(d.lock); err != nil {
		if errors.Is(err, ErrLocked) {
			holder, _ := io.ReadAll(io.LimitReader(d.lock, 64))
			return fmt.Errorf("the data directory %s is in use by process %s: end it first, or give this server another directory", d.path, holderOf(holder))
		}
		return fmt.Errorf("locking the data directory: %w", err)
	}
	d.instance = keyring.Secret(rand.Text())
	err := d.lock.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintf(d.lock, "%d\n%s\n", os.Getpid(), d.instance.Reveal())
	}
	if err != nil {
		return fmt.Errorf("the data directory cannot be written to: %w; make room on its disk", err)
	}
	return nil
}

// holderOf returns the process id in the content of a lock file.
func holderOf(content []byte) string {
	id, _, _ := strings.Cut(string(content), "\n")
	return strings.TrimSpace(id)
}

// checkModes checks the modes of everything in the directory. Access for the group alone,
// which Kubernetes with fsGroup gives at each mount, is removed. Any other access for other
// accounts is an error that names all files: the keys may have been read, and the operator
// has to decide what to do.
func (d *dataDir) checkModes(log *slog.Logger) error {
	var errs []error
	var closed []string
	for _, name := range d.contents() {
		fault := modeFault(name)
		if fault == nil {
			continue
		}
		if !fault.Mendable {
			errs = append(errs, fault)
			continue
		}
		if err := os.Chmod(name, fault.Mode&^fs.FileMode(0o077)|fault.Mode&fault.Kind.Allowed()); err != nil {
			errs = append(errs, fmt.Errorf("%w; it cannot be done here: %w", fault, err))
			continue
		}
		closed = append(closed, name)
	}
	if len(closed) > 0 {
		log.Warn("the data directory was open to a group, as a volume with fsGroup is after each mount: closed again", "files", closed)
	}
	if len(errs) > 0 {
		return fmt.Errorf("the data directory is open to other accounts, and holds keys (docs/operations.md, \"File modes and volumes\"):\n%w", errors.Join(errs...))
	}
	return nil
}

// checkAccess returns an error that names everything in the directory that this account may not
// use, such as what root has restored from a backup. Days of the audit log are not looked at: those
// that are over need not be writable.
func (d *dataDir) checkAccess() error {
	var denied []string
	for _, name := range d.contents() {
		if filepath.Dir(name) != d.join("audit") && mayNotUse(name) {
			denied = append(denied, name)
		}
	}
	if len(denied) == 0 {
		return nil
	}
	return fmt.Errorf("%s may not use %s; %s", ourAccount(), strings.Join(denied, ", "), d.giveBack())
}

// giveBack tells how to give the directory to the account that the server runs as.
func (d *dataDir) giveBack() string {
	return fmt.Sprintf("give the data directory and what is in it to that account: chown -R %s: %s", ourAccount(), d.path)
}

// mayNotUse reports whether this account may not read and write a file, or list a directory.
func mayNotUse(name string) bool {
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() && !info.IsDir() {
		return errors.Is(err, fs.ErrPermission)
	}
	flag := os.O_RDWR
	if info.IsDir() {
		flag = os.O_RDONLY
	}
	file, err := os.OpenFile(name, flag, 0)
	if err != nil {
		return errors.Is(err, fs.ErrPermission)
	}
	file.Close()
	return false
}

// ourAccount returns the name of this process's account.
func ourAccount() string {
	me, err := user.Current()
	if err != nil {
		return strconv.Itoa(os.Geteuid())
	}
	return me.Username
}

// contents returns the paths of the directory and of everything the server keeps in it.
func (d *dataDir) contents() []string {
	names := []string{d.path}
	for _, pattern := range []string{"keyring.json*", "registry.db*", "lock", "audit", "audit/*", "tls", "tls/*", "tls/.*"} {
		found, _ := filepath.Glob(d.join(filepath.FromSlash(pattern))) // the patterns are sound
		names = append(names, found...)
	}
	return names
}

func (d *dataDir) join(elements ...string) string {
	return filepath.Join(append([]string{d.path}, elements...)...)
}

// close closes the lock file, which releases the directory.
func (d *dataDir) close() { d.lock.Close() }

// ErrLocked is returned by Lock when another process holds the lock.
var ErrLocked = errors.New("locked by another process")

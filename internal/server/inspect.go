package server

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/filemode"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/registry"
)

// DataState is what InspectData finds.
type DataState struct {
	Running  bool           // a server holds the directory
	Instance keyring.Secret // of that server, for Proof; empty: not known, because it is about to start or of an earlier version
	Faults   []error        // files that other accounts can access
	Foreign  []string       // files that another account owns than the directory, or that this account may not use
}

// InspectData checks a data directory as a starting server does, and changes nothing. The error
// wraps fs.ErrNotExist if the directory does not exist.
func InspectData(path string) (DataState, error) {
	var state DataState
	if _, err := os.ReadDir(path); err != nil {
		return state, err
	}
	d := &dataDir{path: path}
	for _, name := range d.contents() {
		if fault := modeFault(name); fault != nil {
			state.Faults = append(state.Faults, fault)
		}
	}
	state.Foreign = d.foreign(os.Geteuid())
	lock, err := os.Open(filepath.Join(path, "lock"))
	if errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	if err != nil {
		return state, err
	}
	defer lock.Close() // this also releases the lock
	err = Lock(lock)
	state.Running = errors.Is(err, ErrLocked)
	if !state.Running {
		return state, err
	}
	content, err := io.ReadAll(io.LimitReader(lock, 256))
	if lines := strings.Split(string(content), "\n"); len(lines) == 3 { // each ends in a line break
		state.Instance = keyring.Secret(lines[1])
	}
	return state, err
}

// foreign returns what an account may not use. For root, which may use everything, it returns what
// another account owns than the one that owns the directory. Of the audit log it looks at the last
// day only.
func (d *dataDir) foreign(account int) (names []string) {
	of, err := os.Stat(d.path)
	if err != nil {
		return nil
	}
	another := mayNotUse
	if account == 0 {
		another = func(name string) bool { return !filemode.SameOwner(name, of) }
	}
	lastDay := ""
	for _, name := range d.contents() {
		if filepath.Dir(name) == d.join("audit") {
			lastDay = max(lastDay, name)
			continue
		}
		if another(name) {
			names = append(names, name)
		}
	}
	if lastDay != "" && another(lastDay) {
		names = append(names, lastDay)
	}
	return names
}

// modeFault describes how the mode of a file in the data directory is too open, or returns
// nil. It ignores files that have disappeared and anything that is not a file; opening those
// reports an error.
func modeFault(name string) *filemode.Fault {
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() && !info.IsDir() {
		return nil
	}
	kind := filemode.Private
	if filepath.Ext(name) == ".crt" {
		kind = filemode.Public
	}
	return filemode.Check(name, info, kind)
}

// InspectRegistry reads the registry of a configuration, and returns how many revocations are
// in force. No server may be using a registry file. If the file does not exist, the error
// wraps fs.ErrNotExist.
func InspectRegistry(cfg *config.Config, now func() time.Time) (int, error) {
	data := &dataDir{path: cfg.Data}
	if cfg.Registry.Etcd == nil {
		if _, err := os.Stat(data.join("registry.db")); err != nil {
			return 0, err
		}
	}
	store, err := openStore(cfg, data)
	if err != nil {
		return 0, err
	}
	defer store.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	list, err := registry.New(registry.Config{Store: store, Now: now}).Revocations(ctx)
	return len(list), err
}

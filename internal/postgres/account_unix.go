//go:build unix

package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the account that PostgreSQL runs as.
type account struct {
	switched bool // it is not this process's own account
	name     string
	uid, gid uint32
}

// serverAccount returns this process's own account or, for root, postgres or nobody.
func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	for _, name := range []string{"postgres", "_postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseInt(u.Uid, 10, 64)
		if err != nil {
			continue
		}
		gid, err := strconv.ParseInt(u.Gid, 10, 64)
		if err != nil || uint32(uid) == 0 {
			continue
		}
		return account{switched: true, name: name, uid: uint32(uid), gid: uint32(gid)}, nil
	}
	return account{}, fmt.Errorf("PostgreSQL does not run as root, and there is no account postgres or nobody to run it as")
}

// give makes the account the owner of path.
func (a account) give(path string) error {
	if !a.switched {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// reach returns an error that names the directory that keeps the account from reaching dir,
// or nil.
func (a account) reach(dir string) error {
	if !a.switched {
		return nil
	}
	for {
		dir = filepath.Dir(dir)
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if !a.maySearch(info) {
			return fmt.Errorf("PostgreSQL does not run as root, and the account %s it runs as may not enter %s", a.name, dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

func (a account) maySearch(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return true
	case stat.Uid == a.uid:
		return info.Mode()&0o100 != 0
	case stat.Gid == a.gid:
		return info.Mode()&0o010 != 0
	default:
		return info.Mode()&0o001 != 0
	}
}

func (a account) credential() *syscall.Credential {
	if !a.switched {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid}
}

// PostgreSQL's ways to shut down
// (https://www.postgresql.org/docs/current/server-shutdown.html), without "smart",
// which waits for clients.

func fastShutdown(_ Installation, _ string, p *os.Process) { _ = p.Signal(syscall.SIGINT) }

func immediateShutdown(p *os.Process) { _ = p.Signal(syscall.SIGQUIT) }

func terminate(p *os.Process) { _ = p.Signal(syscall.SIGTERM) }

// temporaryRoots returns the places for a temporary directory: the system's default or, if the
// account cannot reach it, directories that everyone can.
func temporaryRoots() []string { return []string{os.TempDir(), "/tmp", "/var/tmp"} }

// alive reports whether a process with that id exists.
func alive(pid int) bool {
	return pid <= 0 || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

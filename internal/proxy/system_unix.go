//go:build unix

package proxy

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const unixSockets = true

func currentUser() int { return os.Getuid() }

// checkDirectory refuses a directory in which other users could replace the socket with their own.
func checkDirectory(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	system, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s: is not a directory", dir)
	case !ok || int(system.Uid) != os.Getuid():
		return fmt.Errorf("%s: belongs to another user: choose a directory of your own", dir)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s: has mode %04o, which lets other users in: choose a directory of mode 0700, such as one made with mkdir -m 700 %s", dir, info.Mode().Perm(), filepath.Join(dir, "daypass"))
	}
	return checkWay(dir, dir, 0)
}

// maxLinks is how many symbolic links may be followed, as on Linux.
const maxLinks = 40

// checkWay refuses a path to dir on which another user could replace a directory or a symbolic
// link. Clients would then find the other user's socket.
func checkWay(dir, path string, links int) error {
	for at := path; ; at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		if err != nil {
			return err
		}
		system, ok := info.Sys().(*syscall.Stat_t)
		link := info.Mode().Type() == fs.ModeSymlink
		switch writable := info.Mode().Perm() & 0o022; {
		case !ok || system.Uid != 0 && int(system.Uid) != os.Getuid():
			return fmt.Errorf("%s: %s on the way to it belongs to another user: choose a directory of your own", dir, at)
		case link || writable == 0 || info.Mode()&fs.ModeSticky != 0:
		case writable != 0o020 || int(system.Gid) != os.Getuid(): // not the user's own group
			return fmt.Errorf("%s: %s on the way to it has mode %04o, so other users can replace what is in it: choose another directory", dir, at, info.Mode().Perm())
		}
		if link {
			target, err := os.Readlink(at)
			if err == nil && links == maxLinks {
				err = fmt.Errorf("%s: too many symbolic links", dir)
			}
			if err == nil && !filepath.IsAbs(target) {
				var parent string
				parent, err = filepath.EvalSymlinks(filepath.Dir(at))
				target = filepath.Join(parent, target)
			}
			if err == nil {
				err = checkWay(dir, target, links+1)
			}
			if err != nil {
				return err
			}
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}

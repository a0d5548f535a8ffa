//go:build unix

package proxy

import (
	"fmt"
	"os"
	"syscall"
)

const unixSockets = true

func currentUser() int { return os.Getuid() }

// checkDirectory refuses a directory in which other users could replace the socket by one of
// their own.
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
		return fmt.Errorf("%s: has mode %04o, which lets other users in: chmod 700 %[1]s", dir, info.Mode().Perm())
	}
	return nil
}

//go:build unix

package main

import (
	"os"
	"path/filepath"
	"syscall"
)

// lendToGroup gives a file that root created to the group of its directory, unless that is
// root's own group. Then the server's account can read what root has written. Package filemode
// has the rule.
func lendToGroup(file *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(filepath.Dir(file.Name()))
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid != 0 || owner.Gid == 0 {
		return nil
	}
	if err := file.Chown(0, int(owner.Gid)); err != nil {
		return err
	}
	return file.Chmod(0o640)
}

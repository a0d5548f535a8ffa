//go:build unix

package filemode

import (
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// isCredential reports whether a file looks like a credential of systemd.
func isCredential(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == 0 && stat.Gid == 0 && info.Mode() == 0o440
}

func ownerOf(info fs.FileInfo) owner {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return somebody
	}
	if int(stat.Uid) == os.Geteuid() {
		return ourselves
	}
	groups, err := os.Getgroups()
	if err != nil {
		groups = nil
	}
	if stat.Uid == 0 && (int(stat.Gid) == os.Getegid() || slices.Contains(groups, int(stat.Gid))) {
		return rootForOurGroup
	}
	return somebody
}

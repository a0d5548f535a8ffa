//go:build unix

package filemode

import (
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"
)

// withoutWaiting keeps os.OpenFile from waiting for the writer of a pipe.
const withoutWaiting = syscall.O_NONBLOCK

// PrivateGroup reports whether a file belongs to this process's account and to the group of the
// same name, which many systems make for each person, together with a umask of 002.
func PrivateGroup(info fs.FileInfo) bool {
	if ownerOf(info) != ourselves {
		return false
	}
	me, err := user.LookupId(strconv.Itoa(os.Geteuid()))
	if err != nil {
		return false
	}
	group, err := user.LookupGroupId(strconv.FormatUint(uint64(info.Sys().(*syscall.Stat_t).Gid), 10))
	return err == nil && group.Name == me.Username
}

// SameOwner reports whether the file at path belongs to the account that owns another file, or does
// not exist.
func SameOwner(path string, other fs.FileInfo) bool {
	info, err := os.Stat(path)
	if err != nil {
		return os.IsNotExist(err)
	}
	one, ok := info.Sys().(*syscall.Stat_t)
	two, also := other.Sys().(*syscall.Stat_t)
	return ok && also && one.Uid == two.Uid
}

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

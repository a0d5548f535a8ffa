package pgtest

import "syscall"

// Root returns the directory for the files of test servers. A data directory has a thousand files,
// so Root chooses memory if there is room. Empty stands for the system's temporary directory.
func Root() string {
	const memory, room = "/dev/shm", 4 << 30
	var disk syscall.Statfs_t
	if syscall.Statfs(memory, &disk) != nil || disk.Bavail*uint64(disk.Bsize) < room {
		return ""
	}
	return memory
}

package pgtest

import "syscall"

// Root is where servers of tests have their files: in memory, where there is room, since
// a data directory is a thousand files. Empty: where the system has temporary ones.
func Root() string {
	const memory, room = "/dev/shm", 4 << 30
	var disk syscall.Statfs_t
	if syscall.Statfs(memory, &disk) != nil || disk.Bavail*uint64(disk.Bsize) < room {
		return ""
	}
	return memory
}

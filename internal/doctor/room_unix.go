//go:build unix

package doctor

import "golang.org/x/sys/unix"

// room returns how many bytes of the disk that holds path this account may use, and the total.
func room(path string) (free, total uint64, ok bool) {
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return 0, 0, false
	}
	size := uint64(stat.Bsize)
	return uint64(stat.Bavail) * size, uint64(stat.Blocks) * size, true
}

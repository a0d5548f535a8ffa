package doctor

import "golang.org/x/sys/windows"

// room is how many bytes the disk under a path has for this account, and in all.
func room(path string) (free, total uint64, ok bool) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, 0, false
	}
	if err := windows.GetDiskFreeSpaceEx(name, &free, &total, nil); err != nil {
		return 0, 0, false
	}
	return free, total, true
}

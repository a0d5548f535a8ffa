package doctor

import "golang.org/x/sys/windows"

// room returns how many bytes of the disk that holds path this account may use, and the total.
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

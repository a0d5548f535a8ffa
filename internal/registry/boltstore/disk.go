package boltstore

import (
	"errors"
	"syscall"
)

// isDiskFull says that the file is whole and the disk has no room.
func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EFBIG)
}

//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package keyring

import (
	"errors"
	"os"
	"syscall"
)

// lock opens the file at path and locks it exclusively until it is closed. The lock is on the
// keyring file itself, so if another process has replaced the file meanwhile, lock starts again
// with the new one.
func lock(path string) (*os.File, error) {
	for {
		file, err := os.OpenFile(path, os.O_RDWR, 0) // NFS needs write access for an exclusive lock
		if err != nil {
			return nil, err
		}
		for {
			err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
			if !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		if err != nil {
			_ = file.Close()
			return nil, err
		}
		held, err := file.Stat()
		if err != nil {
			_ = file.Close()
			return nil, err
		}
		there, err := os.Stat(path)
		if err == nil && os.SameFile(held, there) {
			return file, nil
		}
		_ = file.Close()
		if err != nil {
			return nil, err
		}
	}
}

// keepOwner gives file to the owner of old, if they differ.
func keepOwner(file, old *os.File) error {
	from, err := old.Stat()
	if err != nil {
		return err
	}
	to, err := file.Stat()
	if err != nil {
		return err
	}
	was, is := from.Sys().(*syscall.Stat_t), to.Sys().(*syscall.Stat_t)
	if was.Uid == is.Uid && was.Gid == is.Gid {
		return nil
	}
	return file.Chown(int(was.Uid), int(was.Gid))
}

package filemode

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ErrNotRegular means that a file is a pipe, a device or a directory.
var ErrNotRegular = errors.New("is not a regular file: use one, because it is read more than once")

// ReadRegular reads a file of limit bytes at most, and returns its state, too. Anything but a regular file
// is an error that wraps ErrNotRegular: a pipe or a terminal could keep its reader waiting for ever.
func ReadRegular(path string, limit int) ([]byte, fs.FileInfo, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|withoutWaiting, 0)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s %w", path, ErrNotRegular)
	}
	data, err := io.ReadAll(io.LimitReader(file, int64(limit)+1))
	if err == nil && len(data) > limit {
		err = fmt.Errorf("%s is larger than %s", path, size(limit))
	}
	if err != nil {
		return nil, nil, err
	}
	return data, info, nil
}

func size(bytes int) string {
	if bytes%(1<<20) == 0 {
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%d bytes", bytes)
}

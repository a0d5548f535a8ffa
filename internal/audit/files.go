package audit

import (
	"io"
	"io/fs"
	"os"

	"github.com/daypass/daypass/internal/durable"
)

// fileSystem has the operations that the writer uses, so that tests can make them fail.
type fileSystem interface {
	// Append opens a file for appending and reading, and makes it with mode 0600.
	Append(path string) (file, error)
	Stat(path string) (fs.FileInfo, error)
	// SyncDir makes the directory's entries durable.
	SyncDir(path string) error
}

type file interface {
	io.Writer
	io.ReaderAt
	Stat() (fs.FileInfo, error)
	Sync() error
	Truncate(size int64) error
	Close() error
}

type osFiles struct{}

func (osFiles) Append(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err // not an interface with a nil pointer
	}
	return f, nil
}

func (osFiles) Stat(path string) (fs.FileInfo, error) { return os.Stat(path) }

func (osFiles) SyncDir(path string) error { return durable.SyncDir(path) }

package config

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"
)

// maxFile bounds the configuration file and each file that it names.
const maxFile = 4 << 20

// File is one file that a configuration was read from, with its state at that time.
type File struct {
	Path string // absolute
	// Sum is a hash of the content. A file that cannot be read has a sum of its own.
	Sum [sha256.Size]byte

	info fs.FileInfo // nil: it could not be read
	at   time.Time
}

// settled is how much older a file's modification time must be than the time at which the file was
// read. Only then does an unchanged modification time mean unchanged content, because the clocks of
// file systems are coarse.
const settled = 3 * time.Second

// Look looks at the file again. It reads the content unless the file's identity, size and
// modification time show that nothing has changed.
func (f File) Look() File {
	info, err := os.Stat(f.Path)
	if err == nil && f.info != nil && os.SameFile(info, f.info) && info.Size() == f.info.Size() &&
		info.ModTime().Equal(f.info.ModTime()) && f.at.Sub(info.ModTime()) > settled {
		return f
	}
	return readFile(f.Path).file
}

// SameContent reports whether both lists have the same files with the same content.
func SameContent(a, b []File) bool {
	return slices.EqualFunc(a, b, func(a, b File) bool { return a.Path == b.Path && a.Sum == b.Sum })
}

// outside is a file that was read, with its content or the error.
type outside struct {
	file   File
	data   []byte
	err    error
	judged bool // a warning about its mode was given
}

// regular reports whether the file can be read again. A pipe cannot.
func (o outside) regular() bool { return o.file.info == nil || o.file.info.Mode().IsRegular() }

func readFile(path string) outside {
	o := outside{file: File{Path: path, at: time.Now()}}
	o.data, o.file.info, o.err = contents(path)
	if o.err != nil {
		o.file.Sum = sha256.Sum256([]byte("unreadable: " + o.err.Error()))
	} else {
		o.file.Sum = sha256.Sum256(o.data)
	}
	return o
}

func contents(path string) ([]byte, fs.FileInfo, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d MiB", path, maxFile>>20)
	}
	if err != nil {
		return nil, nil, err
	}
	return data, info, nil
}

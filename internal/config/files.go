package config

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/daypass/daypass/internal/filemode"
)

// maxFile bounds the configuration file and each file that it names.
const maxFile = 4 << 20

// File is one file that a configuration was read from, with its state at that time.
type File struct {
	Path string // absolute
	// Sum is a hash of the content. A file that cannot be read has a sum of its own.
	Sum [sha256.Size]byte

	info  fs.FileInfo // nil: it could not be read
	at    time.Time
	ended bool // the content ends with a line break
}

// settled is how much older a file's modification time must be than the time at which the file was
// read. Only then does an unchanged modification time mean unchanged content, because the clocks of
// file systems are coarse.
const settled = 3 * time.Second

// Look looks at the file again. It reads the content unless the file's identity, size and
// modification time show that nothing has changed. A pipe counts as changed and is not read: what
// is written to it can be read once.
func (f File) Look() File {
	info, err := os.Stat(f.Path)
	if err == nil && info.Mode()&fs.ModeNamedPipe != 0 {
		return File{Path: f.Path, Sum: sha256.Sum256([]byte("a pipe")), at: time.Now()}
	}
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
		o.file.ended = bytes.HasSuffix(o.data, []byte("\n"))
	}
	return o
}

// Patience with a pipe. A named pipe without a writer would keep a reader waiting for ever, and with
// it a server that reads its files again: it could not even stop.
const (
	writerPatience = 5 * time.Second // until someone writes
	pipePatience   = time.Minute     // in all
)

func contents(path string) ([]byte, fs.FileInfo, error) {
	if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeNamedPipe != 0 {
		data, err := readPipe(path, writerPatience)
		return data, info, err
	}
	return filemode.ReadRegular(path, maxFile)
}

// readPipe reads what is written to a pipe.
func readPipe(path string, patience time.Duration) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	_ = file.SetReadDeadline(time.Now().Add(pipePatience)) // not every system has deadlines for pipes
	for end := time.Now().Add(patience); ; time.Sleep(pipePause) {
		// A pipe without a writer is at its end, and has more as soon as someone writes.
		data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
		switch {
		case err != nil:
			return nil, err
		case len(data) > maxFile:
			return nil, fmt.Errorf("%s writes more than %d MiB", path, maxFile>>20)
		case len(data) > 0:
			return data, nil
		case time.Now().After(end):
			return nil, fmt.Errorf("%s is a pipe that no one writes to: use a file, so that the server can read it again", path)
		}
	}
}

// pipePause is the pause between looks at a pipe.
const pipePause = 20 * time.Millisecond

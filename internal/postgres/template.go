package postgres

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// template is the directory in Options.Templates with the result of initdb, before a
// server ran on it: pgdata and the superuser's password.
type template string

// template returns the template for the installation and initdb's arguments. The template
// need not exist yet.
func (s *Server) template(opts Options, initdb []string) template {
	if opts.Templates == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(s.inst.BinDir + "\x00" + strings.Join(initdb, "\x00")))
	return template(filepath.Join(opts.Templates, s.inst.Version+"-"+hex.EncodeToString(sum[:4])))
}

// exists reports whether the template exists. If it does, it is complete, because keep
// renames it into place.
func (t template) exists() bool {
	_, err := os.Stat(string(t))
	return t != "" && err == nil
}

// keep makes the template by copying a data directory and its superuser's password.
func (t template) keep(pgdata, passwordFile string) error {
	if t == "" {
		return nil
	}
	dir := filepath.Dir(string(t))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	work, err := os.MkdirTemp(dir, "unfinished-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := copyTree(pgdata, filepath.Join(work, "pgdata"), account{}); err != nil {
		return err
	}
	if err := copyTree(passwordFile, filepath.Join(work, "superuser-password"), account{}); err != nil {
		return err
	}
	if err := os.Rename(work, string(t)); err != nil && !t.exists() { // another process may have been faster
		return err
	}
	return nil
}

// use copies the template to a data directory and a password file that the account owns.
func (t template) use(pgdata, passwordFile string, as account) error {
	return errors.Join(copyTree(filepath.Join(string(t), "pgdata"), pgdata, as),
		copyTree(filepath.Join(string(t), "superuser-password"), passwordFile, as))
}

// copyTree copies a file or a directory with its modes and gives the copy to the account.
func copyTree(from, to string, as account) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		at := to + strings.TrimPrefix(path, from)
		switch {
		case info.IsDir():
			err = os.Mkdir(at, info.Mode().Perm())
		case info.Mode().IsRegular():
			err = copyFile(path, at, info.Mode().Perm())
		default:
			err = fmt.Errorf("%s is neither a file nor a directory", path)
		}
		if err != nil {
			return err
		}
		return as.give(at)
	})
}

func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

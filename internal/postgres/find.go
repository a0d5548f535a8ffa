// Package postgres finds, downloads and runs a PostgreSQL server for a process that
// needs its own: `daypass dev` and the tests.
//
// A server that Start returns listens on a free loopback port only, and asks everyone for a
// password (SCRAM-SHA-256), superusers too. It ends with the process that started it: by
// Stop, and on Linux also when that process is killed. On other systems, killing the process
// leaves the server running. PostgreSQL refuses to run as root, so a root process runs it as
// the account postgres or, if that does not exist, nobody.
//
// Do not use the package for a database that matters: durability is off by default, and
// nothing is ever upgraded or backed up.
package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// OldestMajor is the oldest major version that Find and All return.
const OldestMajor = 13

// ErrNotFound means that no PostgreSQL server programs were found.
var ErrNotFound = errors.New("no PostgreSQL server programs (initdb and postgres) found")

// Installation is a directory of PostgreSQL server programs that run on this
// machine.
type Installation struct {
	BinDir  string // contains initdb and postgres
	Version string // as printed by `postgres --version`, such as "15.18" or "18beta1"
	Major   int
}

// Find returns an installation: the one in dir, if dir is not empty; otherwise the
// first in PATH; otherwise the newest of the usual directories. dir may be the
// directory of the programs or up to two levels above it. The error is ErrNotFound,
// with the directories that were searched.
func Find(dir string) (Installation, error) {
	if dir != "" {
		found := All(dir)
		if len(found) == 0 {
			return Installation{}, fmt.Errorf("%w of version %d or later in %s or its bin directories", ErrNotFound, OldestMajor, dir)
		}
		return found[0], nil
	}
	if path, err := exec.LookPath(program("postgres")); err == nil {
		if inst, err := Inspect(filepath.Dir(path)); err == nil {
			return inst, nil
		}
	}
	if found := All(usualDirectories()...); len(found) > 0 {
		return found[0], nil
	}
	return Installation{}, fmt.Errorf("%w of version %d or later in PATH or the usual directories", ErrNotFound, OldestMajor)
}

// Installed returns every installation in PATH and the usual directories, newest first.
func Installed() []Installation {
	return All(append(filepath.SplitList(os.Getenv("PATH")), usualDirectories()...)...)
}

// All returns the installations in dirs, newest first, without duplicates. A dir may be the
// directory of the programs or one or two levels above it.
func All(dirs ...string) []Installation {
	var found []Installation
	seen := make(map[string]bool)
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		for _, below := range []string{".", "bin", "*/bin"} {
			matches, err := filepath.Glob(filepath.Join(dir, below))
			if err != nil {
				continue // dir has an unbalanced bracket: no such directory
			}
			for _, match := range matches {
				key, err := filepath.EvalSymlinks(filepath.Join(match, program("postgres")))
				if err != nil || seen[key] {
					continue
				}
				inst, err := Inspect(match)
				if err != nil {
					continue
				}
				seen[key] = true
				found = append(found, inst)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b Installation) int { return compareVersions(b, a) })
	return found
}

// Inspect returns the installation whose programs are in binDir. It runs `postgres --version`
// as the account that the server would run as, so a program that cannot run here does not
// count.
func Inspect(binDir string) (Installation, error) {
	as, err := serverAccount()
	if err != nil {
		return Installation{}, err
	}
	binDir, err = filepath.Abs(binDir)
	if err != nil {
		return Installation{}, err
	}
	for _, name := range []string{"initdb", "postgres"} {
		info, err := os.Stat(filepath.Join(binDir, program(name)))
		if err != nil {
			return Installation{}, err
		}
		if info.IsDir() {
			return Installation{}, fmt.Errorf("%s is a directory", filepath.Join(binDir, name))
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	postgres := filepath.Join(binDir, program("postgres"))
	cmd := exec.Command(postgres, "--version")
	cmd.Dir = binDir
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := run(ctx, cmd, as); err != nil {
		return Installation{}, fmt.Errorf("running %s --version: %w", postgres, err)
	}
	inst := Installation{BinDir: binDir}
	inst.Version, inst.Major, err = parseVersion(out.String())
	if err != nil {
		return Installation{}, fmt.Errorf("%s --version: %w", postgres, err)
	}
	if inst.Major < OldestMajor {
		return Installation{}, fmt.Errorf("%s is version %s; %d is the oldest supported", postgres, inst.Version, OldestMajor)
	}
	return inst, nil
}

// parseVersion reads the output of `postgres --version`, for example
// "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)".
func parseVersion(out string) (version string, major int, err error) {
	_, rest, found := strings.Cut(out, "(PostgreSQL) ")
	fields := strings.Fields(rest)
	if !found || len(fields) == 0 {
		return "", 0, fmt.Errorf("%q is not a PostgreSQL version", strings.TrimSpace(out))
	}
	version = fields[0]
	digits := version[:len(version)-len(strings.TrimLeft(version, "0123456789"))]
	major, err = strconv.Atoi(digits)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not a PostgreSQL version", strings.TrimSpace(out))
	}
	return version, major, nil
}

// compareVersions orders by major and then minor version. A beta or release candidate
// of a major version has no minor version and counts as its oldest.
func compareVersions(a, b Installation) int {
	if a.Major != b.Major {
		return a.Major - b.Major
	}
	minor := func(i Installation) int {
		_, m, _ := strings.Cut(i.Version, ".")
		n, err := strconv.Atoi(m)
		if err != nil {
			return -1
		}
		return n
	}
	return minor(a) - minor(b)
}

// usualDirectories returns where packages and installers put the server programs,
// which often are not in PATH.
func usualDirectories() []string {
	patterns := []string{
		"/usr/lib/postgresql/*/bin",      // Debian, Ubuntu
		"/usr/libexec/postgresql*",       // Alpine
		"/usr/pgsql-*/bin",               // Red Hat, SUSE from postgresql.org
		"/usr/lib/postgresql*/bin",       // SUSE, Gentoo
		"/usr/bin",                       // Fedora, Arch
		"/usr/local/pgsql/bin",           // built from source
		"/usr/local/bin",                 // FreeBSD
		"/usr/local/opt/postgresql*/bin", // Homebrew, Intel
		"/opt/homebrew/opt/postgresql*/bin",
		"/opt/local/lib/postgresql*/bin", // MacPorts
		"/Applications/Postgres.app/Contents/Versions/*/bin",
		"/Library/PostgreSQL/*/bin", // EDB installer
		"/opt/PostgreSQL/*/bin",
		"/run/current-system/sw/bin", // NixOS
	}
	if runtime.GOOS == "windows" {
		patterns = []string{filepath.Join(os.Getenv("ProgramFiles"), "PostgreSQL", "*", "bin")}
	}
	var dirs []string
	for _, pattern := range patterns {
		matches, _ := filepath.Glob(pattern) // the patterns are well-formed
		dirs = append(dirs, matches...)
	}
	return dirs
}

func program(name string) string {
	if runtime.GOOS == "windows" {
		return name + ".exe"
	}
	return name
}

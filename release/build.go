package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// release is a release that is being built.
type release struct {
	source, out, stage string // source is a clone made for the build
	stdout             io.Writer

	commit   string
	date     time.Time // of the commit; all files in archives, packages and image get it
	version  string    // as Go writes it: v1.2.3, or a pseudo-version if there is no tag
	binaries []binary
	written  []string // names of the files in out

	// Documents that come with the binaries.
	licence, notices, changelog []byte
	manual                      []file            // gzipped; names without a directory
	completions                 map[string][]byte // by shell
}

// binary is the program for one platform.
type binary struct {
	os, arch string
	path     string
	data     []byte
	info     *buildinfo.BuildInfo
	sbom     []byte
}

// platform returns the platform as it appears in file names.
func (b binary) platform() string { return b.os + "_" + b.arch }

// file is a file for an archive, a package or the image.
type file struct {
	path string // relative, with slashes
	mode fs.FileMode
	data []byte
}

// number returns the version without its v, as packages write it.
func (r *release) number() string { return strings.TrimPrefix(r.version, "v") }

func (r *release) say(format string, args ...any) { fmt.Fprintf(r.stdout, format+"\n", args...) }

// write writes a file of the release.
func (r *release) write(name string, data []byte) error {
	if err := os.WriteFile(filepath.Join(r.out, name), data, 0o644); err != nil {
		return err
	}
	r.written = append(r.written, name)
	r.say("%12d  %s", len(data), name)
	return nil
}

// plainCheckout overrides the settings of a person's Git that change the bytes of files.
var plainCheckout = []string{"--config", "core.autocrlf=false", "--config", "core.eol=lf", "--config", "core.attributesFile=" + os.DevNull,
	"--config", "core.symlinks=true", "--config", "core.hooksPath=" + os.DevNull}

// checkOut clones the repository at the commit, so that only committed files are built. Go
// records the commit of a clone in the binary, but not that of a linked work tree.
func (r *release) checkOut(repository, commit string) error {
	repository, err := filepath.Abs(repository)
	if err != nil {
		return err
	}
	top, err := command(repository, nil, "git", "rev-parse", "--show-toplevel", commit+"^{commit}")
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(top)), "\n")
	if len(lines) != 2 {
		return fmt.Errorf("reading the commit %s: git said %q", commit, top)
	}
	root := lines[0] // may have spaces
	r.commit = lines[1]
	clone := append([]string{"clone", "--quiet", "--shared", "--no-checkout", "--template="}, plainCheckout...)
	if _, err := command(repository, nil, "git", append(clone, root, r.source)...); err != nil {
		return err
	}
	if _, err := r.git("checkout", "--quiet", "--detach", r.commit); err != nil {
		return err
	}
	seconds, err := r.git("log", "-1", "--format=%ct")
	if err != nil {
		return err
	}
	at, err := strconv.ParseInt(seconds, 10, 64)
	r.date = time.Unix(at, 0).UTC()
	return err
}

func (r *release) git(args ...string) (string, error) {
	out, err := command(r.source, nil, "git", args...)
	return strings.TrimSpace(string(out)), err
}

// buildBinaries builds the program for each platform. Only the version of Go, which the provenance
// names, has an influence on the bytes besides the commit.
func (r *release) buildBinaries(platforms string) error {
	for _, platform := range strings.Split(platforms, ",") {
		b := binary{}
		var found bool
		if b.os, b.arch, found = strings.Cut(platform, "/"); !found {
			return fmt.Errorf("-platforms %s: is not OS/ARCH", platform)
		}
		b.path = filepath.Join(r.stage, b.platform(), "daypass"+map[bool]string{true: ".exe"}[b.os == "windows"])
		if err := r.compile(b.os, b.arch, b.path); err != nil {
			return err
		}
		var err error
		if b.info, err = buildinfo.ReadFile(b.path); err != nil {
			return err
		}
		if b.data, err = os.ReadFile(b.path); err != nil {
			return err
		}
		if r.version == "" {
			r.version = b.info.Main.Version
			r.say("daypass %s, commit %s of %s, %s", r.version, r.commit, r.date.Format(time.RFC3339), b.info.GoVersion)
		}
		r.binaries = append(r.binaries, b)
		r.say("built %s", platform)
	}
	if !strings.HasPrefix(r.version, "v") {
		return fmt.Errorf("the binary has the version %q: Go found no commit in %s", r.version, r.source)
	}
	return nil
}

func (r *release) compile(goos, goarch, to string) error {
	environment, err := r.goEnvironment()
	if err != nil {
		return err
	}
	environment = append(environment, "GOOS="+goos, "GOARCH="+goarch)
	_, err = command(r.source, environment, "go", "build", "-trimpath", "-buildvcs=true", "-ldflags", "-s -w", "-o", to, "./cmd/daypass")
	return err
}

// placesOfModules are the settings of Go that say where modules and caches are. None of them changes
// the bytes of a module, whose checksum go.sum has.
var placesOfModules = []string{"GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY", "GOPRIVATE", "GOVCS", "GOMODCACHE", "GOCACHE", "GOPATH", "GOTOOLCHAIN"}

// goEnvironment returns the environment for Go. Go takes a variable that is set and empty from the
// settings of "go env -w", so those are turned off, except for placesOfModules.
func (r *release) goEnvironment() ([]string, error) {
	out, err := command(r.source, nil, "go", append([]string{"env", "-json"}, placesOfModules...)...)
	if err != nil {
		return nil, err
	}
	var places map[string]string
	if err := json.Unmarshal(out, &places); err != nil {
		return nil, err
	}
	environment := []string{"GOENV=off", "CGO_ENABLED=0", "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=-mod=readonly", "GOEXPERIMENT=", "GOWORK=off", "GOFIPS140=off", "GODEBUG="}
	for _, name := range placesOfModules {
		environment = append(environment, name+"="+places[name])
	}
	return environment, nil
}

// collectDocuments reads or generates the documents that come with the binaries.
func (r *release) collectDocuments() (err error) {
	if r.licence, err = os.ReadFile(filepath.Join(r.source, "LICENSE")); err != nil {
		return err
	}
	if r.changelog, err = os.ReadFile(filepath.Join(r.source, "CHANGELOG.md")); err != nil {
		return err
	}
	if r.notices, err = r.collectNotices(); err != nil {
		return err
	}
	// A binary for this machine writes its own manual.
	host := slices.IndexFunc(r.binaries, func(b binary) bool { return b.os == runtime.GOOS && b.arch == runtime.GOARCH })
	program := filepath.Join(r.stage, "host", "daypass")
	if host >= 0 {
		program = r.binaries[host].path
	} else if err := r.compile(runtime.GOOS, runtime.GOARCH, program); err != nil {
		return err
	}
	pages := filepath.Join(r.stage, "man")
	if _, err := command(r.source, []string{fmt.Sprintf("SOURCE_DATE_EPOCH=%d", r.date.Unix())}, program, "man", pages); err != nil {
		return err
	}
	entries, err := os.ReadDir(pages)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		data, err := os.ReadFile(filepath.Join(pages, entry.Name()))
		if err != nil {
			return err
		}
		r.manual = append(r.manual, file{entry.Name() + ".gz", 0o644, gzipped(data)})
	}
	r.completions = map[string][]byte{}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r.completions[shell], err = command(r.source, nil, program, "completion", shell); err != nil {
			return err
		}
	}
	return nil
}

// collectNotices collects the licences of everything that the binaries contain. Most licences must
// be passed on with the program.
func (r *release) collectNotices() ([]byte, error) {
	paths := map[string]bool{}
	for _, b := range r.binaries {
		for _, dependency := range b.info.Deps {
			paths[dependency.Path] = true
		}
	}
	environment, err := r.goEnvironment()
	if err != nil {
		return nil, err
	}
	listed, err := command(r.source, environment, "go", append([]string{"list", "-m", "-json"}, sorted(paths)...)...)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "Daypass contains the following modules, under these licences. Its own is in LICENSE.\n")
	for decoder := json.NewDecoder(bytes.NewReader(listed)); ; {
		var module struct{ Path, Version, Dir string }
		if err := decoder.Decode(&module); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		if err := appendNotices(&text, module.Path+" "+module.Version, module.Dir); err != nil {
			return nil, err
		}
	}
	root, err := command(r.source, nil, "go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	if err := appendNotices(&text, "Go's standard library", strings.TrimSpace(string(root))); err != nil {
		return nil, err
	}
	return text.Bytes(), nil
}

func appendNotices(text *bytes.Buffer, name, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("the licence of %s: %w", name, err)
	}
	found := false
	for _, entry := range entries {
		upper := strings.ToUpper(entry.Name())
		if entry.IsDir() || !strings.HasPrefix(upper, "LICEN") && !strings.HasPrefix(upper, "COPYING") && !strings.HasPrefix(upper, "NOTICE") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return err
		}
		found = true
		fmt.Fprintf(text, "\n%s\n%s: %s\n%[1]s\n\n%s\n", strings.Repeat("=", 72), name, entry.Name(), bytes.TrimSpace(data))
	}
	if !found {
		return fmt.Errorf("the licence of %s: %s has none: see what it is published under", name, dir)
	}
	return nil
}

func sorted(set map[string]bool) []string {
	list := make([]string, 0, len(set))
	for name := range set {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// command runs a program and returns what it printed.
func command(dir string, environment []string, name string, args ...string) ([]byte, error) {
	return commandWith(nil, dir, environment, name, args...)
}

// commandWith is command with standard input.
func commandWith(input []byte, dir string, environment []string, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, append(os.Environ(), environment...), bytes.NewReader(input)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.Bytes(), nil
}

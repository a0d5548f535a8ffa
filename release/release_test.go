package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	provenance "github.com/in-toto/attestation/go/predicates/provenance/v1"
	attestation "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// site is a release of this commit for one platform, which the tests share.
type site struct {
	dir, out, key, signers string
	commit, version        string
}

var (
	once   sync.Once
	shared site
	failed error
)

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// released builds and signs the release once.
func released(t *testing.T) site {
	t.Helper()
	once.Do(func() {
		if shared.dir, failed = os.MkdirTemp("", "daypass-release-test-"); failed != nil {
			return
		}
		shared.out = filepath.Join(shared.dir, "dist")
		if shared.key, shared.signers, failed = makeKey(shared.dir, "key"); failed != nil {
			return
		}
		var said bytes.Buffer
		if failed = run([]string{"-out", shared.out, "-platforms", "linux/amd64", "-sign", shared.key, "-signers", shared.signers, "-builder", "https://example.com/builder"}, &said); failed != nil {
			return
		}
		var out []byte
		if out, failed = command("..", nil, "git", "rev-parse", "HEAD"); failed == nil {
			shared.commit = strings.TrimSpace(string(out))
			_, shared.version, _ = strings.Cut(strings.SplitN(said.String(), ",", 2)[0], " v")
		}
	})
	if failed != nil {
		t.Fatal(failed)
	}
	return shared
}

func makeKey(dir, name string) (key, signers string, err error) {
	key, signers = filepath.Join(dir, name), filepath.Join(dir, name+".signers")
	if _, err := command(dir, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", key); err != nil {
		return "", "", err
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		return "", "", err
	}
	return key, signers, os.WriteFile(signers, append([]byte("release@daypass namespaces=\"file\" "), public...), 0o600)
}

func (s site) read(t *testing.T, pattern string) []byte {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.out, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v, %v, want one file", pattern, found, err)
	}
	data, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func sums(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string]string{}
	for _, entry := range entries {
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(data)
		sums[entry.Name()] = hex.EncodeToString(sum[:])
	}
	return sums
}

// TestVerify follows docs/releasing.md for users: check the signature, then the checksums. A
// single changed byte is detected, and so is a signature by another key.
func TestVerify(t *testing.T) {
	s := released(t)
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(s.out)); err != nil {
		t.Fatal(err)
	}
	verify := func() error {
		cmd := exec.Command("sh", "-ec", `ssh-keygen -Y verify -f "$0" -I release@daypass -n file -s SHA256SUMS.sig < SHA256SUMS; sha256sum --check --strict --quiet SHA256SUMS`, s.signers)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		t.Logf("%s", bytes.TrimSpace(out))
		return err
	}
	if err := verify(); err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"*.deb", "SHA256SUMS"} {
		found, _ := filepath.Glob(filepath.Join(dir, pattern))
		data, err := os.ReadFile(found[0])
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Clone(data)
		changed[0] ^= 1
		if err := os.WriteFile(found[0], changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if verify() == nil {
			t.Errorf("a change of %s is not found", found[0])
		}
		if err := os.WriteFile(found[0], data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	listed := sums(t, s.out)
	for line := range strings.Lines(string(s.read(t, "SHA256SUMS"))) {
		delete(listed, strings.Fields(line)[1])
	}
	delete(listed, "SHA256SUMS")
	delete(listed, "SHA256SUMS.sig")
	for file := range listed {
		t.Errorf("%s has no checksum", file)
	}
}

// TestSigningWithAKeyThatIsNotListed: with such a key no signature is written, because everyone
// would refuse it.
func TestSigningWithAKeyThatIsNotListed(t *testing.T) {
	dir := t.TempDir()
	key, _, err := makeKey(dir, "other")
	if err != nil {
		t.Fatal(err)
	}
	_, signers, err := makeKey(dir, "listed")
	if err != nil {
		t.Fatal(err)
	}
	r := &release{out: dir, stdout: io.Discard}
	if err := r.write("SHA256SUMS", []byte("sums\n")); err != nil {
		t.Fatal(err)
	}
	err = r.sign(key, signers)
	if err == nil || !strings.Contains(err.Error(), "is not one of the keys in") {
		t.Errorf("sign = %v, want that the key is not listed", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "SHA256SUMS.sig")); err == nil {
		t.Error("the signature is still there")
	}
}

// TestStatements reads the SBOM and the provenance with the libraries that other tools use, and
// compares them with the files and the binary.
func TestStatements(t *testing.T) {
	s := released(t)
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(s.read(t, "*.cdx.json")), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	has := map[string]bool{}
	for _, c := range *bom.Components {
		has[c.Name] = true
		if c.PackageURL == "" || c.Version == "" {
			t.Errorf("component %+v has no version or URL", c)
		}
	}
	for _, name := range []string{"std", "github.com/jackc/pgx/v5", "go.etcd.io/bbolt"} {
		if !has[name] {
			t.Errorf("the SBOM lacks %s", name)
		}
	}
	if has["go.etcd.io/etcd/server/v3"] {
		t.Error("the SBOM has a module of the tests")
	}

	var statement attestation.Statement
	if err := protojson.Unmarshal(s.read(t, "*.intoto.json"), &statement); err != nil {
		t.Fatal(err)
	}
	if err := statement.Validate(); err != nil {
		t.Error(err)
	}
	encoded, err := protojson.Marshal(statement.Predicate)
	if err != nil {
		t.Fatal(err)
	}
	var how provenance.Provenance
	if err := protojson.Unmarshal(encoded, &how); err != nil {
		t.Fatal(err)
	}
	if err := how.Validate(); err != nil {
		t.Error(err)
	}
	if source := how.BuildDefinition.ResolvedDependencies[0]; source.Digest["gitCommit"] != s.commit {
		t.Errorf("the source is %v, want commit %s", source, s.commit)
	}
	files := sums(t, s.out)
	for _, subject := range statement.Subject {
		if files[subject.Name] != subject.Digest["sha256"] {
			t.Errorf("the provenance of %s has another checksum", subject.Name)
		}
	}
}

// TestArchive unpacks the archive as a person does, and asks the program for its version.
func TestArchive(t *testing.T) {
	s := released(t)
	packed, err := gzip.NewReader(bytes.NewReader(s.read(t, "*_linux_amd64.tar.gz")))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	names := unpack(t, packed, dir)
	top := "daypass_" + s.version + "_linux_amd64/"
	for _, name := range []string{"daypass", "LICENSE", "NOTICES", "man/man1/daypass.1.gz", "man/man1/daypass-connect.1.gz", "completions/_daypass", "daypass.service"} {
		if !names[top+name] {
			t.Errorf("the archive lacks %s", top+name)
		}
	}
	out, err := exec.Command(filepath.Join(dir, top, "daypass"), "version", "--output", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var said struct {
		Version, Commit, Date, Go, Platform string
		Modified                            bool
		Modules                             []struct{ Path, Version, Sum string }
	}
	if err := json.Unmarshal(out, &said); err != nil {
		t.Fatal(err)
	}
	if said.Version != "v"+s.version || said.Commit != s.commit || said.Date == "" || said.Modified || said.Platform != "linux/amd64" || len(said.Modules) < 20 {
		t.Errorf("daypass version = %s\nwant %s, commit %s", out, s.version, s.commit)
	}
}

// unpack unpacks a tar archive and returns the names of its files.
func unpack(t *testing.T, r io.Reader, dir string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		if !filepath.IsLocal(header.Name) {
			t.Fatalf("the archive has %q", header.Name)
		}
		path := filepath.Join(dir, header.Name)
		if header.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, header.FileInfo().Mode())
		} else {
			var data []byte
			if data, err = io.ReadAll(archive); err == nil {
				err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, header.FileInfo().Mode()))
			}
			names[header.Name] = true
		}
		if err == nil && os.Geteuid() == 0 {
			err = os.Chown(path, header.Uid, header.Gid)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestPackages reads the packages with the programs that install them.
func TestPackages(t *testing.T) {
	s := released(t)
	installed := []string{"/usr/bin/daypass", "/usr/lib/systemd/system/daypass.service", "/usr/share/man/man1/daypass-connect.1.gz",
		"/usr/share/bash-completion/completions/daypass", "/usr/share/fish/vendor_completions.d/daypass.fish", "/usr/share/doc/daypass/copyright", "/etc/daypass", "/var/lib/daypass"}
	for _, test := range []struct {
		pattern string
		list    []string
		want    []string
	}{
		{"*_amd64.deb", []string{"dpkg-deb", "--contents"}, append(installed, "drwxr-x--- root/daypass", "drwx------ daypass/daypass", "-rwxr-xr-x root/root")},
		{"*.x86_64.rpm", []string{"rpm", "-qplv"}, append(installed, "drwxr-x---    2 root     daypass", "drwx------    2 daypass  daypass", "-rwxr-xr-x    1 root     root")},
	} {
		if _, err := exec.LookPath(test.list[0]); err != nil {
			t.Logf("NOT CHECKED: %s, since there is no %s", test.pattern, test.list[0])
			continue
		}
		found, _ := filepath.Glob(filepath.Join(s.out, test.pattern))
		out, err := exec.Command(test.list[0], append(test.list[1:], found[0])...).CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v\n%s", test.list, err, out)
		}
		for _, want := range test.want {
			if !strings.Contains(strings.ReplaceAll(string(out), " ./", " /"), want) {
				t.Errorf("%v lists no %q\n%s", test.list, want, out)
			}
		}
	}
	for _, name := range []string{"preinstall", "postinstall", "preremove", "postremove"} {
		if out, err := exec.Command("sh", "-n", "../deploy/packages/"+name+".sh").CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestPush pushes the image to a registry, pulls it, and compares it with the built one.
func TestPush(t *testing.T) {
	s := released(t)
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	reference := strings.TrimPrefix(server.URL, "http://") + "/daypass:" + s.version
	found, _ := filepath.Glob(filepath.Join(s.out, "*_oci.tar"))
	var said bytes.Buffer
	if err := run([]string{"push", found[0], reference}, &said); err != nil {
		t.Fatal(err)
	}
	parsed, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(parsed)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := index.Digest()
	if err != nil || !strings.HasSuffix(strings.TrimSpace(said.String()), "@"+digest.String()) {
		t.Errorf("push said %q, want the digest %s, %v", said.String(), digest, err)
	}
	manifest, err := index.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 || manifest.Manifests[0].Platform.Architecture != "amd64" || manifest.Annotations["org.opencontainers.image.revision"] != s.commit {
		t.Errorf("the index is %+v, %v", manifest, err)
	}
}

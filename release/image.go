package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// imageUser is the account that runs the program in the image. It is not root, and it is a number
// so that Kubernetes can verify that it is not.
const imageUser = 65532

// owners are the paths in the image that belong to imageUser; everything else belongs to root.
var owners = map[string]int{"var/lib/daypass": imageUser}

// writeImage writes an OCI image layout with an image for each Linux binary. The image contains
// the program, the certificates of public authorities, and the names of its account. It has no
// shell, and the program can write only to a volume.
func (r *release) writeImage() error {
	var index v1.ImageIndex = mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	images := 0
	for _, b := range r.binaries {
		if b.os != "linux" {
			continue
		}
		image, err := r.image(b)
		if err != nil {
			return fmt.Errorf("the image for %s: %w", b.platform(), err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: b.os, Architecture: b.arch}}})
		images++
	}
	if images == 0 {
		return nil
	}
	index = mutate.Annotations(index, r.labels()).(v1.ImageIndex)
	dir := filepath.Join(r.stage, "oci")
	root, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	// containerd and skopeo find the image in an archive by this name.
	if err := root.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": r.number()})); err != nil {
		return err
	}
	list, err := readTree(dir)
	if err != nil {
		return err
	}
	data, err := tarred(list, r.date)
	if err != nil {
		return err
	}
	return r.write(fmt.Sprintf("daypass_%s_oci.tar", r.number()), data)
}

func (r *release) labels() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":    "Daypass",
		"org.opencontainers.image.source":   "https://github.com/daypass/daypass",
		"org.opencontainers.image.licenses": "Apache-2.0",
		"org.opencontainers.image.version":  r.number(),
		"org.opencontainers.image.revision": r.commit,
		"org.opencontainers.image.created":  r.date.Format(time.RFC3339),
	}
}

func (r *release) image(b binary) (v1.Image, error) {
	roots, err := authorities()
	if err != nil {
		return nil, err
	}
	data, err := tarred(withParents([]file{
		{"usr/bin/daypass", 0o755, b.data},
		{"etc/ssl/certs/ca-certificates.crt", 0o644, roots},
		{"etc/passwd", 0o644, []byte("root:x:0:0:root:/:/sbin/nologin\n" + fmt.Sprintf("daypass:x:%d:%[1]d:Daypass:/var/lib/daypass:/sbin/nologin\n", imageUser))},
		{"etc/group", 0o644, []byte("root:x:0:\n" + fmt.Sprintf("daypass:x:%d:\n", imageUser))},
		{"etc/daypass", fs.ModeDir | 0o755, nil},
		{"var/lib/daypass", fs.ModeDir | 0o700, nil},
		{"usr/share/doc/daypass/LICENSE", 0o644, r.licence},
		{"usr/share/doc/daypass/NOTICES", 0o644, r.notices},
		{"usr/share/doc/daypass/sbom.cdx.json", 0o644, b.sbom},
	}), r.date)
	if err != nil {
		return nil, err
	}
	packed := gzipped(data)
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	var image v1.Image = mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if image, err = mutate.Append(image, mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: r.date}, CreatedBy: "make release"}}); err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created, config.Author = b.os, b.arch, v1.Time{Time: r.date}, "Daypass"
	config.Config = v1.Config{
		Entrypoint: []string{"/usr/bin/daypass"}, Cmd: []string{"serve", "--config", "/etc/daypass/daypass.yaml"},
		User: fmt.Sprintf("%d:%[1]d", imageUser), WorkingDir: "/", Env: []string{"PATH=/usr/bin", "HOME=/var/lib/daypass"},
		ExposedPorts: map[string]struct{}{"8440/tcp": {}, "5439/tcp": {}}, Volumes: map[string]struct{}{"/var/lib/daypass": {}},
		StopSignal: "SIGTERM", Labels: r.labels(),
	}
	return mutate.ConfigFile(image, config)
}

// withParents adds the parent directories of the files, so that no runtime has to guess their
// modes.
func withParents(list []file) []file {
	known := map[string]bool{".": true}
	for _, f := range list {
		known[f.path] = f.mode.IsDir()
	}
	for _, f := range list {
		for dir := path.Dir(f.path); !known[dir]; dir = path.Dir(dir) {
			known[dir] = true
			list = append(list, file{dir, fs.ModeDir | 0o755, nil})
		}
	}
	return list
}

// authorities returns the certificates of Mozilla's list as a PEM file. It leaves out certificates
// with a restriction on their trust, because a PEM file cannot express the restriction.
func authorities() ([]byte, error) {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		if err := pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// readTree reads a directory and its subdirectories.
func readTree(dir string) ([]file, error) {
	var list []file
	root := os.DirFS(dir)
	return list, fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if entry.IsDir() {
			list = append(list, file{name, fs.ModeDir | 0o755, nil})
			return nil
		}
		data, err := fs.ReadFile(root, name)
		list = append(list, file{name, 0o644, data})
		return err
	})
}

// push pushes the image in an archive, with all platforms, to a registry. It uses the credentials
// that "docker login" and similar commands have stored.
func push(archive, reference string, stdout io.Writer) error {
	to, err := name.ParseReference(reference)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "daypass-push-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := untar(archive, dir); err != nil {
		return fmt.Errorf("%s: %w", archive, err)
	}
	root, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return fmt.Errorf("%s: %w", archive, err)
	}
	manifest, err := root.IndexManifest()
	if err != nil {
		return err
	}
	if len(manifest.Manifests) != 1 {
		return fmt.Errorf("%s: has %d images, want one", archive, len(manifest.Manifests))
	}
	digest := manifest.Manifests[0].Digest
	index, err := root.ImageIndex(digest)
	if err != nil {
		return err
	}
	if err := remote.WriteIndex(to, index, remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s\n", to.Context().Digest(digest.String()))
	return err
}

// untar unpacks an archive that this program wrote: files and directories.
func untar(archive, dir string) error {
	in, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer in.Close()
	root, err := os.OpenRoot(dir) // keeps writes inside dir
	if err != nil {
		return err
	}
	defer root.Close()
	for r := tar.NewReader(in); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if header.Typeflag == tar.TypeDir {
			if err := root.MkdirAll(filepath.Clean(header.Name), 0o755); err != nil {
				return err
			}
			continue
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := root.WriteFile(filepath.FromSlash(header.Name), data, 0o644); err != nil {
			return err
		}
	}
}

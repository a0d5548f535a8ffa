package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // registers itself
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm" // registers itself
)

// writePackages writes .deb and .rpm for each Linux binary.
func (r *release) writePackages() error {
	for _, b := range r.binaries {
		if b.os != "linux" {
			continue
		}
		for _, format := range []string{"deb", "rpm"} {
			if err := r.writePackage(b, format); err != nil {
				return fmt.Errorf("the %s package for %s: %w", format, b.platform(), err)
			}
		}
	}
	return nil
}

// writePackage writes one package. The package creates the account daypass. It neither enables
// nor starts the service, because there is no configuration yet.
func (r *release) writePackage(b binary, format string) error {
	contents, err := r.contents(b, format)
	if err != nil {
		return err
	}
	script := func(name string) string { return filepath.Join(r.source, "deploy", "packages", name+".sh") }
	account := map[string]string{"deb": "passwd", "rpm": "shadow-utils"}[format]
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: "daypass", Arch: b.arch, Platform: "linux", Version: r.number(), Release: "1", MTime: r.date,
		Section: "database", Priority: "optional", Maintainer: "Daypass <https://github.com/daypass/daypass>", Vendor: "Daypass",
		Homepage: "https://github.com/daypass/daypass", License: "Apache-2.0",
		Description:     "Short-lived database logons for PostgreSQL\nAnswers GetClusterCredentials as Amazon Redshift does, and opens the PostgreSQL\nsessions that its passwords are good for.",
		DisableGlobbing: true,
		Overridables: nfpm.Overridables{
			Depends: []string{account}, Recommends: []string{"ca-certificates"}, Suggests: []string{"postgresql-client"},
			Contents: contents,
			Scripts: nfpm.Scripts{PreInstall: script("preinstall"), PostInstall: script("postinstall"),
				PreRemove: script("preremove"), PostRemove: script("postremove")},
			RPM: nfpm.RPM{BuildHost: "daypass-release", Summary: "Short-lived database logons for PostgreSQL", Compression: "gzip:6"},
		},
	})
	if format == "rpm" {
		info.Suggests = []string{"postgresql"}
	}
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		return err
	}
	packager, err := nfpm.Get(format)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := packager.Package(info, &out); err != nil {
		return err
	}
	return r.write(packager.ConventionalFileName(info), out.Bytes())
}

// contents lists the files that a package installs. nfpm reads from disk, so generated documents
// are written to files first.
func (r *release) contents(b binary, format string) (files.Contents, error) {
	dir := filepath.Join(r.stage, format+"_"+b.arch)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	zsh := map[string]string{"deb": "vendor-completions", "rpm": "site-functions"}[format]
	const doc = "/usr/share/doc/daypass/"
	made := map[string][]byte{
		doc + "copyright": append(append([]byte("Daypass, https://github.com/daypass/daypass\n\n"), r.licence...), r.notices...),
		doc + "changelog": r.changelog, doc + "sbom.cdx.json": b.sbom,
		"/usr/share/bash-completion/completions/daypass":    r.completions["bash"],
		"/usr/share/zsh/" + zsh + "/_daypass":               r.completions["zsh"],
		"/usr/share/fish/vendor_completions.d/daypass.fish": r.completions["fish"],
	}
	for _, page := range r.manual {
		made["/usr/share/man/man1/"+page.path] = page.data
	}
	info := func(owner, group string, mode fs.FileMode) *files.ContentFileInfo {
		return &files.ContentFileInfo{Owner: owner, Group: group, Mode: mode, MTime: r.date}
	}
	list := files.Contents{
		{Source: b.path, Destination: "/usr/bin/daypass", FileInfo: info("root", "root", 0o755)},
		{Destination: "/etc/daypass", Type: files.TypeDir, FileInfo: info("root", "daypass", 0o750)},
		{Destination: "/var/lib/daypass", Type: files.TypeDir, FileInfo: info("daypass", "daypass", 0o700)},
	}
	for from, to := range map[string]string{
		"deploy/systemd/daypass.service": "/usr/lib/systemd/system/daypass.service",
		"docs/daypass.yaml":              doc + "examples/daypass.yaml",
		"deploy/prometheus/alerts.yaml":  doc + "examples/alerts.yaml",
		"deploy/grafana/dashboard.json":  doc + "examples/dashboard.json",
	} {
		list = append(list, &files.Content{Source: filepath.Join(r.source, from), Destination: to, FileInfo: info("root", "root", 0o644)})
	}
	for destination, data := range made {
		staged := filepath.Join(dir, strings.ReplaceAll(destination, "/", "_"))
		if err := os.WriteFile(staged, data, 0o644); err != nil {
			return nil, err
		}
		list = append(list, &files.Content{Source: staged, Destination: destination, FileInfo: info("root", "root", 0o644)})
	}
	return list, nil
}

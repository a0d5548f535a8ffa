package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// writeArchives writes an archive for each platform, for people without a package manager: the
// program, its manual, completions and licences.
func (r *release) writeArchives() error {
	for _, b := range r.binaries {
		name := fmt.Sprintf("daypass_%s_%s", r.number(), b.platform())
		list := []file{
			{filepath.Base(b.path), 0o755, b.data},
			{"LICENSE", 0o644, r.licence}, {"NOTICES", 0o644, r.notices}, {"CHANGELOG.md", 0o644, r.changelog}, {"sbom.cdx.json", 0o644, b.sbom},
		}
		for _, page := range r.manual {
			list = append(list, file{"man/man1/" + page.path, page.mode, page.data})
		}
		for shell, script := range r.completions {
			list = append(list, file{"completions/" + completionFile[shell], 0o644, script})
		}
		example, err := os.ReadFile(filepath.Join(r.source, "docs", "daypass.yaml"))
		if err != nil {
			return err
		}
		list = append(list, file{"daypass.example.yaml", 0o644, example})
		if b.os == "linux" {
			unit, err := os.ReadFile(filepath.Join(r.source, "deploy", "systemd", "daypass.service"))
			if err != nil {
				return err
			}
			list = append(list, file{"daypass.service", 0o644, unit})
		}
		for i := range list {
			list[i].path = name + "/" + list[i].path
		}
		if b.os == "windows" {
			data, err := zipped(list, r.date)
			if err != nil {
				return err
			}
			if err := r.write(name+".zip", data); err != nil {
				return err
			}
			continue
		}
		data, err := tarred(list, r.date)
		if err != nil {
			return err
		}
		if err := r.write(name+".tar.gz", gzipped(data)); err != nil {
			return err
		}
	}
	return nil
}

// completionFile is the name under which each shell looks for its completions.
var completionFile = map[string]string{"bash": "daypass", "zsh": "_daypass", "fish": "daypass.fish"}

// chartVersion and appVersion are the lines of Chart.yaml that a release fills in.
var chartVersion, appVersion = regexp.MustCompile(`(?m)^version: .*$`), regexp.MustCompile(`(?m)^appVersion: .*$`)

// writeChart writes the Helm chart as "helm package" would, with the version.
func (r *release) writeChart() error {
	root := os.DirFS(filepath.Join(r.source, "deploy", "helm", "daypass"))
	var list []file
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		if name == "Chart.yaml" {
			if !chartVersion.Match(data) || !appVersion.Match(data) {
				return fmt.Errorf("%s: has no version and appVersion to fill in", name)
			}
			data = chartVersion.ReplaceAll(data, []byte("version: "+r.number()))
			data = appVersion.ReplaceAll(data, []byte(fmt.Sprintf("appVersion: %q", r.number())))
		}
		list = append(list, file{"daypass/" + name, 0o644, data})
		return nil
	})
	if err != nil {
		return err
	}
	data, err := tarred(list, r.date)
	if err != nil {
		return err
	}
	return r.write("daypass-chart-"+r.number()+".tgz", gzipped(data))
}

// tarred returns a tar archive whose bytes depend only on the files and the date.
func tarred(list []file, date time.Time) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range ordered(list) {
		header := &tar.Header{Name: f.path, Mode: int64(f.mode.Perm()), ModTime: date, Size: int64(len(f.data)), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if f.mode.IsDir() {
			header.Typeflag, header.Name = tar.TypeDir, f.path+"/"
		}
		if owner, ok := owners[f.path]; ok {
			header.Uid, header.Gid = owner, owner
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func zipped(list []file, date time.Time) ([]byte, error) {
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, f := range ordered(list) {
		header := &zip.FileHeader{Name: f.path, Method: zip.Deflate, Modified: date}
		header.SetMode(f.mode)
		entry, err := w.CreateHeader(header)
		if err != nil {
			return nil, err
		}
		if _, err := entry.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func ordered(list []file) []file {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b file) int { return strings.Compare(path.Clean(a.path), path.Clean(b.path)) })
	return list
}

func gzipped(data []byte) []byte {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.DefaultCompression)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic("internal error: compressing in memory: " + err.Error())
	}
	return out.Bytes()
}

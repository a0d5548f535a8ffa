//go:build unix

package main

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestReproducible: a second build of the commit gives the same bytes, from another clone, in
// another directory (with a space in its name), with another umask, time zone and language, and for someone whose Git and Go
// have settings that would change files and binaries.
func TestReproducible(t *testing.T) {
	s := released(t)
	settings := t.TempDir()
	for name, text := range map[string]string{
		"gitconfig":  "[core]\n\tautocrlf = true\n\tattributesFile = " + filepath.Join(settings, "attributes") + "\n[log]\n\tshowSignature = true\n[safe]\n\tdirectory = *\n",
		"attributes": "*.md ident eol=crlf\n",
		"goenv":      "GOEXPERIMENT=jsonv2\nGOAMD64=v3\nGOFLAGS=-tags=nothing\n",
	} {
		if err := os.WriteFile(filepath.Join(settings, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range map[string]string{"GIT_CONFIG_GLOBAL": filepath.Join(settings, "gitconfig"), "GOENV": filepath.Join(settings, "goenv"), "GOFLAGS": "",
		"TZ": "Pacific/Chatham", "LC_ALL": "tr_TR.UTF-8", "LANGUAGE": "tr", "NO_COLOR": "1", "COLUMNS": "40"} {
		t.Setenv(name, value)
	}
	defer syscall.Umask(syscall.Umask(0o077))
	clone := filepath.Join(t.TempDir(), "some where", "else")
	if _, err := command("..", nil, "git", "clone", "--quiet", "--no-hardlinks", ".", clone); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(clone, "cmd", "daypass", "stray.go"), []byte("package main\n\nfunc init() { panic(1) }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "dist")
	if err := run([]string{"-source", clone, "-commit", s.commit, "-out", out, "-platforms", "linux/amd64", "-sign", s.key, "-signers", s.signers, "-builder", "https://example.com/builder"}, io.Discard); err != nil {
		t.Fatal(err)
	}
	first, second := sums(t, s.out), sums(t, out)
	if len(first) < 9 {
		t.Errorf("a release has the files %v, want more", first)
	}
	for file, sum := range first {
		if second[file] != sum {
			t.Errorf("%s differs", file)
		}
		delete(second, file)
	}
	for file := range second {
		t.Errorf("%s is in the second only", file)
	}
}

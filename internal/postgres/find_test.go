package postgres_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/daypass/daypass/internal/postgres"
)

// fakeInstallation makes and returns a directory of programs, in which postgres prints a
// version.
func fakeInstallation(t *testing.T, binDir, version string) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Fatal("the fake programs are shell scripts")
	}
	if err := os.MkdirAll(binDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"initdb", "postgres"} {
		script := fmt.Sprintf("#!/bin/sh\necho '%s (PostgreSQL) %s'\n", name, version)
		if err := os.WriteFile(filepath.Join(binDir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return binDir
}

func TestFindGivenDirectory(t *testing.T) {
	root := openDir(t)
	fakeInstallation(t, filepath.Join(root, "15", "bin"), "15.18 (Debian 15.18-0+deb12u1)")
	fakeInstallation(t, filepath.Join(root, "9", "bin"), "9.6.24")
	fakeInstallation(t, filepath.Join(root, "18", "bin"), "18.4")
	fakeInstallation(t, filepath.Join(root, "18beta", "bin"), "18beta1")
	for _, test := range []struct{ dir, want string }{
		{"", "18.4"}, // the newest of several
		{"15", "15.18"},
		{"15/bin", "15.18"},
		{"18beta", "18beta1"},
	} {
		got, err := postgres.Find(filepath.Join(root, test.dir))
		if err != nil || got.Version != test.want {
			t.Errorf("Find(ROOT/%s) = %q, %v, want %q", test.dir, got.Version, err, test.want)
		}
	}
	for _, dir := range []string{"9", "16", "15/bin/initdb"} {
		if got, err := postgres.Find(filepath.Join(root, dir)); !errors.Is(err, postgres.ErrNotFound) {
			t.Errorf("Find(ROOT/%s) = %+v, %v, want ErrNotFound", dir, got, err)
		}
	}
}

func TestFindPrefersPath(t *testing.T) {
	bin := fakeInstallation(t, filepath.Join(openDir(t), "bin"), "13.1")
	t.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	got, err := postgres.Find("")
	if err != nil || got.BinDir != bin || got.Major != 13 {
		t.Errorf("Find(\"\") = %+v, %v, want version 13.1 in %s", got, err, bin)
	}
}

func TestAllOrdersAndDeduplicates(t *testing.T) {
	root := openDir(t)
	for _, v := range []string{"13.9", "13.23", "18.4", "18beta1", "17rc1", "17.0"} {
		fakeInstallation(t, filepath.Join(root, v, "bin"), v)
	}
	if err := os.Symlink(filepath.Join(root, "13.9"), filepath.Join(root, "same")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, inst := range postgres.All(root, filepath.Join(root, "18.4", "bin"), "", "["+root) {
		got = append(got, inst.Version)
	}
	want := []string{"18.4", "18beta1", "17.0", "17rc1", "13.23", "13.9"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("All() = %v, want %v", got, want)
	}
}

func TestInspectRefuses(t *testing.T) {
	for name, make := range map[string]func(bin string){
		"no programs":   func(string) {},
		"no initdb":     func(bin string) { fakeInstallation(t, bin, "15.1"); os.Remove(filepath.Join(bin, "initdb")) },
		"another thing": func(bin string) { os.Rename(fakeInstallation(t, bin+"x", "(nothing)"), bin) },
		"too old":       func(bin string) { fakeInstallation(t, bin, "12.22") },
		"cannot run": func(bin string) {
			fakeInstallation(t, bin, "15.1")
			os.Chmod(filepath.Join(bin, "postgres"), 0o644)
		},
	} {
		bin := filepath.Join(openDir(t), "bin")
		make(bin)
		if got, err := postgres.Inspect(bin); err == nil {
			t.Errorf("%s: Inspect() = %+v, want an error", name, got)
		}
	}
}

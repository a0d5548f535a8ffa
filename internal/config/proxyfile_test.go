package config

import (
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// TestProxyFileOfOwnGroup: the group of the person's own name may change the file, because new
// files are open to it on many systems. Another group may not.
func TestProxyFileOfOwnGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("NOT CHECKED: it takes root to give a file to another group")
		return
	}
	me, err := user.LookupId("0")
	if err != nil {
		t.Fatal(err)
	}
	own, err := user.LookupGroup(me.Username)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.Atoi(own.Gid)
	if err != nil {
		t.Fatal(err)
	}
	const someone, noGroup = 65533, 65533
	path := filepath.Join(t.TempDir(), "proxy.yaml")
	for _, c := range []struct {
		uid, gid int
		mode     os.FileMode
		refused  bool
	}{
		{0, gid, 0o664, false}, {0, gid, 0o660, false},
		{0, gid, 0o666, true}, {0, noGroup, 0o664, true}, {someone, gid, 0o664, true}, {0, 1, 0o660, true},
	} {
		if err := os.WriteFile(path, []byte("maps:\n  - {listen: 15432, cluster: c, database: dev, user: alice}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Chown(path, c.uid, c.gid), os.Chmod(path, c.mode)); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadProxyMaps(path); (err != nil) != c.refused {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestProxyFile: a file of maps that others can change is refused. One that they can read is not.
// Faults name line and key.
func TestProxyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "proxy.yaml")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	const good = "maps:\n  - {listen: 15432, cluster: c, database: dev, user: alice}\n"
	for mode, want := range map[os.FileMode]string{0o600: "", 0o644: "", 0o602: "changed by others", 0o662: "changed by others"} {
		write(good, mode)
		_, err := LoadProxyMaps(path)
		if runtime.GOOS == "windows" {
			want = ""
		}
		if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("mode %04o: %v, want %q", mode, err, want)
		}
	}
	write("maps:\n  - listen: 15432\n    cluster: c\n    database: dev\n    colour: red\n  - {listen: 0, cluster: c, database: dev}\n", 0o600)
	_, err := LoadProxyMaps(path)
	for _, want := range []string{path + ":5: maps[0].colour: ", path + ":6: maps[1].listen: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
}

package config

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestProxyFile: a file of maps that others can change is refused; one that they can read is not.
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
	for mode, want := range map[os.FileMode]string{0o600: "", 0o644: "", 0o602: "changed by others", 0o660: "changed by its group"} {
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

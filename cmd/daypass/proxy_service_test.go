//go:build unix

package main

import (
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// TestProxyService renders the services, and checks them with the systems' own tools where they
// are installed.
func TestProxyService(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("XDG_CONFIG_HOME", dir)
	t.Setenv("AWS_PROFILE", `a "b" %h $x <&>`)
	t.Setenv("WAYLAND_DISPLAY", "")
	t.Setenv("DISPLAY", "")
	file := filepath.Join(dir, `my "100%" $maps & <more>.yaml`)
	if err := os.WriteFile(file, []byte("maps:\n  - {listen: 15432, cluster: c, database: dev, user: alice}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unit, stderr, code := runDaypass(t, "proxy", "service", "--config", file, "--for", "systemd")
	for _, want := range []string{`ExecStart="` + self + `" proxy --config "` + dir + `/my \"100%%\" $$maps & <more>.yaml"`, `Environment="AWS_PROFILE=a \"b\" %%h $x <&>"`, "WantedBy=default.target"} {
		if code != 0 || !strings.Contains(unit, want) {
			t.Errorf("the unit lacks %s: code %d, %s\n%s", want, code, stderr, unit)
		}
	}
	plist, _, _ := runDaypass(t, "proxy", "service", "--config", file, "--for", "launchd")
	var words struct {
		Dict struct {
			Array []string `xml:"array>string"`
		} `xml:"dict"`
	}
	if err := xml.Unmarshal([]byte(plist), &words); err != nil || !slices.Equal(words.Dict.Array, []string{self, "proxy", "--config", file}) {
		t.Errorf("the plist starts %q, %v:\n%s", words.Dict.Array, err, plist)
	}
	if _, stderr, code := runDaypass(t, "proxy", "service", "--config", filepath.Join(dir, "none.yaml")); code == 0 {
		t.Errorf("a service without maps: code 0, %s", stderr)
	}
	out, stderr, code := runDaypass(t, "proxy", "service", "--config", file, "--for", "systemd", "--install")
	path := filepath.Join(dir, "systemd/user/daypass-proxy.service")
	if written, err := os.ReadFile(path); runtime.GOOS == "linux" && (code != 0 || err != nil || string(written) != unit || !strings.Contains(out, "systemctl --user enable --now daypass-proxy")) {
		t.Errorf("--install: code %d, %v\n%s%s", code, err, out, stderr)
	}
	if verify, err := exec.LookPath("systemd-analyze"); err == nil {
		if out, err := exec.Command("env", "XDG_RUNTIME_DIR="+dir, verify, "--user", "verify", path).CombinedOutput(); err != nil || len(out) > 0 {
			t.Logf("systemd-analyze verify: %v\n%s", err, out)
			if strings.Contains(string(out), "daypass-proxy.service") {
				t.Errorf("systemd does not like the unit:\n%s", unit)
			}
		}
	}
}

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
	for _, name := range []string{"AWS_DEFAULT_PROFILE", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_SIGNIN", "AWS_WEB_IDENTITY_TOKEN_FILE"} {
		t.Setenv(name, "kept")
	}
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN"} {
		t.Setenv(name, "planted")
	}
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
	for _, want := range []string{`ExecStart="` + self + `" proxy --config "` + dir + `/my \"100%%\" $$maps & <more>.yaml"`, `Environment="AWS_PROFILE=a \"b\" %%h $x <&>"`,
		`Environment="AWS_DEFAULT_PROFILE=kept"`, `Environment="AWS_DEFAULT_REGION=kept"`, `Environment="AWS_ENDPOINT_URL_SIGNIN=kept"`, `Environment="AWS_WEB_IDENTITY_TOKEN_FILE=kept"`,
		"Type=notify", "RestartPreventExitStatus=252 253", "WantedBy=default.target"} {
		if code != 0 || !strings.Contains(unit, want) {
			t.Errorf("the unit lacks %s: code %d, %s\n%s", want, code, stderr, unit)
		}
	}
	if strings.Contains(unit, "planted") {
		t.Errorf("a secret is in the unit:\n%s", unit)
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
	none := filepath.Join(dir, "none.yaml")
	if _, stderr, code := runDaypass(t, "proxy", "service", "--config", none); code != 253 || !strings.Contains(stderr, none) || !strings.Contains(stderr, "does not exist") || !strings.Contains(stderr, "--config") {
		t.Errorf("a service without maps: code %d, %s", code, stderr)
	}
	path := filepath.Join(dir, "systemd/user/daypass-proxy.service")
	for range 2 { // the second time the file is there
		out, stderr, code := runDaypass(t, "proxy", "service", "--config", file, "--for", "systemd", "--install")
		written, err := os.ReadFile(path)
		if runtime.GOOS == "linux" && (code != 0 || err != nil || string(written) != unit || !strings.Contains(out, "systemctl --user restart daypass-proxy") || !strings.Contains(out, "systemctl --user disable --now daypass-proxy\n    rm ")) {
			t.Errorf("--install: code %d, %v\n%s%s", code, err, out, stderr)
		}
	}
	verifyUnit(t, path)
	if err := os.WriteFile(path, []byte("[Service]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := runDaypass(t, "proxy", "service", "--config", file, "--for", "systemd", "--install"); runtime.GOOS == "linux" && (code == 0 || !strings.Contains(stderr, "remove it first")) {
		t.Errorf("someone else's unit is replaced: code %d, %s", code, stderr)
	}
}

// verifyUnit asks systemd about a unit of a user, where systemd is installed.
func verifyUnit(t *testing.T, path string) {
	t.Helper()
	verify, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return
	}
	out, err := exec.Command("env", "XDG_RUNTIME_DIR="+t.TempDir(), verify, "--user", "verify", path).CombinedOutput()
	if t.Logf("systemd-analyze verify: %v\n%s", err, out); strings.Contains(string(out), "daypass-proxy.service") {
		t.Errorf("systemd does not like the unit")
	}
}

// strangePaths are paths of a program and of a file of maps. systemd reads specifiers and
// variables, XML has its own characters, and no one has to have a name in ASCII.
var strangePaths = []struct{ program, file string }{
	{"Ana María/daypass", "Ana María/proxy.yaml"},
	{"100%h %%/daypass", "100%h %%/proxy.yaml"},
	{"$HOME ${HOME}/daypass", "$HOME ${HOME} $$/proxy.yaml"},
	{"R&D <tools>/daypass", "R&D <tools> ]]> -- /proxy.yaml"},
	{"Ольга 花子 🐘/daypass", "Ольга 花子 🐘/proxy.yaml"},
	{"; # - @ : + !/daypass", `O'Brien "x" \n \ ; #/proxy.yaml`},
}

// TestProxyServiceStrangePaths: whatever the paths are, a service starts the program with the
// file. systemd is asked, which checks that the program exists.
func TestProxyServiceStrangePaths(t *testing.T) {
	for _, paths := range strangePaths {
		dir := t.TempDir()
		s := &proxyService{Program: filepath.Join(dir, paths.program), File: filepath.Join(dir, paths.file), User: `R&D\Ольга`, home: dir, Log: filepath.Join(dir, "log")}
		if err := os.MkdirAll(filepath.Dir(s.Program), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.Program, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		unit, err := s.render("systemd")
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "daypass-proxy.service")
		if err := os.WriteFile(path, []byte(unit), 0o600); err != nil {
			t.Fatal(err)
		}
		verifyUnit(t, path)

		plist, err := s.render("launchd")
		var agent struct {
			Words []string `xml:"dict>array>string"`
		}
		if err != nil || xml.Unmarshal([]byte(plist), &agent) != nil || !slices.Equal(agent.Words, []string{s.Program, "proxy", "--config", s.File}) {
			t.Errorf("the plist starts %q, %v:\n%s", agent.Words, err, plist)
		}

		task, err := s.render("schtasks")
		if strings.ContainsAny(s.Program+s.File, `"%`) {
			if err == nil {
				t.Errorf("the task scheduler reads %s", task)
			}
			continue
		}
		decoder := xml.NewDecoder(strings.NewReader(strings.Replace(task, ` encoding="UTF-16"`, "", 1)))
		var all struct {
			Logon     string `xml:"Triggers>LogonTrigger>UserId"`
			Command   string `xml:"Actions>Exec>Command"`
			Arguments string `xml:"Actions>Exec>Arguments"`
		}
		if err != nil || decoder.Decode(&all) != nil || all.Command != s.Program || all.Arguments != `proxy --config "`+s.File+`"` || all.Logon != s.User {
			t.Errorf("the task is %+v, %v:\n%s", all, err, task)
		}
	}
	for _, program := range []string{`/home/a"b/daypass`, `/home/O'Brien/daypass`, `/home/a\b/daypass`} {
		if unit, err := (&proxyService{Program: program}).render("systemd"); err == nil || !strings.Contains(err.Error(), program+": systemd starts no program with quotes") {
			t.Errorf("%s: %v\n%s", program, err, unit)
		}
	}
}

// TestProxyServiceGraphical: a service waits for the graphical session only if systemd knows one,
// since it would never start otherwise.
func TestProxyServiceGraphical(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		display, systemctl string
		want               bool
	}{
		{"", "exit 0", false},
		{":0", "exit 0", true},
		{"localhost:10.0", "exit 3", false},
	} {
		t.Setenv("DISPLAY", c.display)
		t.Setenv("WAYLAND_DISPLAY", "")
		t.Setenv("PATH", dir+":/usr/bin:/bin")
		if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte("#!/bin/sh\n"+c.systemctl+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if got := graphicalSession(); got != c.want {
			t.Errorf("DISPLAY %q, systemctl %s: graphicalSession() = %v, want %v", c.display, c.systemctl, got, c.want)
		}
		unit, err := (&proxyService{Program: "/x", Graphical: c.want}).render("systemd")
		if err != nil || strings.Contains(unit, "WantedBy=graphical-session.target") != c.want || strings.Contains(unit, "PartOf=") != c.want {
			t.Errorf("graphical %v: %v\n%s", c.want, err, unit)
		}
	}
}

// TestProxyServiceCommands: the commands to paste quote the paths.
func TestProxyServiceCommands(t *testing.T) {
	s := &proxyService{Log: "/Users/Ana María/Library/Logs/daypass-proxy.log", Variables: []setting{{"AWS_PROFILE", "a b"}}}
	for _, c := range []struct {
		form, path string
		again      bool
		want       string
	}{
		{"systemd", "/home/a b/x.service", false, "rm '/home/a b/x.service'"},
		{"launchd", "/Users/a b/x.plist", false, "launchctl bootstrap gui/$(id -u) '/Users/a b/x.plist'"},
		{"launchd", "/Users/a b/x.plist", true, "launchctl bootout gui/$(id -u)/daypass-proxy\nlaunchctl bootstrap"},
		{"launchd", "/x", true, "tail -f '/Users/Ana María/Library/Logs/daypass-proxy.log'"},
		{"schtasks", `C:\Users\a b\x.xml`, false, `schtasks /Create /F /TN daypass-proxy /XML "C:\Users\a b\x.xml"`},
		{"schtasks", `C:\x.xml`, false, `setx AWS_PROFILE "a b"`},
	} {
		start, remove, err := s.commands(c.form, c.path, c.again)
		if text := strings.Join(append(start, remove...), "\n"); err != nil || !strings.Contains(text, c.want) {
			t.Errorf("the commands for %s lack %s: %v\n%s", c.form, c.want, err, text)
		}
	}
}

// TestTaskFile: the task scheduler's files are UTF-16 with a byte order mark.
func TestTaskFile(t *testing.T) {
	data := utf16File("é🐘")
	if want := []byte{0xff, 0xfe, 0xe9, 0, 0x3d, 0xd8, 0x18, 0xdc}; !slices.Equal(data, want) {
		t.Errorf("utf16File = % x, want % x", data, want)
	}
}

package proxy_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/proxy"
	"github.com/daypass/daypass/test/pgtest"
)

// start returns a Proxy for one user with one map, which must not be asked for a credential.
func start(t *testing.T, m *proxy.Map, owner int) (*proxy.Proxy, *pgtest.Log) {
	t.Helper()
	log := &pgtest.Log{}
	p := proxy.New(slog.New(slog.NewTextHandler(log, nil)))
	p.SetOwner(owner)
	t.Cleanup(func() { p.Close(t.Context()) })
	m.Name, m.Database = "c/dev as alice", "dev"
	m.Open = func(context.Context, string) (*proxy.Logon, error) {
		t.Error("a credential was asked for")
		return nil, context.Canceled
	}
	if err := p.Apply([]*proxy.Map{m}); err != nil {
		t.Fatal(err)
	}
	return p, log
}

// startUp is a start-up message for the database dev.
const startUp = "\x00\x00\x00\x20\x00\x03\x00\x00user\x00alice\x00database\x00dev\x00\x00"

// TestOnlyItsOwnUser: another user's connection is closed before anything is read.
func TestOnlyItsOwnUser(t *testing.T) {
	if !proxy.CheckUnix {
		t.Skip("this system does not tell whose a connection is")
	}
	socket := &proxy.Map{Port: 5432, Directory: shortDir(t)}
	maps := map[string]*proxy.Map{socket.Socket(): socket}
	if proxy.CheckTCP {
		port := free(t)
		maps["127.0.0.1:"+strconv.Itoa(port)] = &proxy.Map{Port: port}
	}
	for address, m := range maps {
		p, log := start(t, m, os.Getuid()+1)
		network := "tcp"
		if m.Directory != "" {
			network = "unix"
		}
		conn, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, startUp)
		answer, _ := io.ReadAll(conn)
		conn.Close()
		p.Close(t.Context())
		if len(answer) != 0 || !strings.Contains(log.String(), "the connection is of user "+strconv.Itoa(os.Getuid())) {
			t.Errorf("%s: the answer is %q; the log:\n%s", address, answer, log)
		}
	}
}

// TestLinesAboutOthers: another user cannot fill the disk with log lines.
func TestLinesAboutOthers(t *testing.T) {
	if !proxy.CheckUnix {
		t.Skip("this system does not tell whose a connection is")
	}
	m := &proxy.Map{Port: 5432, Directory: shortDir(t)}
	p, log := start(t, m, os.Getuid()+1)
	for range 100 {
		conn, err := net.Dial("unix", m.Socket())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadAll(conn)
		conn.Close()
	}
	p.Close(t.Context())
	if lines := strings.Count(log.String(), "refused"); lines == 0 || lines > 30 {
		t.Errorf("the log has %d lines about 100 connections:\n%s", lines, log)
	}
}

// TestAnotherUsersProcess connects as another user of the machine.
func TestAnotherUsersProcess(t *testing.T) {
	if os.Getuid() != 0 || runtime.GOOS != "linux" {
		t.Skip("NOT TESTED: only root can start a process of another user")
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("NOT TESTED: setpriv is not installed")
	}
	port := free(t)
	p, log := start(t, &proxy.Map{Port: port}, os.Getuid())
	out, err := exec.Command(setpriv, "--reuid=65534", "--clear-groups", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/"+strconv.Itoa(port)+"; head -c 1 <&3").CombinedOutput()
	p.Close(t.Context())
	if !strings.Contains(log.String(), "the connection is of user 65534, and only user 0 may connect") {
		t.Errorf("%v, %q; the log:\n%s", err, out, log)
	}
}

// TestSocketDirectory: a directory that lets other users in is refused, and so is one with a path
// that is too long.
func TestSocketDirectory(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there are no Unix sockets here")
	}
	open := shortDir(t)
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(shortDir(t), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	taken := shortDir(t)
	if err := os.WriteFile(filepath.Join(taken, ".s.PGSQL.5432"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		open: "lets other users in", filepath.Join(open, strings.Repeat("x", 100)): "choose a shorter directory",
		file: "not a directory", taken: "is not a socket",
	} {
		p := proxy.New(slog.New(slog.DiscardHandler))
		err := p.Apply([]*proxy.Map{{Name: "m", Port: 5432, Directory: dir}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", dir, err, want)
		}
		p.Close(t.Context())
	}
	// The socket of a killed process is replaced; that of a running process is not.
	dir := shortDir(t)
	path := filepath.Join(dir, ".s.PGSQL.5432")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	p := proxy.New(slog.New(slog.DiscardHandler))
	defer p.Close(t.Context())
	if err := p.Apply([]*proxy.Map{{Name: "m", Port: 5432, Directory: dir}}); err == nil || !strings.Contains(err.Error(), "is in use") {
		t.Errorf("a socket that is in use: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if err := p.Apply([]*proxy.Map{{Name: "m", Port: 5432, Directory: dir}}); err != nil {
		t.Errorf("a socket that was left: %v", err)
	}
}

// TestWayToTheSocket: a directory is refused if another user owns, or can write to, a link or a
// directory on the way to it. That user could replace the directory, and clients would connect to a
// socket of that user.
func TestWayToTheSocket(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there are no Unix sockets here")
	}
	at := func(elements ...string) string { return filepath.Join(elements...) }
	top := shortDir(t)
	for _, dir := range []string{"mine", "open", "open/mine", "sticky", "sticky/mine", "group", "group/mine"} {
		if err := os.Mkdir(at(top, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for dir, mode := range map[string]os.FileMode{"open": 0o777, "sticky": 0o777 | os.ModeSticky, "group": 0o770} {
		if err := os.Chmod(at(top, dir), mode); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"good": "mine", "bad": "open/mine", "open/link": top + "/mine", "chain": "open/link", "loop": "loop", "foreign": "mine"} {
		if err := os.Symlink(to, at(top, link)); err != nil {
			t.Fatal(err)
		}
	}
	rows := map[string]string{"mine": "", "good": "", "sticky/mine": "", "open/mine": "other users can replace", "bad": "other users can replace",
		"open/link": "other users can replace", "chain": "other users can replace"}
	if os.Getuid() == 0 {
		if err := os.Lchown(at(top, "foreign"), 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(at(top, "group"), 0, 65534); err != nil {
			t.Fatal(err)
		}
		rows["foreign"], rows["group/mine"] = "belongs to another user", "other users can replace"
	} else {
		t.Log("NOT TESTED: only root can make what belongs to another user")
	}
	for dir, want := range rows {
		p := proxy.New(slog.New(slog.DiscardHandler))
		err := p.Apply([]*proxy.Map{{Name: "m", Port: 5432, Directory: at(top, dir)}})
		p.Close(t.Context())
		if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", dir, err, want)
		}
	}
}

// shortDir returns a directory with a path that is short enough for a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func free(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daypass/daypass/test/pgtest"
)

// serviceManager receives what processes send to NOTIFY_SOCKET.
func serviceManager(t *testing.T) (socket string, next func() string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket = filepath.Join(dir, "socket")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return socket, func() string {
		t.Helper()
		buf := make([]byte, 4096)
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("waiting for the service manager's message: %v", err)
		}
		return string(buf[:n])
	}
}

// startSupervised runs daypass as a service manager does.
func startSupervised(t *testing.T, socket string, args ...string) (*exec.Cmd, *pgtest.Log) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	cmd := exec.CommandContext(ctx, "daypass", args...)
	log := &pgtest.Log{}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	return cmd, log
}

// TestServeTellsServiceManager: the server is ready once both listeners serve, and says how long
// it takes to stop.
func TestServeTellsServiceManager(t *testing.T) {
	socket, next := serviceManager(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "daypass.yaml")
	text := "account: \"123456789012\"\nregion: us-east-1\ndata: " + filepath.Join(dir, "data") +
		"\napi: {listen: \"127.0.0.1:0\"}\ngateway: {listen: \"127.0.0.1:0\"}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, log := startSupervised(t, socket, "serve", "--config", file, "--drain", "10m", "--shutdown-delay", "1s")
	var api, gateway, status string
	if got := next(); !strings.HasPrefix(got, "READY=1\nSTATUS=") {
		t.Fatalf("the first message is %q\n%s", got, log)
	} else if n, err := fmt.Sscanf(got, "READY=1\nSTATUS=API http://%s gateway %s", &api, &gateway); n != 2 {
		t.Fatalf("the status is %q: %v", got, err)
	} else {
		_, status, _ = strings.Cut(got, "\n")
	}
	for _, address := range []string{strings.TrimSuffix(api, ","), gateway} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatalf("it is ready and does not serve: %v", err)
		}
		conn.Close()
	}
	last := status
	expect := func(when, want string) {
		t.Helper()
		got := next()
		for got == last && got != want { // a file that was refused is tried again every few seconds
			got = next()
		}
		if got != want {
			t.Errorf("%s the message is %q, want %q\n%s", when, got, want, log)
		}
		last = want
	}
	for _, change := range []struct{ text, want string }{
		{strings.Replace(text, "account", "acount", 1), "STATUS=A changed configuration was refused: " + file + ":1: acount: is not a key of the configuration"},
		{text, status},
	} {
		if err := os.WriteFile(file, []byte(change.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Process.Signal(syscall.SIGHUP)
		expect("after a reload", change.want)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	expect("at the end", "STOPPING=1\nEXTEND_TIMEOUT_USEC=616000000")
}

// TestProxyTellsServiceManager: the proxy is ready once its ports listen; one whose port is in
// use never is.
func TestProxyTellsServiceManager(t *testing.T) {
	socket, next := serviceManager(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	refused, log := startSupervised(t, socket, "proxy", "--map", fmt.Sprintf("%d=c/dev,user=alice", taken.Addr().(*net.TCPAddr).Port))
	if err := refused.Wait(); err == nil || !strings.Contains(log.String(), "is in use") {
		t.Fatalf("with a port that is in use: %v\n%s", err, log)
	}
	sockets, err := os.MkdirTemp("", "proxy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sockets) })
	cmd, log := startSupervised(t, socket, "proxy", "--unix-socket", sockets, "--map", "5432=c/dev,user=alice")
	if got := next(); got != "READY=1" {
		t.Fatalf("the first message is %q\n%s", got, log)
	}
	conn, err := net.Dial("unix", filepath.Join(sockets, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatalf("it is ready and does not listen: %v", err)
	}
	conn.Close()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if got := next(); got != "STOPPING=1" {
		t.Errorf("the message at the end is %q\n%s", got, log)
	}
}

// TestJournalPriorities: an error at the start has a priority on each of its lines if standard
// error is the journal, which JOURNAL_STREAM names by device and inode.
func TestJournalPriorities(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "daypass.yaml")
	if err := os.WriteFile(file, []byte("acount: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, ours := range []bool{false, true} {
		stream, err := os.Create(filepath.Join(dir, fmt.Sprint("stream", ours)))
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		info, err := stream.Stat()
		if err != nil {
			t.Fatal(err)
		}
		stat := info.Sys().(*syscall.Stat_t)
		inode := stat.Ino
		if !ours {
			inode++
		}
		cmd := exec.Command("daypass", "serve", "--config", file)
		cmd.Env = append(os.Environ(), fmt.Sprintf("JOURNAL_STREAM=%d:%d", stat.Dev, inode))
		cmd.Stderr = stream
		if err := cmd.Run(); err == nil {
			t.Fatal("a faulty file is taken")
		}
		text, err := os.ReadFile(stream.Name())
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		for _, line := range lines {
			if strings.HasPrefix(line, "<3>") != ours || len(lines) < 2 {
				t.Errorf("JOURNAL_STREAM is ours: %v, and the lines are\n%s", ours, text)
			}
		}
	}
}

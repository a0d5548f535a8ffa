package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/daypass/daypass/internal/quote"
)

// onTerminal runs the real program with a terminal of so many columns as its standard
// output and error, and returns what arrives there.
func onTerminal(t *testing.T, columns uint16, args ...string) string {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	// Fd would make reads block for good.
	conn, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	_ = conn.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			if number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN); err == nil {
				err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns})
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("daypass", args...)
	cmd.Stdout, cmd.Stderr = terminal, terminal
	err = cmd.Start()
	terminal.Close()
	if err != nil {
		t.Fatal(err)
	}
	data, _ := io.ReadAll(master) // ends with EIO when the terminal is closed
	_ = cmd.Wait()
	return strings.ReplaceAll(string(data), "\r\n", "\n")
}

// TestTerminal: whatever a server has in its answers, no output format brings it to a
// terminal raw, and JSON keeps its value. A pipe gets the exact bytes.
func TestTerminal(t *testing.T) {
	const name = "d\u009b2J\u202ev ö 日本"
	s := newAPIStub(t, "db.example.com")
	s.answers = map[string]string{"DBName": name}
	for _, format := range []string{"json", "text", "table", "yaml"} {
		args := []string{"redshift", "describe-clusters", "--output", format, "--color", "off", "--query", "Clusters[].DBName"}
		seen := onTerminal(t, 80, args...)
		if quote.TerminalText(seen) != seen || !strings.Contains(seen, "ö 日本") {
			t.Errorf("--output %s shows %q", format, seen)
		}
		if format == "json" {
			var got []string
			if err := json.Unmarshal([]byte(seen), &got); err != nil || len(got) != 1 || got[0] != name {
				t.Errorf("--output json shows %s, which is %q, %v", seen, got, err)
			}
		}
		piped, stderr, code := runDaypass(t, args...)
		if code != 0 || format != "yaml" && !strings.Contains(piped, name) {
			t.Errorf("--output %s pipes %q, %s", format, piped, stderr)
		}
	}
}

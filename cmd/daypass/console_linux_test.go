package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daypass/daypass/internal/quote"

	"github.com/daypass/daypass/test/pgtest"
)

// onTerminal runs the real program with its standard output and error on a terminal of the given
// width, and returns the output.
func onTerminal(t *testing.T, columns uint16, args ...string) string {
	t.Helper()
	seen, _ := onTerminalWith(t, columns, "", "", args...)
	return seen
}

// onTerminalWith also types a line once the prompt is shown.
func onTerminalWith(t *testing.T, columns uint16, prompt, line string, args ...string) (seen string, code int) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	// Fd would make reads block forever.
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
	ctx, cancel := context.WithTimeout(t.Context(), commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "daypass", args...)
	cmd.Stdout, cmd.Stderr = terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 1} // its standard output
	err = cmd.Start()
	terminal.Close()
	if err != nil {
		t.Fatal(err)
	}
	var data bytes.Buffer
	for buffer := make([]byte, 4096); err == nil; { // until EIO, when the terminal is closed
		var n int
		n, err = master.Read(buffer)
		data.Write(buffer[:n])
		if prompt != "" && bytes.HasSuffix(data.Bytes(), []byte(prompt)) {
			// The program turns the echo off after it prints the prompt.
			pgtest.Eventually(t, "the terminal shows no input", func() (hidden bool) {
				_ = conn.Control(func(fd uintptr) {
					state, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
					hidden = err != nil || state.Lflag&unix.ECHO == 0
				})
				return hidden
			})
			prompt = ""
			if _, err := io.WriteString(master, line); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait()
	if ctx.Err() != nil {
		t.Errorf("daypass %s did not end within %v", strings.Join(args, " "), commandTime)
	}
	return strings.ReplaceAll(data.String(), "\r\n", "\n"), cmd.ProcessState.ExitCode()
}

// TestMFACodeIsAskedFor: as with the AWS CLI, the code for a profile with mfa_serial is typed at
// the terminal, and not shown. Ctrl-C cancels the prompt.
func TestMFACodeIsAskedFor(t *testing.T) {
	var mu sync.Mutex
	var codes []string // guarded by mu
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		action, result := r.PostFormValue("Action"), "<Clusters/>"
		if action == "AssumeRole" {
			mu.Lock()
			codes = append(codes, r.PostFormValue("SerialNumber")+" "+r.PostFormValue("TokenCode"))
			mu.Unlock()
			result = `<Credentials><AccessKeyId>ASIAIOSFODNN7EXAMPLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey>
				<SessionToken>t</SessionToken><Expiration>` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `</Expiration></Credentials>
				<AssumedRoleUser><Arn>a</Arn><AssumedRoleId>i</AssumedRoleId></AssumedRoleUser>`
		}
		fmt.Fprintf(w, "<%[1]sResponse><%[1]sResult>%[2]s</%[1]sResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></%[1]sResponse>", action, result)
	}))
	t.Cleanup(server.Close)
	const serial = "arn:aws:iam::123456789012:mfa/ana"
	awsSettings(t, "[profile base]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = secret\n"+
		"[profile etl]\nrole_arn = arn:aws:iam::123456789012:role/etl\nsource_profile = base\nmfa_serial = "+serial+"\nregion = us-east-1\nendpoint_url = "+server.URL+"\n", nil)
	for _, command := range [][]string{{"sessions"}, {"revoke", "list"}, {"redshift", "describe-clusters"}} {
		seen, code := onTerminalWith(t, 80, "Enter MFA code for "+serial+": ", "123456\n", append(command, "--profile", "etl")...)
		mu.Lock()
		if code != 0 || len(codes) != 1 || codes[0] != serial+" 123456" || strings.Contains(seen, "123456\n") {
			t.Errorf("daypass %v = %d, codes %q\n%s", command, code, codes, seen)
		}
		codes = nil
		mu.Unlock()
	}
	seen, code := onTerminalWith(t, 80, "Enter MFA code for "+serial+": ", "\x03", "sessions", "--profile", "etl")
	mu.Lock()
	defer mu.Unlock()
	if code != 130 || len(codes) != 0 {
		t.Errorf("after Ctrl-C: %d, codes %q\n%s", code, codes, seen)
	}
	// Without a terminal the program cannot ask for the code.
	cmd := exec.Command("daypass", "sessions", "--profile", "etl")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 253 || !strings.Contains(string(out), "no terminal to ask") || !strings.Contains(string(out), serial) {
		t.Errorf("without a terminal: %d %s", cmd.ProcessState.ExitCode(), out)
	}
}

// TestTerminal: no output format prints a server's control characters on a terminal, and JSON
// keeps the values. A pipe gets the exact bytes.
func TestTerminal(t *testing.T) {
	const name = "d\u009b2J\u202ev ö 日本"
	s := newAPIStub(t, "db.example.com")
	s.mu.Lock()
	s.answers = map[string]string{"DBName": name}
	s.mu.Unlock()
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
		if shown := onTerminal(t, 80, "redshift", "describe-clusters", "--output", format, "--query", "Clusters[].DBName"); strings.Contains(shown, "\x1b[2J") || strings.Contains(shown, "\u009b") || strings.Contains(shown, "\x1b[") != (format == "table") {
			t.Errorf("--output %s with colours shows %q", format, shown)
		}
		piped, stderr, code := runDaypass(t, args...)
		if code != 0 || format != "yaml" && !strings.Contains(piped, name) {
			t.Errorf("--output %s pipes %q, %s", format, piped, stderr)
		}
	}
}

// TestColours: only a terminal gets colours, and only without NO_COLOR.
func TestColours(t *testing.T) {
	newAPIStub(t, "db.example.com")
	t.Setenv("TERM", "xterm")
	for _, row := range []struct {
		noColor string
		want    bool
	}{{"", true}, {"1", false}} {
		t.Setenv("NO_COLOR", row.noColor)
		for _, args := range [][]string{{"bogus"}, {"connect", "--help"}, {"redshift", "describe-clusters", "--output", "table"}} {
			if seen := onTerminal(t, 80, args...); strings.Contains(seen, "\x1b[") != row.want {
				t.Errorf("NO_COLOR=%s: daypass %v shows %q", row.noColor, args, seen)
			}
		}
	}
	t.Setenv("NO_COLOR", "")
	if stdout, stderr, _ := runDaypass(t, "bogus"); strings.Contains(stdout+stderr, "\x1b") {
		t.Errorf("without a terminal: %q %q", stdout, stderr)
	}
	// Errors are wrapped between words.
	for line := range strings.SplitSeq(onTerminal(t, 40, "connect", "c", "--user", "u", "--print", "xml"), "\n") {
		if len(strings.NewReplacer("\x1b[31m", "", "\x1b[0m", "").Replace(line)) > 40 {
			t.Errorf("in 40 columns, an error has the line %q", line)
		}
	}
}

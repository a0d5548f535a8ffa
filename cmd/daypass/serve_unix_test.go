//go:build unix

package main

import (
	"bufio"
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

// TestSecondSignal: after the first signal the server waits for running work, after the second
// it does not.
func TestSecondSignal(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			dir := t.TempDir()
			config := filepath.Join(dir, "daypass.yaml")
			text := "account: \"123456789012\"\nregion: us-east-1\ndata: " + filepath.Join(dir, "data") +
				"\napi: {listen: \"127.0.0.1:0\"}\ngateway: {listen: \"127.0.0.1:0\"}\n"
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("daypass", "serve", "--config", config, "--drain", "10m")
			log := &pgtest.Log{}
			cmd.Stderr = log
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			defer func() { _ = cmd.Process.Kill() }()
			says := func(text string) string {
				t.Helper()
				var rest string
				pgtest.Eventually(t, "the log has "+text, func() (found bool) {
					_, rest, found = strings.Cut(log.String(), text)
					return found
				}, log)
				return rest
			}
			api, _, _ := strings.Cut(says("api=http://"), " ")
			conn, err := net.Dial("tcp", api) // a call that does not finish
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// The server requests the body once the call has begun.
			fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n")
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			if line, err := bufio.NewReader(conn).ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 100") {
				t.Fatalf("the call has not begun: %q, %v", line, err)
			}
			_ = cmd.Process.Signal(signal)
			says("shutting down")
			select {
			case err := <-done:
				t.Fatalf("the first signal ended the server: %v\n%s", err, log)
			case <-time.After(100 * time.Millisecond):
			}
			_ = cmd.Process.Signal(signal)
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("the server ended with %v\n%s", err, log)
				}
			case <-time.After(time.Minute):
				t.Errorf("the second signal did not end the server:\n%s", log)
			}
		})
	}
}

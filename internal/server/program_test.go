//go:build unix

package server

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daypass/daypass/test/pgtest"
)

// TestRootCommandEnds: when the program that prints the root key is ended, so are the programs that
// it has started.
func TestRootCommandEnds(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := runRootCommand(ctx, []string{"sh", "-c", `sh -c 'echo $$ > "$0".new && mv "$0".new "$0"; sleep 600; :' "$0"; :`, file})
		done <- err
	}()
	var child int
	pgtest.Eventually(t, "the program to start another one", func() bool {
		text, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		child, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil
	})
	t.Cleanup(func() { _ = unix.Kill(child, unix.SIGKILL) })
	began := time.Now()
	cancel()
	if err := <-done; err == nil {
		t.Error("a program that was ended is believed")
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %v", took)
	}
	pgtest.Eventually(t, "what it started to end", func() bool {
		if err := unix.Kill(child, 0); err != nil {
			return errors.Is(err, unix.ESRCH)
		}
		state, err := os.ReadFile("/proc/" + strconv.Itoa(child) + "/stat") // it may be a zombie, because this process is not its parent
		return err == nil && strings.Contains(string(state), ") Z ")
	})
}

// TestRootCommandIsReadLate: the end of the output may come a while after the end of the program, as
// on a busy machine. Here another program keeps the pipe open.
func TestRootCommandIsReadLate(t *testing.T) {
	t.Parallel() // the test mostly waits
	if _, err := runRootCommand(t.Context(), []string{"sh", "-c", "echo " + testRootKey + "; sleep 1.5 &"}); err != nil {
		t.Error(err)
	}
}

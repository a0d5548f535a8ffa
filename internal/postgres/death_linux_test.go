package postgres_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/daypass/daypass/internal/postgres"

	"github.com/daypass/daypass/test/envtest"
	"github.com/daypass/daypass/test/pgtest"
)

// TestMain lets the test binary act as the parent process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("DAYPASS_TEST_PARENT"); dir != "" {
		parent(dir)
	}
	envtest.Clear()
	syscall.Umask(0o022) // the account that PostgreSQL runs as has to reach what the tests make
	os.Exit(m.Run())
}

// parent starts a server, prints where it is, and waits to be killed.
func parent(dir string) {
	inst, err := postgres.FindOrFetch(context.Background(), "", postgres.FetchConfig{}, func(line string) { fmt.Fprintln(os.Stderr, line) })
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	s, err := postgres.Start(context.Background(), inst, postgres.Options{Dir: dir})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Printf("127.0.0.1:%d\n", s.Port())
	select {}
}

func TestServerDiesWithItsParent(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "DAYPASS_TEST_PARENT="+openDir(t))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the parent said %q: %v", line, err)
	}
	addr := strings.TrimSpace(line)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatalf("the parent said %q: %v", addr, err)
	}
	conn.Close()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	pgtest.Eventually(t, "the server ends with its parent, which was killed", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
}

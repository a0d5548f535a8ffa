//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestConnectStartsPsql starts the real program with a fake psql, which reports its arguments
// and environment.
func TestConnectStartsPsql(t *testing.T) {
	newAPIStub(t, "127.0.0.1")
	dir := t.TempDir()
	psql := filepath.Join(dir, "psql")
	script := "#!/bin/sh\nenv | grep '^PG' | sort\nfor arg in \"$@\"; do echo \"arg <$arg>\"; done\nread -r line; echo \"read <$line>\"\ntr '\\0' '\\n' < /proc/$$/cmdline 2>/dev/null | grep -c 'p.a:s' \nexit 7\n"
	if err := os.WriteFile(psql, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	t.Setenv("PGHOSTADDR", "192.0.2.1")
	t.Setenv("PGSERVICE", "elsewhere")
	t.Setenv("PGUSER", "nobody")
	t.Setenv("PGAPPNAME", "kept")
	t.Setenv("PGSSLMODE", "disable")
	t.Setenv("PGGSSENCMODE", "prefer")
	t.Setenv("PGGSSDELEGATION", "1")
	t.Setenv("PGSSLMINPROTOCOLVERSION", "TLSv1")
	t.Setenv("PGSSLMAXPROTOCOLVERSION", "TLSv1.3")
	cmd := exec.Command("daypass", "connect", "c", "prod", "--user", "alice", "--port", "5441", "--", "-c", "SELECT 'a b'", "--", "")
	cmd.Stdin = strings.NewReader("typed\n")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("daypass connect ended with %v, want psql's exit status 7", err)
	}
	for _, want := range []string{
		"PGHOST=127.0.0.1\n", "PGPORT=5441\n", "PGDATABASE=prod\n", "PGUSER=IAMA:alice\n", "PGPASSWORD=" + oddPassword + "\n", "PGSSLMODE=require\n", "PGAPPNAME=kept\n", "PGGSSENCMODE=disable\n", "PGSSLMAXPROTOCOLVERSION=TLSv1.3\n",
		"arg <-c>\narg <SELECT 'a b'>\narg <-->\narg <>\n", "read <typed>\n",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("psql saw\n%s\nwant it to see %s", out, want)
		}
	}
	if !strings.Contains(stderr.String(), "PGSSLMODE=disable is weaker than require") {
		t.Errorf("daypass connect says %q", stderr.String())
	}
	for _, unwanted := range []string{"PGHOSTADDR", "PGSERVICE", "nobody", "PGGSSDELEGATION", "PGSSLMINPROTOCOLVERSION"} {
		if strings.Contains(string(out), unwanted) {
			t.Errorf("psql saw %s:\n%s", unwanted, out)
		}
	}
	if runtime.GOOS == "linux" && !strings.HasSuffix(strings.TrimSpace(string(out)), "\n0") {
		t.Errorf("the password stands in psql's arguments:\n%s", out)
	}
}

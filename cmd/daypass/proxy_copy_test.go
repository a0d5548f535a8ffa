//go:build unix

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// copyThroughProxy copies a table in and out, with pgx and with psql. It is larger than all buffers
// on the way.
func (s *clientSite) copyThroughProxy(t *testing.T, uri string) {
	t.Helper()
	conn := connectTo(t, uri)
	if _, err := conn.Exec(t.Context(), "CREATE TEMP TABLE copied (n int, text text)"); err != nil {
		t.Fatal(err)
	}
	const rows = 20_000
	long := strings.Repeat("x", 100)
	n, err := conn.CopyFrom(t.Context(), pgx.Identifier{"copied"}, []string{"n", "text"}, pgx.CopyFromSlice(rows, func(i int) ([]any, error) {
		return []any{int32(i), long}, nil
	}))
	if err != nil || n != rows {
		t.Fatalf("COPY FROM of pgx: %d rows, %v", n, err)
	}
	var out, want bytes.Buffer
	if _, err := conn.PgConn().CopyTo(t.Context(), &out, "COPY (SELECT * FROM copied ORDER BY n) TO STDOUT"); err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		fmt.Fprintf(&want, "%d\t%s\n", i, long)
	}
	if !bytes.Equal(out.Bytes(), want.Bytes()) {
		t.Errorf("COPY TO of pgx: %d bytes, want %d", out.Len(), want.Len())
	}
	in, back := filepath.Join(t.TempDir(), "in"), filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(in, want.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.run(t, nil, s.psql, "-XAtq", "-v", "ON_ERROR_STOP=1", uri, "-c", "CREATE TEMP TABLE copied (n int, text text)", "-c", "\\copy copied FROM '"+in+"'", "-c", "\\copy copied TO '"+back+"'"); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("\\copy of psql: %d bytes, want %d, %v", len(got), want.Len(), err)
	}
}

// testProxySignInElsewhere: a connection waits for a browser that no one looks at, and goes on when
// the person signs in with `daypass login`.
func (s *clientSite) testProxySignInElsewhere(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		missing(t, "curl", "apt-get install curl")
	}
	t.Setenv("AWS_LOGIN_CACHE_DIRECTORY", t.TempDir())
	opened, unseen := filepath.Join(t.TempDir(), "opened"), filepath.Join(s.home, "unseen")
	if err := os.WriteFile(unseen, []byte("#!/bin/sh\n: > '"+opened+"'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	signing := os.Getenv("BROWSER")
	t.Setenv("BROWSER", unseen)
	port := freePort(t)
	startProxy(t, "--map", port+"=examplecluster/dev,user=alice,profile=work")
	waiting := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 2*commandTime)
		defer cancel()
		conn, err := pgx.Connect(ctx, uriOf(port, "dev"))
		if err == nil {
			conn.Close(ctx)
		}
		waiting <- err
	}()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(opened); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the browser was not opened")
		}
	}
	t.Setenv("BROWSER", signing)
	if _, stderr, code := runDaypass(t, "login", "--profile", "work"); code != 0 {
		t.Fatalf("daypass login = %d\n%s", code, stderr)
	}
	if err := <-waiting; err != nil {
		t.Errorf("the connection that waits: %v", err)
	}
}

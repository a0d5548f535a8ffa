package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/test/pgtest"
)

// devRun is a `daypass dev` in this process.
type devRun struct {
	t      *testing.T
	stop   context.CancelFunc
	code   chan int
	stderr *pgtest.Log
	lines  []string // the output up to the last complete line
}

// startDev runs `daypass dev` on free ports and returns when it is ready.
func startDev(t *testing.T, args ...string) *devRun {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	r := &devRun{t: t, stop: stop, code: make(chan int, 1), stderr: &pgtest.Log{}}
	out, stdout := io.Pipe()
	go func() {
		args := append([]string{"dev", "--api-listen", "127.0.0.1:0", "--gateway-listen", "127.0.0.1:0", "--provider-listen", "127.0.0.1:0"}, args...)
		r.code <- run(ctx, args, environment{stdin: strings.NewReader(""), stdout: stdout, stderr: r.stderr, now: time.Now})
		stdout.Close()
	}()
	t.Cleanup(func() { r.end() })
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		r.lines = append(r.lines, scanner.Text())
		if strings.HasPrefix(scanner.Text(), "Ctrl-C") {
			go io.Copy(io.Discard, out)
			return r
		}
	}
	t.Fatalf("daypass dev did not get ready: %q\n%s", r.lines, r.stderr)
	return nil
}

// end does what Ctrl-C does, and checks that the command ended without an error.
func (r *devRun) end() {
	r.t.Helper()
	if r.stop == nil {
		return
	}
	r.stop()
	r.stop = nil
	select {
	case code := <-r.code:
		if code != 0 {
			r.t.Errorf("daypass dev: exit code %d\n%s", code, r.stderr)
		}
	case <-time.After(2 * time.Minute):
		r.t.Error("daypass dev still runs two minutes after it was told to stop")
	}
}

// commands returns the printed command lines, which people paste into a shell.
func (r *devRun) commands() []string {
	var commands []string
	for _, line := range r.lines {
		if command, ok := strings.CutPrefix(line, "  "); ok {
			commands = append(commands, command)
		}
	}
	return commands
}

// find returns the submatch of the first line that the pattern matches.
func (r *devRun) find(pattern string) string {
	r.t.Helper()
	for _, line := range r.lines {
		if m := regexp.MustCompile(pattern).FindStringSubmatch(line); m != nil {
			return m[1]
		}
	}
	r.t.Fatalf("no line matches %s in %q", pattern, r.lines)
	return ""
}

func TestDevOnce(t *testing.T) {
	check := cleanTemp(t)
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"dev", "--once", "--api-listen", "127.0.0.1:0", "--gateway-listen", "127.0.0.1:0", "--provider-listen", "127.0.0.1:0"},
		environment{stdout: &stdout, stderr: &stderr, now: time.Now})
	if code != 0 {
		t.Fatalf("daypass dev --once: exit code %d\n%s\n%s", code, stdout.String(), stderr.String())
	}
	text := stdout.String()
	for _, want := range []string{
		"\nReady in ", "IAM:alice:analysts | IAM:alice:analysts\n", "north | 64.40\n", " alice | IAM:alice\n", "alice | sold the samovar\n",
		"permission denied for table sales (SQLSTATE 42501)", " ana | IAM:ana\n",
		"AccessDenied: User: arn:aws:iam::123456789012:user/ana is not authorized to perform: redshift:JoinGroup",
		"statement FinanceIsForOthers of daypass.yaml iam.users[0].policies[0] decided",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the transcript lacks %q", want)
		}
	}
	if strings.Contains(text, "bob |") || strings.Contains(text, "WRONG") {
		t.Errorf("the transcript has what it should not:\n%s", text)
	}
	if stderr.Len() > 0 {
		t.Errorf("stderr: %s", stderr.String())
	}
	check()
}

// cleanTemp gives the test its own temporary directory; check fails unless the directory is
// empty.
func cleanTemp(t *testing.T) (check func()) {
	t.Helper()
	dir := openDir(t)
	t.Setenv("TMPDIR", dir)
	return func() {
		t.Helper()
		left, err := os.ReadDir(dir)
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

// TestDevPaste pastes the output of dev into a shell that has other AWS settings and another
// working directory.
func TestDevPaste(t *testing.T) {
	dev := startDev(t)
	commands := dev.commands()
	var setup, psql, refusal, why, connect string
	var operator []string
	for _, c := range commands {
		switch {
		case strings.HasPrefix(c, "export "), strings.HasPrefix(c, "unset "):
			setup += c + "\n"
		case strings.HasPrefix(c, "PGPASSWORD="):
			psql = c
		case strings.Contains(c, " connect "):
			connect = c
		case strings.Contains(c, "--db-groups finance"):
			refusal = c
		case strings.Contains(c, " explain "):
			why = c
		case strings.Contains(c, "--profile operator"):
			operator = append(operator, c)
		}
	}
	for _, tool := range []string{"aws", "psql", "sh"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, tool, "apt-get install awscli postgresql-client")
		}
	}
	paste := func(command string) (string, error) {
		sh := exec.CommandContext(t.Context(), "sh", "-c", setup+command)
		sh.Dir = t.TempDir()
		sh.Env = append(os.Environ(), "AWS_SESSION_TOKEN=stale", "AWS_SECURITY_TOKEN=staler", "AWS_CREDENTIAL_EXPIRATION=2001-02-03T04:05:06Z",
			"AWS_PROFILE=nobody", "AWS_DEFAULT_PROFILE=gone", "AWS_ACCESS_KEY_ID=AKIAOTHER", "AWS_DEFAULT_REGION=eu-west-1",
			"AWS_CONFIG_FILE="+filepath.Join(sh.Dir, "none"), "AWS_SHARED_CREDENTIALS_FILE="+filepath.Join(sh.Dir, "none"))
		out, err := sh.CombinedOutput()
		return string(out), err
	}
	out, err := paste(psql + ` -XAtc 'SELECT current_user, (SELECT count(*) FROM sales)'`)
	if err != nil || out != "IAM:alice:analysts|4\n" {
		t.Errorf("%s\n= %q, %v", psql, out, err)
	}
	out, err = paste(refusal)
	if err == nil || !strings.Contains(out, "(AccessDenied)") || !strings.Contains(out, "explicit deny") {
		t.Errorf("%s\n= %q, %v", refusal, out, err)
	}
	out, err = paste(why)
	if err == nil || !strings.Contains(out, "FinanceIsForOthers") {
		t.Errorf("%s\n= %q, %v", why, out, err)
	}
	out, err = paste(connect + ` -- -XAtc 'SELECT current_user, (SELECT count(*) FROM sales)'`)
	if err != nil || out != "IAM:alice:analysts|4\n" {
		t.Errorf("%s\n= %q, %v", connect, out, err)
	}
	// The operator lists the session and ends it.
	uri, err := paste(connect + " --print uri")
	if err != nil {
		t.Fatal(uri, err)
	}
	session, err := pgx.Connect(t.Context(), strings.TrimSpace(uri))
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close(context.Background())
	for i, want := range []string{"alice  analysts", "Sessions being ended: 1", "credentials for alice of any cluster"} {
		if out, err := paste(operator[i]); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s\n= %q, %v, want %q", operator[i], out, err, want)
		}
	}
	if _, err := session.Exec(t.Context(), "SELECT pg_sleep(30)"); err == nil {
		t.Error("the session goes on after its credential was taken back")
	}
	out, err = paste(strings.ReplaceAll(operator[0], "operator", "ana"))
	if err == nil || !strings.Contains(out, "AccessDenied") {
		t.Errorf("ana lists sessions: %q, %v", out, err)
	}
	t.Run("login --device", func(t *testing.T) {
		testDeviceLogin(t, dev.find(`AWS_ENDPOINT_URL=(\S+)`), dev.find(`--sslrootcert (\S+)`))
	})
}

func TestDevKeepsState(t *testing.T) {
	data := openDir(t)
	var keys, certificates [2]string
	for i := range 2 {
		dev := startDev(t, "--data", data)
		keys[i] = dev.find("AWS_SECRET_ACCESS_KEY=(.*)")
		pem, err := os.ReadFile(dev.find("--sslrootcert (\\S+)"))
		if err != nil {
			t.Fatal(err)
		}
		certificates[i] = string(pem)
		superuser := "postgres://postgres@" + dev.find(`^PostgreSQL .* listens on (.*)\.$`) + "/dev?sslmode=disable"
		config, err := pgx.ParseConfig(superuser)
		if err != nil {
			t.Fatal(err)
		}
		password, err := os.ReadFile(filepath.Join(data, "postgres", "superuser-password"))
		if err != nil {
			t.Fatal(err)
		}
		config.Password = strings.TrimSpace(string(password))
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		var sales int
		if err := conn.QueryRow(t.Context(), "WITH new AS (INSERT INTO sales (sold_on, region, product, amount) VALUES ('2026-02-01', 'east', 'cup', 3) RETURNING 1) SELECT count(*) FROM sales").Scan(&sales); err != nil || sales != 4+i {
			t.Errorf("run %d: %d sales, %v, want %d", i, sales, err, 4+i)
		}
		conn.Close(t.Context())

		other := run(t.Context(), []string{"dev", "--once", "--data", data}, environment{stdout: io.Discard, stderr: dev.stderr, now: time.Now})
		if other == 0 || !strings.Contains(dev.stderr.String(), "in use by another daypass dev") {
			t.Errorf("a second dev on the same directory: exit code %d, %s", other, dev.stderr)
		}
		dev.end()
	}
	if keys[0] != keys[1] || certificates[0] != certificates[1] {
		t.Error("the access key or the certificate is another in the second run")
	}
}

// TestDevOutputCloses closes the reading end of the output while dev runs.
func TestDevOutputCloses(t *testing.T) {
	check := cleanTemp(t)
	for _, args := range [][]string{{}, {"--once"}} {
		out, stdout := io.Pipe()
		go func() {
			io.CopyN(io.Discard, out, 10)
			out.Close()
		}()
		var stderr bytes.Buffer
		args := append([]string{"dev", "--api-listen", "127.0.0.1:0", "--gateway-listen", "127.0.0.1:0", "--provider-listen", "127.0.0.1:0"}, args...)
		if code := run(t.Context(), args, environment{stdout: stdout, stderr: &stderr, now: time.Now}); code != 1 {
			t.Errorf("%v: exit code %d, want 1: %s", args, code, stderr.String())
		}
	}
	check()
}

// TestDevStops ends dev while a session is open in it.
func TestDevStops(t *testing.T) {
	check := cleanTemp(t)
	dev := startDev(t)
	database := dev.find(`^PostgreSQL .* listens on (.*)\.$`)
	gateway := dev.find(`the gateway at (.*)\.$`)
	open, err := net.Dial("tcp", gateway)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	dev.end()
	for _, address := range []string{database, gateway, strings.TrimPrefix(dev.find(`the API at (.*), the`), "http://")} {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			t.Errorf("something still listens on %s", address)
		}
	}
	check()
}

func TestDevFindsDataOfAnotherVersion(t *testing.T) {
	data := openDir(t)
	if err := os.MkdirAll(filepath.Join(data, "postgres", "pgdata"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "postgres", "pgdata", "PG_VERSION"), []byte("11\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	code := run(t.Context(), []string{"dev", "--once", "--data", data, "--api-listen", "127.0.0.1:0", "--gateway-listen", "127.0.0.1:0", "--provider-listen", "127.0.0.1:0"},
		environment{stdout: io.Discard, stderr: &stderr, now: time.Now})
	if code != 1 || !strings.Contains(stderr.String(), "was made by PostgreSQL 11, which is not here") {
		t.Errorf("exit code %d, %s", code, stderr.String())
	}
}

// openDir returns a directory that the account PostgreSQL runs as can get to.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "daypass-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

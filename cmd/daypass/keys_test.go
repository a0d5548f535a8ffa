package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/keyring"
)

var keysNoon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// command runs one command line in this process at a fixed time.
func command(t *testing.T, now time.Time, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(context.Background(), args, environment{
		stdin: strings.NewReader(stdin), stdout: &out, stderr: &errs, now: func() time.Time { return now },
	})
	return code, out.String(), errs.String()
}

func newKeyringDir(t *testing.T) (string, *keyring.File) {
	t.Helper()
	dir := t.TempDir()
	file, err := keyring.OpenFile(filepath.Join(dir, "keyring.json"), keysNoon)
	if err != nil {
		t.Fatal(err)
	}
	return dir, file
}

// wantPattern compares line by line; KEY stands for the identifier of a key.
func wantPattern(t *testing.T, got, want string) {
	t.Helper()
	got = regexp.MustCompile(`\b[0-9a-f]{16}\b`).ReplaceAllString(got, "KEY")
	if strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestKeysRotateBesideAServer(t *testing.T) {
	dir, server := newKeyringDir(t)
	path := filepath.Join(dir, "keyring.json")
	later := keysNoon.Add(time.Hour)
	code, stdout, stderr := command(t, later, "", "keys", "rotate", "--data", dir)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	wantPattern(t, stdout, `
kept KEY checks the credentials it signed until 2026-01-01T14:05:00Z
new  KEY signs credentials from now on
kept KEY opens the session tokens it sealed until 2026-01-03T01:05:00Z
new  KEY seals session tokens from now on

A running server uses `+path+` within a second.
Other machines of this installation need a copy of it.`)
	if changed, err := server.Reload(); !changed || err != nil {
		t.Errorf("the server's Reload = %t, %v, want the new keys", changed, err)
	}

	_, stdout, _ = command(t, later, "", "keys", "list", "--data", dir)
	wantPattern(t, stdout, `
PURPOSE     KEY               STATE   ACTIVE FROM           REFUSED FROM
credential  KEY  kept    2026-01-01T12:00:00Z  2026-01-01T14:05:00Z
credential  KEY  in use  2026-01-01T13:00:00Z  -
session     KEY  kept    2026-01-01T12:00:00Z  2026-01-03T01:05:00Z
session     KEY  in use  2026-01-01T13:00:00Z  -
upstream    KEY  in use  2026-01-01T12:00:00Z  -`)

	_, stdout, _ = command(t, later, "", "keys", "list", "--data", dir, "--output", "json")
	var list []map[string]any
	if err := json.Unmarshal([]byte(stdout), &list); err != nil || len(list) != 5 {
		t.Fatalf("keys list --output json: %v\n%s", err, stdout)
	}
	if len(list[0]["public_key"].(string)) != 64 || list[1]["refused_from"] != nil || list[4]["public_key"] != nil {
		t.Errorf("keys list --output json:\n%s", stdout)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range regexp.MustCompile(`"secret": "([^"]+)"`).FindAllStringSubmatch(string(file), -1) {
		if strings.Contains(stdout, secret[1]) {
			t.Error("keys list prints a secret")
		}
	}

	// Two hours later the first credential key cannot check anything that is still valid.
	_, stdout, _ = command(t, later.Add(2*time.Hour), "", "keys", "rotate", "--data", dir, "--activate-in", "30m")
	wantPattern(t, stdout, `
kept    KEY checks the credentials it signed until 2026-01-01T16:35:00Z
new     KEY signs credentials from 2026-01-01T15:30:00Z on
kept    KEY opens the session tokens it sealed until 2026-01-03T01:05:00Z
kept    KEY opens the session tokens it sealed until 2026-01-03T03:35:00Z
new     KEY seals session tokens from 2026-01-01T15:30:00Z on
dropped KEY nothing it signed is alive

A running server uses `+path+` within a second.
Other machines of this installation need a copy of it.`)
}

func TestKeysRotateDiscards(t *testing.T) {
	dir, _ := newKeyringDir(t)
	_, stdout, _ := command(t, keysNoon, "", "keys", "rotate", "--data", dir, "--discard", "--upstream")
	wantPattern(t, stdout, `
new     KEY signs credentials from now on
new     KEY seals session tokens from now on
new     KEY derives the passwords of session roles from now on
dropped KEY what it was used for stops working
dropped KEY what it was used for stops working
dropped KEY what it was used for stops working

A running server uses `+filepath.Join(dir, "keyring.json")+` within a second.
Other machines of this installation need a copy of it.`)
}

func TestKeysRefusals(t *testing.T) {
	dir, _ := newKeyringDir(t)
	empty := t.TempDir()
	damaged := t.TempDir()
	if err := os.WriteFile(filepath.Join(damaged, "keyring.json"), []byte(`{"vers`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		args string
		code int
		want string
	}{
		{"rotate --data " + empty, 1, "there is no keyring at " + filepath.Join(empty, "keyring.json")},
		{"list --data " + damaged, 1, "restore it from a backup"},
		{"rotate --data " + damaged, 1, "restore it from a backup"},
		{"rotate --data " + dir + " --config x", 2, "exclude each other"},
		{"rotate --data " + dir + " --activate-in -1s", 2, "negative"},
		{"rotate --data " + dir + " --activate-in 1h --discard", 2, "at once"},
		{"rotate --data " + dir + " --activate-in 1h --upstream", 2, "at once"},
		{"rotate --config " + filepath.Join(empty, "none.yaml"), 1, "--data DIR"},
		{"list --data " + dir + " --output xml", 2, "must be text or json"},
	} {
		code, stdout, stderr := command(t, keysNoon, "", append([]string{"keys"}, strings.Fields(row.args)...)...)
		if code != row.code || stdout != "" || !strings.Contains(stderr, row.want) {
			t.Errorf("keys %s: exit %d, %q, %q, want %d and %q", row.args, code, stdout, stderr, row.code, row.want)
		}
	}
}

// The configuration names the data directory. The secrets that it reads from the environment are
// set only for the server.
func TestKeysFromConfiguration(t *testing.T) {
	dir, _ := newKeyringDir(t)
	path := filepath.Join(t.TempDir(), "daypass.yaml")
	text := `account: "123456789012"
region: us-east-1
data: ` + dir + `
api: {listen: "127.0.0.1:8440"}
gateway: {listen: "127.0.0.1:5439"}
clusters:
  - identifier: examplecluster
    database: dev
    upstream: postgres://daypass@127.0.0.1:5432/postgres?sslmode=disable
    upstream_password_env: DAYPASS_TEST_NOT_SET
iam:
  users:
    - name: ana
      access_keys: [{id: AKIAIOSFODNN7EXAMPLE, secret_env: DAYPASS_TEST_NOT_SET_EITHER}]
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := command(t, keysNoon, "", "keys", "list", "--config", path); code != 0 || !strings.Contains(stdout, "credential") {
		t.Errorf("keys list --config: exit %d, %s%s", code, stdout, stderr)
	}
}

func TestCredentialInspect(t *testing.T) {
	dir, file := newKeyringDir(t)
	secret, err := credential.Mint(file.Current(), credential.Grant{
		ID: "01KDVZ2M00T5BVDGQH2Y7CJ4XR", Cluster: "examplecluster", DBUser: "alice", AutoCreate: true,
		Principal: "arn:aws:iam::123456789012:user/ana", IssuedAt: keysNoon, NotAfter: keysNoon.Add(15 * time.Minute),
	})
	if err != nil {
		t.Fatal(err)
	}
	password := secret.Reveal()
	otherDir, _ := newKeyringDir(t)
	answer, err := json.MarshalIndent(map[string]string{"DbUser": "IAMA:alice", "DbPassword": password, "Expiration": "2026-01-01T12:15:00Z"}, "", "    ")
	if err != nil {
		t.Fatal(err)
	}

	code, stdout, stderr := command(t, keysNoon, password+"\n", "credential", "inspect", "--data", dir)
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	wantPattern(t, stdout, `
{
    "status": "valid",
    "revocation": "not known from a credential; daypass revoke list says what is revoked",
    "id": "01KDVZ2M00T5BVDGQH2Y7CJ4XR",
    "cluster": "examplecluster",
    "database": null,
    "user": "alice",
    "groups": [],
    "autocreate": true,
    "logon_name": "IAMA:alice",
    "issued": "2026-01-01T12:00:00Z",
    "expires": "2026-01-01T12:15:00Z",
    "principal": "arn:aws:iam::123456789012:user/ana",
    "key": "KEY"
}`)

	for name, row := range map[string]struct {
		now          time.Time
		stdin        string
		args         []string
		status, said string
		code         int
	}{
		"as the CLI prints it": {keysNoon, string(answer) + "\n", []string{"--data", dir}, "valid", `"alice"`, 0},
		"an argument":          {keysNoon, "", []string{"--data", dir, password}, "valid", `"alice"`, 0},
		"a dash":               {keysNoon, password, []string{"--data", dir, "-"}, "valid", `"alice"`, 0},
		"with a CR":            {keysNoon, password + "\r\n", []string{"--data", dir}, "valid", `"alice"`, 0},
		"expired":              {keysNoon.Add(15 * time.Minute), password, []string{"--data", dir}, "expired", `at 2026-01-01T12:15:00Z`, 1},
		"a wrong clock":        {keysNoon.Add(-time.Hour), password, []string{"--data", dir}, "not yet valid", `one of the clocks is wrong`, 1},
		"another keyring":      {keysNoon, password, []string{"--data", otherDir}, "forged", `is not in this keyring`, 1},
		"an altered signature": {keysNoon, password[:len(password)-8] + "AAAAAAAA", []string{"--data", dir}, "forged", `did not sign this`, 1},
		"no keyring":           {keysNoon, password, nil, "unverified", `--data or --config`, 1},
		"nonsense":             {keysNoon, "hunter2", []string{"--data", dir}, "malformed", "reason", 1},
		"two lines":            {keysNoon, password + "\n\n", []string{"--data", dir}, "malformed", "none of A-Z", 1},
	} {
		code, stdout, stderr := command(t, row.now, row.stdin, append([]string{"credential", "inspect"}, row.args...)...)
		if code != row.code || !strings.Contains(stdout, `"status": "`+row.status+`"`) || !strings.Contains(stdout, row.said) || stderr != "" {
			t.Errorf("%s: exit %d, %s%s, want %d, status %q and %q", name, code, stdout, stderr, row.code, row.status, row.said)
		}
		if said := strings.Contains(stdout, `"revocation": "not known`); said != (row.status == "valid") {
			t.Errorf("%s: it is said that a revocation is not known: %v\n%s", name, said, stdout)
		}
		if strings.Contains(stdout+stderr, password) {
			t.Errorf("%s: the output has the password", name)
		}
	}
	for name, stdin := range map[string]string{
		"JSON without": `{"DbUser": "x"}`,
		"broken JSON":  `{"DbPassword": "` + password,
		"too long":     strings.Repeat("A", 1<<17),
		"nothing":      "\n",
	} {
		code, stdout, stderr := command(t, keysNoon, stdin, "credential", "inspect", "--data", dir)
		if code != 2 || stdout != "" || stderr == "" || strings.Contains(stderr, password[:20]) {
			t.Errorf("%s: exit %d, %s%s", name, code, stdout, stderr)
		}
	}
}

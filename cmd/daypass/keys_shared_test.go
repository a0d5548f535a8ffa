package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/test/etcdtest"
)

// TestSharedKeysCommands runs the commands for keys in etcd, without a server.
func TestSharedKeysCommands(t *testing.T) {
	etcd := etcdtest.Start(t)
	dir, file := newKeyringDir(t)
	config := filepath.Join(dir, "daypass.yaml")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("root.key", "5mrUHyeJx4KGsXXGbqZqCLpEVkGePlmkkkIAXfHlYmQ=\n")
	write("daypass.yaml", fmt.Sprintf(`account: "123456789012"
region: us-east-1
data: .
api: {listen: "127.0.0.1:0"}
gateway: {listen: "127.0.0.1:0"}
registry: {etcd: {endpoints: [%q]}}
root_key: {file: root.key}
`, etcd.URL))
	now := keysNoon.Add(time.Hour)
	password, err := credential.Mint(file.Current(), credential.Grant{ID: credential.NewID(), Cluster: "c", DBUser: "alice",
		IssuedAt: now, NotAfter: now.Add(time.Hour), Principal: "p"})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(code int, want string, args ...string) string {
		t.Helper()
		got, stdout, stderr := command(t, now, "", append(args, "--config", config)...)
		if got != code || !strings.Contains(stdout+stderr, want) {
			t.Fatalf("daypass %s: exit %d, want %d and %q\n%s%s", strings.Join(args, " "), got, code, want, stdout, stderr)
		}
		return stdout
	}
	expect(1, "daypass keys move", "keys", "list")
	expect(0, "sealed under the root key", "keys", "move")
	expect(1, "already", "keys", "move")
	wantPattern(t, expect(0, "", "keys", "list"), `
PURPOSE     KEY               SERVER  STATE   SINCE                 REFUSED FROM
credential  KEY  all     in use  2026-01-01T12:00:00Z  -
session     KEY  all     in use  2026-01-01T12:00:00Z  -
upstream    KEY  all     in use  2026-01-01T12:00:00Z  -`)
	expect(0, "valid", "credential", "inspect", password.Reveal())
	expect(0, "No server is running", "keys", "rotate")
	wantPattern(t, expect(0, "", "keys", "list"), `
PURPOSE     KEY               SERVER  STATE    SINCE                 REFUSED FROM
credential  KEY  all     kept     2026-01-01T12:00:00Z  2026-01-01T14:15:00Z
session     KEY  all     in use   2026-01-01T12:00:00Z  -
session     KEY  all     pending  2026-01-01T13:00:00Z  -
upstream    KEY  all     in use   2026-01-01T12:00:00Z  -`)
	expect(0, "valid", "credential", "inspect", password.Reveal())
	expect(2, "--activate-in", "keys", "rotate", "--activate-in", "1m")
	expect(1, "there is no key and no server", "keys", "revoke", "db1")
	expect(0, "No server is running", "keys", "rotate", "--discard")
	expect(1, "forged", "credential", "inspect", password.Reveal())

	if !strings.Contains(expect(0, "", "keys", "list", "--output", "json"), `"purpose": "session"`) {
		t.Error("the JSON has no session key")
	}
	expect(0, "SERVER", "servers")
	expect(0, `"servers": []`, "servers", "--output", "json")
	// A different root key cannot read the shared keys.
	write("root.key", "q4d61qyQyxyvhhAIz9wUURnLlaVnVRcGgCYHxnIfm0o=\n")
	expect(1, "another root key", "keys", "list")
	expect(1, "another root key", "keys", "rotate")
	expect(1, "another root key", "keys", "move")

	code, _, stderr := command(t, now, "", "keys", "revoke", "0123456789abcdef", "--data", dir)
	if code != 1 || !strings.Contains(stderr, "--discard") {
		t.Errorf("keys revoke with a file: exit %d, %s", code, stderr)
	}
	write("alone.yaml", "account: \"123456789012\"\nregion: us-east-1\ndata: data\napi: {listen: \"127.0.0.1:0\"}\ngateway: {listen: \"127.0.0.1:0\"}\n")
	for _, of := range [][]string{{"keys", "move"}, {"servers"}} {
		code, _, stderr = command(t, now, "", append(of, "--config", filepath.Join(dir, "alone.yaml"))...)
		if code == 0 || !strings.Contains(stderr, "has no root_key") {
			t.Errorf("%v without a root key: exit %d, %s", of, code, stderr)
		}
	}
}

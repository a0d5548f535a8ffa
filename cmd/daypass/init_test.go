package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/redshift"
	"github.com/spf13/cobra"

	"github.com/daypass/daypass/internal/client"
	"github.com/daypass/daypass/internal/server"
	"github.com/daypass/daypass/test/sitetest"
)

// commandLine runs one command in this process.
func commandLine(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	stdout, stderr, code = runDaypass(t, args...)
	return code, stdout, stderr
}

// TestInit follows the steps of a new operator: init, check, serve, and the commands that init
// prints.
func TestInit(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "daypass.yaml")
	code, stdout, stderr := commandLine(t, "init", "--config", path, "--user", "ana", "--region", "eu-central-1")
	if code != 0 || !strings.Contains(stdout, "daypass serve --config "+path) {
		t.Fatalf("init = %d\n%s%s", code, stdout, stderr)
	}
	secret, err := os.ReadFile(filepath.Join(dir, "ana.secret"))
	if err != nil || len(secret) != 41 || strings.Contains(stdout, strings.TrimSpace(string(secret))) {
		t.Fatalf("the secret has %d bytes, %v", len(secret), err)
	}
	for _, name := range []string{path, filepath.Join(dir, "ana.secret")} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if code, stdout, stderr := commandLine(t, "config", "check", "--strict", "--config", path); code != 0 {
		t.Errorf("config check = %d\n%s%s", code, stdout, stderr)
	}
	if code, stdout, _ := commandLine(t, "policy", "lint", "--strict", path); code != 0 {
		t.Errorf("policy lint = %d\n%s", code, stdout)
	}

	var where server.Running
	var listeners [2]net.Listener
	for i := range listeners {
		if listeners[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	life, err := sitetest.Start(inProcess(path, io.Discard, server.Options{API: listeners[0], Gateway: listeners[1], Ready: func(r server.Running) { where = r }}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := life.Stop(); err != nil {
			t.Error(err)
		}
	}()
	_, rest, _ := strings.Cut(stdout, "aws configure set aws_access_key_id ")
	id, _, _ := strings.Cut(rest, " ")
	provider := credentials.NewStaticCredentialsProvider(id, strings.TrimSpace(string(secret)), "")
	operator, err := client.New(client.Config{Endpoint: where.API, Region: "eu-central-1", HTTP: http.DefaultClient, Now: time.Now, Credentials: provider})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := operator.Sessions(t.Context(), "", ""); err != nil {
		t.Errorf("daypass sessions: %v", err)
	}
	answer, err := redshift.New(redshift.Options{Region: "eu-central-1", BaseEndpoint: aws.String(where.API), Credentials: provider}).
		GetClusterCredentials(t.Context(), &redshift.GetClusterCredentialsInput{ClusterIdentifier: aws.String("examplecluster"),
			DbUser: aws.String("ana"), DbName: aws.String("postgres"), AutoCreate: aws.Bool(true)})
	if err != nil || aws.ToString(answer.DbUser) != "IAMA:ana" {
		t.Errorf("a credential: %v, %v", answer, err)
	}

	// A refused init changes no existing file and leaves no new one behind.
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"--config", path, "--user", "ana"}, {"--config", path, "--user", "bob"},
		{"--config", filepath.Join(dir, "other.yaml"), "--account", "12"}, {"--config", filepath.Join(dir, "other.yaml"), "--user", "a b"},
		{"--config", filepath.Join(dir, "none", "daypass.yaml")},
	} {
		if code, _, stderr := commandLine(t, append([]string{"init"}, args...)...); code == 0 || stderr == "" {
			t.Errorf("init %q = %d", args, code)
		}
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed: %v", err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 3 { // with the data directory
		t.Errorf("there are %v, %v", list, err)
	}
}

func TestConfigCheck(t *testing.T) {
	dir := t.TempDir()
	const good = "account: \"123456789012\"\nregion: us-east-1\ndata: data\napi: {listen: \"127.0.0.1:0\"}\ngateway: {listen: \"127.0.0.1:0\"}\n"
	user := good + "iam:\n  users:\n    - name: ana\n      access_keys: [{id: AKIAIOSFODNN7EXAMPLE, secret_env: NOBODY_SET_THIS}]\n"
	for name, tt := range map[string]struct {
		text string
		args []string
		code int
		want []string
	}{
		"good":                   {good, nil, 0, []string{"is valid: 0 clusters, 0 warnings"}},
		"two faults":             {good + "nonsense: 1\niam:\n", nil, 1, []string{"error: ", "f.yaml:6: nonsense: is not a key", "error: ", "f.yaml:7: iam: has no value"}},
		"no YAML":                {"a: [", nil, 1, []string{"error: "}},
		"a variable":             {user, nil, 1, []string{"NOBODY_SET_THIS is not set"}},
		"a variable, not looked": {user, []string{"--ignore-environment"}, 0, []string{"is valid"}},
		"a warning":              {strings.Replace(user, "secret_env: NOBODY_SET_THIS", "secret: tensecrets", 1), nil, 0, []string{"warning: ", "has only 10 characters", "1 warning\n"}},
		"a warning, strict":      {strings.Replace(user, "secret_env: NOBODY_SET_THIS", "secret: tensecrets", 1), []string{"--strict"}, 1, []string{"warning: "}},
	} {
		path := filepath.Join(dir, "f.yaml")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := commandLine(t, append([]string{"config", "check", "--config", path}, tt.args...)...)
		for _, want := range tt.want {
			if code != tt.code || !strings.Contains(stdout, want) || stderr != "" {
				t.Errorf("%s: config check = %d, want %d and %q\n%s%s", name, code, tt.code, want, stdout, stderr)
			}
		}
	}
	if code, stdout, stderr := commandLine(t, "config", "check", "--config", filepath.Join(dir, "none.yaml")); code != 2 || stdout != "" || !strings.Contains(stderr, "none.yaml") {
		t.Errorf("config check of no file = %d, %s%s", code, stdout, stderr)
	}
	if code, stdout, _ := commandLine(t, "config", "schema"); code != 0 || !json.Valid([]byte(stdout)) {
		t.Errorf("config schema = %d\n%s", code, stdout)
	}
}

// TestManualPages: each command that people see has a page with all its flags.
func TestManualPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man")
	if code, _, stderr := commandLine(t, "man", dir); code != 0 {
		t.Fatalf("man = %d, %s", code, stderr)
	}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if !cmd.IsAvailableCommand() && cmd.HasParent() {
			return
		}
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
		page, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		for line := range strings.Lines(cmd.LocalFlags().FlagUsages()) {
			_, flag, _ := strings.Cut(line, "--")
			flag, _, _ = strings.Cut(flag, " ")
			if plain := strings.ReplaceAll(string(page), `\-`, "-"); !strings.Contains(plain, "--"+strings.TrimSpace(flag)) {
				t.Errorf("%s does not mention --%s", name, flag)
			}
		}
		for _, child := range cmd.Commands() {
			walk(child)
		}
	}
	walk(newRootCommand(environment{}))
}

func TestLogFormat(t *testing.T) {
	if code, _, stderr := commandLine(t, "serve", "--config", "none.yaml", "--log-format", "xml"); code != 2 || !strings.Contains(stderr, "must be text or json") {
		t.Errorf("serve --log-format xml = %d, %s", code, stderr)
	}
}

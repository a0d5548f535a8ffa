package main

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/redshift"

	"github.com/daypass/daypass/internal/client"
	"github.com/daypass/daypass/internal/credential"
	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/server"
	"github.com/daypass/daypass/test/sitetest"
)

// writeState makes TestOldStateOpens write this version's state, for tests of later versions: go
// test ./cmd/daypass -run TestOldStateOpens -write-state v1.2.3
var writeState = flag.String("write-state", "", "the name of a directory to write in testdata/state")

// oldState describes the state that an earlier version wrote, and is stored next to it.
type oldState struct {
	At         time.Time // when it was written
	Password   string    // of a credential that was valid at that time
	Credential string    // the id of that credential
	Revoked    string    // the id of a revoked credential
}

const stateConfig = `account: "123456789012"
region: us-east-1
data: data
api: {listen: "127.0.0.1:0"}
gateway: {listen: "127.0.0.1:0", advertise: {host: localhost}}
clusters:
  - {identifier: examplecluster, upstream: "postgres://daypass@127.0.0.1:1/postgres"}
iam:
  users:
    - name: ana
      access_keys: [{id: AKIAIOSFODNN7EXAMPLE, secret: wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY}]
      policies: [{Version: "2012-10-17", Statement: [{Effect: Allow, Action: "*", Resource: "*"}]}]
`

// TestOldStateOpens: this version can use the state of earlier versions. Their credentials log
// on, their revocations are in force, clients that trust their CA trust this version's, and the
// audit log continues after their lines.
func TestOldStateOpens(t *testing.T) {
	if *writeState != "" {
		writeOldState(t, filepath.Join("testdata", "state", *writeState))
		return
	}
	states, err := filepath.Glob("testdata/state/*")
	if err != nil || len(states) == 0 {
		t.Fatalf("there is no state of any version: %v", err)
	}
	for _, state := range states {
		t.Run(filepath.Base(state), func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(state, "state.json"))
			if err != nil {
				t.Fatal(err)
			}
			var old oldState
			if err := json.Unmarshal(text, &old); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			copyPrivate(t, filepath.Join(state, "data"), filepath.Join(dir, "data"))
			now := old.At.Add(2 * time.Minute)
			life, api := serveState(t, dir, func() time.Time { return now })

			keys, err := keyring.LoadFile(filepath.Join(dir, "data", "keyring.json"))
			if err != nil {
				t.Fatal(err)
			}
			if grant, err := credential.Check(keys.Current().Verifier(), old.Password, now); err != nil || grant.ID != old.Credential {
				t.Errorf("the credential = %v, %v, want %s", grant.ID, err, old.Credential)
			}
			revocations, err := api.Revocations(t.Context())
			if err != nil || len(revocations) != 1 || revocations[0].CredentialID != old.Revoked {
				t.Errorf("revoked is %v, %v, want %s", revocations, err, old.Revoked)
			}
			if err := life.Stop(); err != nil {
				t.Error(err)
			}
			for _, name := range []string{"tls/ca.crt", "tls/ca.key", "keyring.json"} {
				before, err := os.ReadFile(filepath.Join(state, "data", name))
				after, afterErr := os.ReadFile(filepath.Join(dir, "data", name))
				if errors.Join(err, afterErr) != nil || string(before) != string(after) {
					t.Errorf("%s is another one, %v", name, errors.Join(err, afterErr))
				}
			}
			logs, err := filepath.Glob(filepath.Join(state, "data", "audit", "*.jsonl"))
			if err != nil || len(logs) == 0 {
				t.Fatalf("the state has the audit logs %v, %v", logs, err)
			}
			before, err := os.ReadFile(logs[len(logs)-1])
			if err != nil {
				t.Fatal(err)
			}
			after, err := os.ReadFile(filepath.Join(dir, "data", "audit", filepath.Base(logs[len(logs)-1])))
			if err != nil || !strings.HasPrefix(string(after), string(before)) {
				t.Errorf("the audit log does not go on behind what was there: %v", err)
			}
		})
	}
}

func serveState(t *testing.T, dir string, now func() time.Time) (*sitetest.Life, *client.Client) {
	t.Helper()
	path := filepath.Join(dir, "daypass.yaml")
	if err := os.WriteFile(path, []byte(stateConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	var where server.Running
	life, err := sitetest.Start(inProcess(path, io.Discard, server.Options{Now: now, Ready: func(r server.Running) { where = r }}))
	if err != nil {
		t.Fatal(err)
	}
	api, err := client.New(client.Config{Endpoint: where.API, Region: "us-east-1", Now: now, Credentials: stateKey()})
	if err != nil {
		t.Fatal(err)
	}
	return life, api
}

func stateKey() aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "")
}

// copyPrivate copies a directory and sets modes that the server accepts, because git does not
// store them.
func copyPrivate(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(to, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func writeOldState(t *testing.T, to string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "daypass.yaml")
	if err := os.WriteFile(path, []byte(stateConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	var where server.Running
	life, err := sitetest.Start(inProcess(path, io.Discard, server.Options{Ready: func(r server.Running) { where = r }}))
	if err != nil {
		t.Fatal(err)
	}
	sdk := redshift.New(redshift.Options{Region: "us-east-1", BaseEndpoint: aws.String(where.API), Credentials: stateKey()})
	issue := func() (string, string) {
		answer, err := sdk.GetClusterCredentials(t.Context(), &redshift.GetClusterCredentialsInput{ClusterIdentifier: aws.String("examplecluster"), DbUser: aws.String("alice"), DbName: aws.String("dev")})
		if err != nil {
			t.Fatal(err)
		}
		keys, err := keyring.LoadFile(filepath.Join(dir, "data", "keyring.json"))
		if err != nil {
			t.Fatal(err)
		}
		grant, err := credential.Check(keys.Current().Verifier(), *answer.DbPassword, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return *answer.DbPassword, grant.ID
	}
	old := oldState{At: time.Now().UTC().Truncate(time.Second)}
	old.Password, old.Credential = issue()
	_, old.Revoked = issue()
	api, err := client.New(client.Config{Endpoint: where.API, Region: "us-east-1", Now: time.Now, Credentials: stateKey()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.Revoke(t.Context(), client.Selector{CredentialID: old.Revoked}); err != nil {
		t.Fatal(err)
	}
	if err := life.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "data", "lock")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(to, "data"), os.DirFS(filepath.Join(dir, "data"))); err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(old, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to, "state.json"), append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestBackupAndRestore follows docs/operations.md: a backup that was made while the server ran
// can be opened elsewhere, with the same keys and the same authority.
func TestBackupAndRestore(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	life, _ := serveState(t, dir, time.Now)
	backup := exec.Command("sh", "-ec", blockOf(t, "docs/operations.md", "tar --create").text)
	backup.Dir = dir
	if out, err := backup.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := life.Stop(); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(elsewhere, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "--extract", "--preserve-permissions", "--file", filepath.Join(dir, "backup.tar"), "--directory", data).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(data, "registry.db")); err == nil {
		t.Error("the backup has registry.db, which changes while it is read")
	}
	life, _ = serveState(t, elsewhere, time.Now)
	if err := life.Stop(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"keyring.json", "tls/ca.crt", "tls/ca.key"} {
		before, err := os.ReadFile(filepath.Join(dir, "data", name))
		after, afterErr := os.ReadFile(filepath.Join(data, name))
		if errors.Join(err, afterErr) != nil || string(before) != string(after) {
			t.Errorf("%s is another one, %v", name, errors.Join(err, afterErr))
		}
	}
}

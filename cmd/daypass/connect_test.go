package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// apiStub is a Redshift endpoint for the connect command.
type apiStub struct {
	url      string
	mu       sync.Mutex        // guards the rest, because the command may run in its own process
	answers  map[string]string // elements of answers that replace the usual ones
	requests []url.Values
	denied   bool   // whether calls are refused
	host     string // of the cluster's endpoint; "" for a cluster without one
}

const oddPassword = `p'a:s"s\w@/?#%&=$(x)+,;!~*{}|<>^`

func newAPIStub(t *testing.T, host string) *apiStub {
	t.Helper()
	s := &apiStub{host: host}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		s.requests = append(s.requests, form)
		answers, denied, host := s.answers, s.denied, s.host
		s.mu.Unlock()
		action := form.Get("Action")
		answer := func(name, usual string) string {
			if odd, ok := answers[name]; ok {
				usual = odd
			}
			var b strings.Builder
			_ = xml.EscapeText(&b, []byte(usual))
			return "<" + name + ">" + b.String() + "</" + name + ">"
		}
		user := "IAMA:" + form.Get("DbUser")
		if action == "GetClusterCredentialsWithIAM" {
			user = "IAMR:etl"
		}
		members := answer("DbUser", user) + answer("DbPassword", oddPassword) + answer("Expiration", "2026-01-02T03:04:05.678Z")
		if denied {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, "<ErrorResponse><Error><Code>AccessDenied</Code>%s</Error></ErrorResponse>", answer("Message", "no"))
			return
		}
		if action == "DescribeClusters" {
			endpoint := ""
			if host != "" {
				endpoint = "<Endpoint>" + answer("Address", host) + answer("Port", "5440") + "</Endpoint>"
			}
			members = "<Clusters><Cluster><ClusterIdentifier>c</ClusterIdentifier>" + answer("ClusterStatus", "creating") + answer("DBName", "dev") + endpoint + "</Cluster></Clusters>"
		}
		fmt.Fprintf(w, "<%[1]sResponse><%[1]sResult>%[2]s</%[1]sResult></%[1]sResponse>", action, members)
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	home := t.TempDir()
	for name, value := range map[string]string{
		"HOME": home, "APPDATA": home, "AWS_CONFIG_FILE": filepath.Join(home, "none"), "AWS_SHARED_CREDENTIALS_FILE": filepath.Join(home, "none"),
		"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": server.URL,
		"AWS_EC2_METADATA_DISABLED": "true", "PGSSLMODE": "", "PGSSLROOTCERT": "", "DAYPASS_SSLROOTCERT": "", "AWS_PROFILE": "", "AWS_DEFAULT_PROFILE": "", "AWS_ENDPOINT_URL_REDSHIFT": "",
		"PGHOSTADDR": "", "PGSERVICE": "", "PGPASSWORD": "", "PGPASSFILE": "",
	} {
		t.Setenv(name, value)
	}
	return s
}

// runConnect runs the command in this process. That works only with --print, because psql would
// replace the process.
func runConnect(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(context.Background(), append([]string{"connect"}, args...), environment{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, now: time.Now})
	return out.String(), errs.String(), code
}

// TestConnectPrintIsReadBack feeds the output of --print to the programs that it is meant for,
// and checks the values that they read.
func TestConnectPrintIsReadBack(t *testing.T) {
	newAPIStub(t, "db.example.com")
	ca := filepath.Join(t.TempDir(), "o'dd ca.crt")
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"c", "--user", "alice", "--sslmode", "require", "--sslrootcert", ca, "--print"}
	printed := map[string]string{}
	for _, format := range printFormats {
		stdout, stderr, code := runConnect(t, append(args, format)...)
		if code != 0 {
			t.Fatalf("connect --print %s: %s", format, stderr)
		}
		printed[format] = strings.TrimSuffix(stdout, "\n")
	}
	for _, format := range []string{"uri", "dsn"} {
		got, err := pgx.ParseConfig(printed[format])
		if err != nil {
			t.Fatalf("--print %s: %v", format, err)
		}
		if got.Host != "db.example.com" || got.Port != 5440 || got.Database != "dev" || got.User != "IAMA:alice" || got.Password != oddPassword {
			t.Errorf("--print %s = %s, read back as %s:%d/%s %s %s", format, printed[format], got.Host, got.Port, got.Database, got.User, got.Password)
		}
	}
	var object map[string]any
	if err := json.Unmarshal([]byte(printed["json"]), &object); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"host": "db.example.com", "port": 5440.0, "database": "dev", "user": "IAMA:alice", "password": oddPassword,
		"sslmode": "require", "sslrootcert": ca, "expiration": "2026-01-02T03:04:05.678Z", "uri": printed["uri"],
	} {
		if object[name] != want {
			t.Errorf("--print json: %s = %v, want %v", name, object[name], want)
		}
	}
	if want := `db.example.com:5440:dev:IAMA\:alice:` + strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(oddPassword); printed["pgpass"] != want {
		t.Errorf("--print pgpass = %s, want %s", printed["pgpass"], want)
	}
	if runtime.GOOS != "windows" {
		out, err := exec.Command("sh", "-c", printed["env"]+"\nprintf '%s|%s|%s|%s|%s|%s|%s' \"$PGHOST\" \"$PGPORT\" \"$PGDATABASE\" \"$PGUSER\" \"$PGPASSWORD\" \"$PGSSLMODE\" \"$PGSSLROOTCERT\"").Output()
		if err != nil {
			t.Fatal(err)
		}
		if want := "db.example.com|5440|dev|IAMA:alice|" + oddPassword + "|require|" + ca; string(out) != want {
			t.Errorf("--print env in sh = %s, want %s", out, want)
		}
	}
}

// TestConnectPrintIsNotDiverted: variables that were already set in the shell do not make psql
// connect elsewhere, or connect prints a warning.
func TestConnectPrintIsNotDiverted(t *testing.T) {
	newAPIStub(t, "db.example.com")
	diverting := []string{"PGHOSTADDR=127.0.0.9", "PGSERVICE=other", "PGREQUIREAUTH=none", "PGCHANNELBINDING=require", "PGREQUIRESSL=1", "PGTARGETSESSIONATTRS=standby", "PGSSLROOTCERT=/none",
		"PGSSLCERT=/none", "PGSSLKEY=/none", "PGSSLCERTMODE=require", "PGGSSDELEGATION=1", "PGSSLCOMPRESSION=1"}
	run := func(format string) (stdout, stderr string) {
		stdout, stderr, code := runConnect(t, "c", "--user", "alice", "--sslmode", "require", "--print", format)
		if code != 0 {
			t.Fatalf("connect --print %s: %s", format, stderr)
		}
		return stdout, stderr
	}
	if runtime.GOOS != "windows" {
		printed, stderr := run("env")
		sh := exec.Command("sh", "-euc", printed+"\nenv")
		sh.Env = append(os.Environ(), diverting...)
		out, err := sh.CombinedOutput()
		if err != nil || stderr != "" {
			t.Fatalf("%v: %s%s", err, out, stderr)
		}
		for _, variable := range diverting {
			name, _, _ := strings.Cut(variable, "=")
			if strings.Contains("\n"+string(out), "\n"+name+"=") {
				t.Errorf("after --print env %s is set", name)
			}
		}
		if !strings.Contains(string(out), "PGHOST=db.example.com\n") {
			t.Errorf("after --print env:\n%s", out)
		}
	}
	for _, test := range []struct{ format, set, warning string }{
		{"uri", "PGHOSTADDR", "unset PGHOSTADDR,"},
		{"dsn", "PGSERVICE", "unset PGSERVICE,"},
		{"json", "PGHOSTADDR", "unset PGHOSTADDR,"},
		{"pgpass", "PGPASSWORD", "unset PGPASSWORD,"},
		{"uri", "PGGSSENCMODE", "unset PGGSSENCMODE,"},
		{"pgpass", "PGGSSENCMODE", "unset PGGSSENCMODE,"},
		{"uri", "PGPASSWORD", ""},
		{"env", "PGHOSTADDR", ""},
	} {
		t.Run(test.format+" "+test.set, func(t *testing.T) {
			t.Setenv(test.set, "x")
			if _, stderr := run(test.format); !strings.Contains(stderr, test.warning) || (test.warning == "") != (stderr == "") {
				t.Errorf("--print %s with %s warns %q, want %q", test.format, test.set, stderr, test.warning)
			}
		})
	}
}

func TestConnectPrintURIOfIPv6(t *testing.T) {
	newAPIStub(t, "::1")
	stdout, stderr, code := runConnect(t, "c", "--user", "alice", "--print", "uri")
	if code != 0 || !strings.Contains(stdout, "@[::1]:5440/dev?sslmode=require") {
		t.Errorf("connect = %d %s %s", code, stdout, stderr)
	}
}

func TestConnectRequests(t *testing.T) {
	for _, test := range []struct {
		args     []string
		describe bool
		want     string
	}{
		{[]string{"c", "--user", "alice"}, true, "Action=GetClusterCredentials&AutoCreate=false&ClusterIdentifier=c&DbName=dev&DbUser=alice&Version=2012-12-01"},
		{[]string{"c", "prod", "--user", "alice"}, true, "Action=GetClusterCredentials&AutoCreate=false&ClusterIdentifier=c&DbName=prod&DbUser=alice&Version=2012-12-01"},
		{[]string{"c", "--user", "alice", "--host", "h"}, true, "Action=GetClusterCredentials&AutoCreate=false&ClusterIdentifier=c&DbName=dev&DbUser=alice&Version=2012-12-01"},
		{[]string{"c", "prod", "-u", "alice", "--host", "h", "--auto-create", "--groups", "a,b", "-g", "c", "--duration", "30m"}, false,
			"Action=GetClusterCredentials&AutoCreate=true&ClusterIdentifier=c&DbGroups.DbGroup.1=a&DbGroups.DbGroup.2=b&DbGroups.DbGroup.3=c&DbName=prod&DbUser=alice&DurationSeconds=1800&Version=2012-12-01"},
		{[]string{"c", "prod", "--db-user", "alice", "--host", "h", "--db-groups", "a", "b", "--duration", "1h"}, false,
			"Action=GetClusterCredentials&AutoCreate=false&ClusterIdentifier=c&DbGroups.DbGroup.1=a&DbGroups.DbGroup.2=b&DbName=prod&DbUser=alice&DurationSeconds=3600&Version=2012-12-01"},
		{[]string{"c", "--groups", "a", "prod", "--user", "alice", "--host", "h"}, false,
			"Action=GetClusterCredentials&AutoCreate=false&ClusterIdentifier=c&DbGroups.DbGroup.1=a&DbName=prod&DbUser=alice&Version=2012-12-01"},
		{[]string{"c", "prod", "--host", "h", "--with-iam", "--duration", "900"}, false, "Action=GetClusterCredentialsWithIAM&ClusterIdentifier=c&DbName=prod&DurationSeconds=900&Version=2012-12-01"},
	} {
		s := newAPIStub(t, "db.example.com")
		_, stderr, code := runConnect(t, append(test.args, "--sslmode", "require", "--print", "json")...)
		if code != 0 {
			t.Fatalf("connect %v: %s", test.args, stderr)
		}
		if described := s.requests[0].Get("Action") == "DescribeClusters"; described != test.describe {
			t.Errorf("connect %v called DescribeClusters: %v, want %v", test.args, described, test.describe)
		}
		if got := s.requests[len(s.requests)-1].Encode(); got != test.want {
			t.Errorf("connect %v sent %s, want %s", test.args, got, test.want)
		}
	}
}

func TestConnectRefuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*testing.T, *apiStub)
		args   []string
		code   int
		want   string
		asked  bool // whether a credential was requested
	}{
		{"no user", nil, []string{"c"}, 252, "--user", false},
		{"no cluster", nil, []string{"--user", "u"}, 252, "name a cluster", false},
		{"three words", nil, []string{"c", "d", "e", "--user", "u"}, 252, "after --", false},
		{"user and iam", nil, []string{"c", "--user", "u", "--with-iam"}, 252, "--with-iam", false},
		{"bad print", nil, []string{"c", "--user", "u", "--print", "xml"}, 252, "env, uri, dsn, json, pgpass", false},
		{"print and psql", nil, []string{"c", "--user", "u", "--print", "uri", "--", "-c", "x"}, 252, "does not start psql", false},
		{"psql and psql", nil, []string{"c", "d", "--user", "u", "--", "psql", "-c", "x"}, 252, "leave it out", false},
		{"another program", nil, []string{"c", "d", "--user", "u", "--", "pg_dump"}, 252, "--print env", false},
		{"bad sslmode", nil, []string{"c", "--user", "u", "--print", "uri", "--sslmode", "full"}, 252, "verify-full", false},
		{"bad duration", nil, []string{"c", "--user", "u", "--print", "uri", "--duration", "soon"}, 252, "15m", false},
		{"short duration", nil, []string{"c", "--user", "u", "--print", "uri", "--duration", "14m"}, 252, "15m to 60m", false},
		{"long duration", nil, []string{"c", "--user", "u", "--print", "uri", "--duration", "2h"}, 252, "--duration 2h: must be 15m to 60m", false},
		{"bad port", nil, []string{"c", "--user", "u", "--print", "uri", "--port", "70000"}, 252, "65535", false},
		{"no psql", nil, []string{"c", "--user", "u", "--psql", "no-such-psql"}, 255, "postgresql-client", false},
		{"no CA", nil, []string{"c", "--user", "u", "--print", "uri"}, 253, "--sslrootcert PATH", false},
		{"CA missing", nil, []string{"c", "--user", "u", "--print", "uri", "--sslrootcert", "/no/ca.crt"}, 253, "no such file or directory: name its file in --sslrootcert", false},
		{"CA of a variable missing", func(t *testing.T, _ *apiStub) { t.Setenv("DAYPASS_SSLROOTCERT", "/no/ca.crt") }, []string{"c", "--user", "u", "--print", "uri"}, 253, "name its file in DAYPASS_SSLROOTCERT", false},
		{"no endpoint", func(_ *testing.T, s *apiStub) { s.host = "" }, []string{"c", "--user", "u", "--print", "uri"}, 255, `its status is "creating"`, false},
		{"denied", func(_ *testing.T, s *apiStub) { s.denied = true }, []string{"c", "--user", "u", "--print", "uri"}, 254, "daypass connect c DATABASE --host HOST --port 5439 --user u", false},
		{"PGSSLMODE of no use without a CA", func(t *testing.T, _ *apiStub) { t.Setenv("PGSSLMODE", "require") }, []string{"c", "--user", "u", "--print", "uri"}, 253, "PGSSLMODE is not enough", false},
		{"PGSSLMODE of nothing", func(t *testing.T, _ *apiStub) { t.Setenv("PGSSLMODE", "full") }, []string{"c", "--user", "u", "--print", "uri"}, 253, `PGSSLMODE is "full"`, false},
		{"host of nothing", nil, []string{"c", "--user", "u", "--print", "uri", "--sslmode", "require", "--host", "a,b"}, 255, "neither a host name nor an IP address", false},
		{"no region", func(t *testing.T, _ *apiStub) { t.Setenv("AWS_REGION", "") }, []string{"c", "--user", "u", "--print", "uri"}, 253, "no region is configured", false},
		{"no API", func(t *testing.T, _ *apiStub) {
			t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
			t.Setenv("AWS_MAX_ATTEMPTS", "1")
		}, []string{"c", "--user", "u", "--print", "uri"}, 255, "cannot connect", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newAPIStub(t, "db.example.com")
			t.Setenv("AWS_DEFAULT_REGION", "")
			if test.change != nil {
				test.change(t, s)
			}
			stdout, stderr, code := runConnect(t, test.args...)
			if code != test.code || !strings.Contains(stderr, test.want) || stdout != "" {
				t.Errorf("connect %v = %d\n%s%s\nwant %d and %q", test.args, code, stdout, stderr, test.code, test.want)
			}
			for _, form := range s.requests {
				if form.Get("Action") != "DescribeClusters" {
					t.Errorf("connect %v asked for a credential", test.args)
				}
			}
		})
	}
}

// TestConnectSuggests: the suggested command requests everything that the original command did.
// A shell parses the suggestion.
func TestConnectSuggests(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no sh")
	}
	dir := t.TempDir() // some commands are refused after psql is found and before it is started
	if err := os.WriteFile(filepath.Join(dir, "psql"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	for _, test := range []struct{ args, want []string }{
		{[]string{"c", "--user", "ana"}, []string{"c", "DATABASE", "--host", "HOST", "--port", "5439", "--user", "ana"}},
		{[]string{"c", "my db", "--port", "6000", "--with-iam", "--print", "uri"}, []string{"c", "my db", "--host", "HOST", "--port", "6000", "--print", "uri", "--with-iam"}},
		{[]string{"c", "--host", "h", "--user", "o'hara $x", "--auto-create", "-g", "a,b", "--groups", "c", "--duration", "30m", "--psql", "sh", "--", "-c", "select '1'; --", ""},
			[]string{"c", "DATABASE", "--host", "h", "--port", "5439", "--user", "o'hara $x", "--groups", "a,b,c", "--duration", "30m", "--auto-create", "--psql", "sh", "--", "-c", "select '1'; --", ""}},
		{[]string{"c", "dev", "-u", "ana", "--print", "json", "--sslmode", "verify-ca", "--sslrootcert", "a b.crt", "--region", "eu-west-1", "--no-verify-ssl"},
			[]string{"c", "dev", "--host", "HOST", "--port", "5439", "--user", "ana", "--sslmode", "verify-ca", "--sslrootcert", "a b.crt", "--print", "json", "--region", "eu-west-1", "--no-verify-ssl"}},
	} {
		newAPIStub(t, "db.example.com").denied = true
		_, stderr, code := runConnect(t, test.args...)
		_, suggested, ok := strings.Cut(stderr, "\n\n    daypass connect ")
		if code != 254 || !ok {
			t.Fatalf("connect %q = %d %s", test.args, code, stderr)
		}
		out, err := exec.Command("sh", "-c", `printf '%s\n' `+suggested).Output()
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.Join(test.want, "\n") + "\n"; string(out) != want {
			t.Errorf("connect %q suggests\n%s\nwhich is\n%s\nwant\n%s", test.args, suggested, out, want)
		}
	}
}

func TestConnectTLS(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, host string
		env        map[string]string
		args       []string
		mode, root string
		note       string // on standard error
	}{
		{name: "option", host: "h", args: []string{"--sslrootcert", ca}, mode: "verify-full", root: ca},
		{name: "relative", host: "h", args: []string{"--sslrootcert", "connect_test.go"}, mode: "verify-full", root: mustAbs(t, "connect_test.go")},
		{name: "environment", host: "h", env: map[string]string{"DAYPASS_SSLROOTCERT": ca}, mode: "verify-full", root: ca},
		{name: "libpq's environment", host: "h", env: map[string]string{"PGSSLROOTCERT": ca}, mode: "verify-full", root: ca},
		{name: "loopback with CA", host: "127.0.0.1", env: map[string]string{"PGSSLROOTCERT": ca}, mode: "verify-full", root: ca},
		{name: "loopback", host: "127.0.0.1", mode: "require"},
		{name: "localhost", host: "localhost", mode: "require"},
		{name: "system", host: "h", args: []string{"--sslrootcert", "system"}, mode: "verify-full", root: "system"},
		{name: "mode", host: "h", args: []string{"--sslmode", "verify-ca", "--sslrootcert", ca}, mode: "verify-ca", root: ca},
		{name: "weaker mode from environment", host: "h", env: map[string]string{"PGSSLMODE": "disable", "PGSSLROOTCERT": ca}, mode: "verify-full", root: ca, note: "PGSSLMODE=disable"},
		{name: "less weak mode from environment", host: "h", env: map[string]string{"PGSSLMODE": "verify-ca", "PGSSLROOTCERT": ca}, mode: "verify-full", root: ca, note: "PGSSLMODE=verify-ca"},
		{name: "weaker mode by flag", host: "h", args: []string{"--sslmode", "disable"}, env: map[string]string{"PGSSLMODE": "verify-full"}, mode: "disable"},
		{name: "weaker mode from environment, loopback", host: "localhost", env: map[string]string{"PGSSLMODE": "prefer"}, mode: "require", note: "PGSSLMODE=prefer"},
		{name: "stronger mode from environment, loopback", host: "localhost", env: map[string]string{"PGSSLMODE": "verify-full"}, mode: "verify-full"},
		{name: "stronger mode from environment, flag", host: "h", args: []string{"--sslmode", "require"}, env: map[string]string{"PGSSLMODE": "verify-full"}, mode: "require"},
		{name: "CA of the API is not the gateway's", host: "127.0.0.1", env: map[string]string{"DAYPASS_X": ca}, mode: "require"},
	} {
		t.Run(test.name, func(t *testing.T) {
			newAPIStub(t, test.host)
			for name, value := range test.env {
				t.Setenv(name, value)
			}
			stdout, stderr, code := runConnect(t, append([]string{"c", "--user", "u", "--print", "json"}, test.args...)...)
			var got struct{ SSLMode, SSLRootCert string }
			if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != 0 {
				t.Fatalf("connect = %d %s %v", code, stderr, err)
			}
			if !strings.Contains(stderr, test.note) || (stderr == "") != (test.note == "") {
				t.Errorf("connect says %q, want %q", stderr, test.note)
			}
			if got.SSLMode != test.mode || got.SSLRootCert != test.root {
				t.Errorf("sslmode %s sslrootcert %s, want %s %s", got.SSLMode, got.SSLRootCert, test.mode, test.root)
			}
		})
	}
}

func TestRedshiftCommand(t *testing.T) {
	s := newAPIStub(t, "db.example.com")
	for _, groups := range [][]string{{"a,b"}, {"a", "b"}, {`["a", "b"]`}} {
		args := append([]string{"redshift", "get-cluster-credentials", "--cluster-identifier", "c", "--db-user", "u", "--db-groups"}, groups...)
		if _, stderr, code := runDaypass(t, args...); code != 0 || s.requests[len(s.requests)-1].Get("DbGroups.DbGroup.2") != "b" {
			t.Errorf("daypass %v = %d %s, sent %v", args, code, stderr, s.requests[len(s.requests)-1])
		}
	}
	for _, test := range []struct {
		args         []string
		code         int
		stdout, errs string
	}{
		{[]string{"redshift", "get-cluster-credentials", "--db-user", "alice", "--query", "DbUser"}, 0, "\"IAMA:alice\"\n", ""},
		{[]string{"redshift", "--output", "text", "describe-clusters", "--query", "Clusters[].DBName"}, 0, "dev\n", ""},
		{[]string{"redshift", "get-cluster-credentials"}, 252, "", "the following arguments are required: --db-user"},
		{[]string{"redshift", "--version"}, 0, "daypass ", ""},
		{[]string{"redshift", "get-cluster-credentials", "help"}, 0, "EXAMPLES", ""},
		{[]string{"redshift", "help"}, 0, "SUBCOMMANDS", ""},
	} {
		var out, errs bytes.Buffer
		code := run(context.Background(), test.args, environment{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, now: time.Now})
		if code != test.code || !strings.Contains(out.String(), test.stdout) || !strings.Contains(errs.String(), test.errs) || (test.stdout == "") != (out.Len() == 0) {
			t.Errorf("daypass %v = %d\n%s%s", test.args, code, out.String(), errs.String())
		}
	}
}

func TestCompletion(t *testing.T) {
	complete := func(args ...string) string {
		var out, errs bytes.Buffer
		if code := run(context.Background(), args, environment{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, now: time.Now}); code != 0 {
			t.Fatalf("daypass %v = %d %s", args, code, errs.String())
		}
		return out.String()
	}
	for shell, want := range map[string]string{"bash": "__start_daypass", "zsh": "#compdef daypass", "fish": "complete -c daypass"} {
		if script := complete("completion", shell); !strings.Contains(script, want) {
			t.Errorf("completion %s has no %s", shell, want)
		}
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"redshift", ""}, "get-cluster-credentials"},
		{[]string{"redshift", "get-cluster-credentials", "--db-"}, "--db-user"},
		{[]string{"redshift", "get-cluster-credentials", "--db-user", "a", "--out"}, "--output"},
		{[]string{"redshift", "get-cluster-credentials", "--output", "t"}, "table"},
		{[]string{"redshift", "describe-clusters", "--max"}, "--max-items"},
		{[]string{"connect", "--print", ""}, "pgpass"},
		{[]string{"completion", ""}, "fish"},
	} {
		if got := complete(append([]string{"__complete"}, test.args...)...); !strings.Contains(got, test.want) {
			t.Errorf("completing %q offers\n%s\nwant %s", test.args, got, test.want)
		}
	}
}

func mustAbs(t *testing.T, path string) string {
	t.Helper()
	absolute, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return absolute
}

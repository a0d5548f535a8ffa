package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/keyring"
	"github.com/daypass/daypass/internal/quote"
)

// FuzzConnectAnswer: whatever the API answers, the printed text parses back to exactly the
// checked values.
func FuzzConnectAnswer(f *testing.F) {
	f.Add("db.example.com", 5439, "dev", "IAM:alice", "secret", "2026-01-02T03:04:05Z")
	f.Add("2001:db8::1", 5439, "d+e.v@x-1", "IAMA:al+i.ce@x:analysts", oddPassword, "2026-01-02T03:04:05.678+01:00")
	f.Add("evil,host", 0, "dev hostaddr=192.0.2.1", "IAM:alice\nx", "a b", "soon")
	f.Add("_h.", 65535, "A", "IAMR:a=b,c", "'", "0000-01-01T00:00:00Z")
	f.Fuzz(func(t *testing.T, host string, port int, database, user, password, expiration string) {
		expires, _ := time.Parse(time.RFC3339Nano, expiration)
		l := logon{host: host, port: port, database: database, user: user, password: keyring.Secret(password), sslMode: "disable", expiration: expires}
		if l.check("") != nil {
			return
		}
		for _, format := range printFormats {
			text, err := l.format(format, func(string) string { return "" })
			if err != nil {
				t.Fatalf("%+v as %s: %v", l, format, err)
			}
			if format != "env" && format != "json" && quote.Terminal(text) != text {
				t.Errorf("%s: %q", format, text)
			}
			switch format {
			case "uri", "dsn":
				got, err := pgconn.ParseConfig(text)
				if err != nil {
					t.Fatalf("%s %q: %v", format, text, err)
				}
				if got.Host != host || int(got.Port) != port || got.Database != database || got.User != user || got.Password != password || len(got.RuntimeParams)+len(got.Fallbacks) > 0 || got.TLSConfig != nil {
					t.Errorf("%s %q is read as %+v", format, text, got)
				}
			case "json":
				var got struct {
					Host, Database, User, Password, Expiration string
					Port                                       int
				}
				if err := json.Unmarshal([]byte(text), &got); err != nil || got.Host != host || got.Port != port || got.Database != database || got.User != user || got.Password != password {
					t.Errorf("%s is read as %+v, %v", text, got, err)
				}
			case "env":
				for i, line := range strings.Split(text, "\n")[1:] {
					s := l.environment()[i]
					if want, err := quote.Shell(s.value); err != nil || line != "export "+s.name+"="+want {
						t.Errorf("line %q, want the value %q", line, s.value)
					}
				}
			case "pgpass":
				if strings.Count(strings.NewReplacer(`\\`, "", `\:`, "").Replace(text), ":") != 4 || !strings.Contains(text, ":"+strconv.Itoa(port)+":") {
					t.Errorf("line %q", text)
				}
			}
		}
	})
}

// TestConnectBelievesNoAnswer: connect refuses the answers of a hostile API before it prints
// anything, and the refusal contains no terminal control characters.
func TestConnectBelievesNoAnswer(t *testing.T) {
	for _, test := range []struct{ name, value string }{
		{"DBName", "dev hostaddr=192.0.2.1"}, {"DBName", "dev\nhostaddr=192.0.2.1"}, {"DBName", "dev\thostaddr=192.0.2.1"}, {"DBName", "dev'\n; id; '"},
		{"DBName", "dev?host=evil.example"}, {"DBName", "$(id)"}, {"DBName", "dev\n*:*:*:*:evil"}, {"DBName", "\u202edev"}, {"DBName", "d\u009bev"}, {"DBName", "postgresql://evil.example/"}, {"DBName", ""},
		{"Address", "/tmp"}, {"Address", "@abstract"}, {"Address", "db.example.com,evil.example"}, {"Address", "db.example.com evil"}, {"Address", "db.example.com\nPGHOSTADDR=192.0.2.1"},
		{"Address", "evil.example/x?"}, {"Address", "user@evil.example"}, {"Address", "db.example.com#"}, {"Address", "*"}, {"Address", "fe80::1%eth0"}, {"Address", "-evil"}, {"Address", strings.Repeat("a.", 200)},
		{"Port", "0"}, {"Port", "65536"}, {"Port", "5439 hostaddr=192.0.2.1"}, {"Port", "5439,5440"}, {"Port", "-1"},
		{"DbUser", "IAM:bob"}, {"DbUser", "alice"}, {"DbUser", "IAM:alice\nexport LD_PRELOAD=/tmp/x"}, {"DbUser", "IAM:alice hostaddr=192.0.2.1"}, {"DbUser", "IAM:al\u202eice"}, {"DbUser", "postgres"}, {"DbUser", ""},
		{"DbPassword", "a b"}, {"DbPassword", "x\ny"}, {"DbPassword", "x\u009b"}, {"DbPassword", "ö"}, {"DbPassword", strings.Repeat("x", 4097)}, {"DbPassword", ""},
		{"Expiration", "soon"}, {"Expiration", "2026-01-02T03:04:05Z\x1b[2J"}, {"Expiration", ""},
	} {
		s := newAPIStub(t, "db.example.com")
		s.answers = map[string]string{test.name: test.value}
		for _, format := range printFormats {
			stdout, stderr, code := runConnect(t, "c", "--user", "alice", "--sslmode", "require", "--print", format)
			if code != 255 || stdout != "" || !strings.HasPrefix(stderr, "daypass: ") {
				t.Errorf("%s %q, --print %s: %d %s%s", test.name, test.value, format, code, stdout, stderr)
			}
			if line := strings.TrimSuffix(stderr, "\n"); quote.Terminal(line) != line {
				t.Errorf("%s %q, --print %s says %q", test.name, test.value, format, stderr)
			}
		}
	}
	// The name of the database user may be in capitals; groups may be appended.
	for _, user := range []string{"IAM:alice", "IAM:ALICE", "IAMA:alice:analysts:finance"} {
		newAPIStub(t, "db.example.com").answers = map[string]string{"DbUser": user, "Address": "2001:db8::1"}
		if stdout, stderr, code := runConnect(t, "c", "--user", "alice", "--sslmode", "require", "--print", "pgpass"); code != 0 || !strings.HasPrefix(stdout, `2001\:db8\:\:1:5440:dev:`) {
			t.Errorf("%s: %d %s%s", user, code, stdout, stderr)
		}
	}
}

// TestConnectIsNotAnsweredByAnAPI: if a server that is not this API answers, the error says to
// check the endpoint.
func TestConnectIsNotAnsweredByAnAPI(t *testing.T) {
	for _, row := range []struct {
		status     int
		body, want string
		code       int
	}{
		{http.StatusOK, "<html>welcome</html>", "the answer is not one of this API", 255},
		{http.StatusOK, "", "the API knows no such cluster", 255},
		{http.StatusOK, strings.Repeat("<a>", 100000), "the answer is not one of this API", 255},
		{http.StatusNotFound, "<html>no such page</html>", "DescribeClusters: UnknownError: status 404 without an error of this API", 254},
		{http.StatusFound, "", "DescribeClusters: UnknownError: status 302 without an error of this API", 254},
	} {
		newAPIStub(t, "db.example.com")
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(row.status)
			_, _ = io.WriteString(w, row.body)
		}))
		t.Setenv("AWS_ENDPOINT_URL", server.URL)
		stdout, stderr, code := runConnect(t, "c", "--user", "alice", "--sslmode", "require", "--print", "uri")
		server.Close()
		if code != row.code || stdout != "" || !strings.Contains(stderr, row.want) || !strings.Contains(strings.ReplaceAll(stderr, "\n", " "), "check") || len(stderr) > 500 {
			t.Errorf("%d %.40q: connect = %d %s%.600s, want %d %q", row.status, row.body, code, stdout, stderr, row.code, row.want)
		}
	}
}

// TestConnectToNoCluster: the error of a cluster that does not exist says where to find those that do.
func TestConnectToNoCluster(t *testing.T) {
	newAPIStub(t, "db.example.com")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "<ErrorResponse><Error><Code>ClusterNotFound</Code><Message>Cluster c not found.</Message></Error></ErrorResponse>")
	}))
	defer server.Close()
	t.Setenv("AWS_ENDPOINT_URL", server.URL)
	const want = "Cluster c not found.\n\nCheck its name: `daypass redshift describe-clusters` lists"
	if stdout, stderr, code := runConnect(t, "c", "--user", "alice", "--sslmode", "require", "--print", "uri"); code != 254 || stdout != "" || !strings.Contains(stderr, want) {
		t.Errorf("connect = %d %s%s, want 254 and %q", code, stdout, stderr, want)
	}
}

// TestConnectErrorsDoNotCommandTerminals: printed errors of a service contain no terminal
// control characters.
func TestConnectErrorsDoNotCommandTerminals(t *testing.T) {
	s := newAPIStub(t, "db.example.com")
	s.denied, s.answers = true, map[string]string{"Message": "no\x9b \u009b2J\u202e\x1b]0;x\a\r\ndaypass: done"}
	for _, args := range [][]string{
		{"connect", "c", "--user", "alice", "--print", "uri"}, {"redshift", "describe-clusters"}, {"sessions"}, {"revoke", "list"}, {"sessions", "kill", "x"},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), args, environment{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, now: time.Now})
		if code != 254 || !strings.Contains(errs.String(), `\u009b2J\u202e`) {
			t.Errorf("daypass %v = %d %q", args, code, errs.String())
		}
		if quote.TerminalText(errs.String()) != errs.String() || strings.Contains(errs.String(), "\ndaypass: done") {
			t.Errorf("daypass %v says %q", args, errs.String())
		}
	}
}

// TestConnectOverHTTP: connect uses a plain HTTP URL of another machine only if a flag allows
// it.
func TestConnectOverHTTP(t *testing.T) {
	s := newAPIStub(t, "db.example.com")
	t.Setenv("NO_PROXY", "")
	t.Setenv("HTTP_PROXY", s.url) // so that requests to the other machine reach the stub
	t.Setenv("AWS_ENDPOINT_URL", "http://daypass.example.com:8440")
	for _, args := range [][]string{{"connect", "c", "--user", "alice", "--sslmode", "require", "--print", "uri"}, {"sessions"}, {"revoke", "--all"}, {"revoke", "list"}, {"sessions", "kill", "x"}} {
		before := len(s.requests)
		_, stderr, code := runDaypass(t, args...)
		if code != 253 || !strings.Contains(stderr, "has no TLS") || !strings.Contains(stderr, "--allow-http") || len(s.requests) != before {
			t.Errorf("daypass %v = %d %s", args, code, stderr)
		}
	}
	for _, endpoint := range []string{"http://localhost.example.com", "http://127.0.0.1.example.com", "http://192.0.2.1", "http://[2001:db8::1]:8440"} {
		if _, stderr, code := runDaypass(t, "sessions", "--endpoint-url", endpoint); code != 253 || !strings.Contains(stderr, "has no TLS") {
			t.Errorf("sessions at %s = %d %s", endpoint, code, stderr)
		}
	}
}

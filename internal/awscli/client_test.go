package awscli_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/smithy-go"

	"github.com/daypass/daypass/internal/awscli"
	"github.com/daypass/daypass/internal/awscli/pyvalue"
	"github.com/daypass/daypass/internal/awsconfig"
)

// TestOnlyOurs has the cases that version 1 of the AWS CLI does not support.
func TestOnlyOurs(t *testing.T) {
	for _, test := range []struct {
		awsCase
		stdout, stderr string   // what they must be, and contain
		requests       []string // nil for any
	}{
		{awsCase: awsCase{args: credentials("--output", "yaml")}, stdout: "DbPassword: secret-password\nDbUser: IAM:alice\nExpiration: '2026-01-02T03:04:05.678000+00:00'\n"},
		{awsCase: awsCase{args: credentials("--output", "yaml", "--query", "Expiration"), config: "[default]\ncli_timestamp_format = wire\n"}, stdout: "\"2026-01-02T03:04:05.678Z\"\n"},
		{awsCase: awsCase{args: credentials("--query", "Expiration"), config: "[default]\noutput = yaml\n"}, stdout: "\"2026-01-02T03:04:05.678000+00:00\"\n"},
		{awsCase: awsCase{args: credentials("--output", "yaml", "--query", "DbUser")}, stdout: "\"IAM:alice\"\n"},
		{awsCase: awsCase{args: credentials("--output", "yaml", "--query", "missing")}, stdout: "null\n"},
		{awsCase: awsCase{args: credentials("--output", "yaml", "--query", "`{}`")}, stdout: ""},
		{awsCase: awsCase{args: credentials("--output", "yaml", "--generate-cli-skeleton", "output")}, stdout: "DbPassword: DbPassword\nDbUser: DbUser\nExpiration: 1970-01-01 00:00:00\n"},
		{awsCase: awsCase{args: credentials("--output", "yaml-stream")}, stdout: "- DbPassword: secret-password\n  DbUser: IAM:alice\n  Expiration: '2026-01-02T03:04:05.678000+00:00'\n"},
		{awsCase: awsCase{args: clusters("--output", "yaml-stream", "--query", "{m: Marker, c: Clusters[].ClusterIdentifier}"), scenario: "pages"}, stdout: "- c:\n  - c1\n  - c2\n  m: m2\n- c:\n  - c3\n  - c4\n  m: m3\n- c:\n  - c5\n  m: null\n"},
		{awsCase: awsCase{args: credentials("--output", "off")}, stdout: "", requests: []string{"Action=GetClusterCredentials&Version=2012-12-01&DbUser=alice&ClusterIdentifier=examplecluster"}},
		{awsCase: awsCase{args: bare("--generate-cli-skeleton", "yaml-input")}, stdout: yamlSkeleton},
		{awsCase: awsCase{args: bare("--cli-input-yaml", yamlSkeleton, "--db-user", "alice", "--query", "DbUser")}, stdout: "\"IAM:alice\"\n",
			requests: []string{"Action=GetClusterCredentials&Version=2012-12-01&DbUser=alice&DbName=&ClusterIdentifier=&DurationSeconds=0&AutoCreate=true&DbGroups.DbGroup.1=&CustomDomainName="}},
		{awsCase: awsCase{args: bare("--cli-input-yaml", "{DbUser: 2026-01-02, DurationSeconds: 0x384, AutoCreate: no}", "--query", "DbUser"), code: usage}, stderr: "Invalid type for parameter AutoCreate, value: no, type: <class 'str'>, valid types: <class 'bool'>"},
		{awsCase: awsCase{args: bare("--cli-input-yaml", "a: [", "--db-user", "x"), code: usage}, stderr: "Error parsing parameter 'cli-input-yaml': Invalid YAML:"},
		{awsCase: awsCase{args: bare("--cli-input-yaml", "a: &x 1\nb: *x"), code: usage}, stderr: "aliases are not supported"},
		{awsCase: awsCase{args: bare("--cli-input-yaml", "{}", "--cli-input-json", "{}"), code: usage}, stderr: "Only one --cli-input- parameter may be specified."},
		{awsCase: awsCase{args: bare("--cli-input-json", "fileb://input.json", "--query", "DbUser")}, stdout: "\"IAM:alice\"\n"},
		{awsCase: awsCase{args: bare("--cli-input-json={\"DbUser\": \"x\"}", "--query", "DbUser")}, stdout: "\"IAM:alice\"\n"},
		{awsCase: awsCase{args: bare("--db-user", "https://example.com/", "--query", "DbUser")}, stdout: "\"IAM:alice\"\n",
			requests: []string{"Action=GetClusterCredentials&Version=2012-12-01&DbUser=https%3A%2F%2Fexample.com%2F"}},
		{awsCase: awsCase{args: credentials("--db-groups", "file://user.txt"), code: usage}, stderr: `Error parsing parameter '--db-groups': the file must hold a JSON list`},
		{awsCase: awsCase{args: credentials("--db-groups", "fileb://latin1.json"), code: usage}, stderr: "Error parsing parameter '--db-groups': Unable to load paramfile (latin1.json), text contents could not be decoded.\n"},
		{awsCase: awsCase{args: bare("--cli-input-yaml", "file://nope.yaml"), code: usage}, stderr: "Error parsing parameter '--cli-input-yaml': Unable to load paramfile file://nope.yaml: [Errno 2] No such file or directory: 'nope.yaml'"},
		{awsCase: awsCase{args: credentials("--no-cli-pager", "--cli-binary-format", "raw-in-base64-out", "--query", "DbUser")}, stdout: "\"IAM:alice\"\n"},
		{awsCase: awsCase{args: credentials("--no-cli"), code: usage}, stderr: "Unknown options: --no-cli"},
		{awsCase: awsCase{args: credentials("--cli-connect-timeout", "-1"), code: usage}, stderr: "Bad value for --cli-connect-timeout: -1 seconds"},
		{awsCase: awsCase{args: credentials(), config: "[default]\noutput = bogus\n", code: general}, stderr: "Unknown output type: bogus", requests: []string{}},
		{awsCase: awsCase{args: credentials("--ca-bundle", "nope.pem"), code: configuration}, stderr: "invalid path: nope.pem"},
		{awsCase: awsCase{args: credentials(), env: map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, config: "[default]\ncredential_process = false\n", code: configuration}, stderr: "Error when retrieving credentials: "},
		{awsCase: awsCase{args: []string{"--version"}}, stdout: "daypass test\n", requests: []string{}},
		{awsCase: awsCase{args: credentials("--version", "--query", "[")}, stdout: "daypass test\n", requests: []string{}},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			stdout, stderr, code, requests := test.execute(t)
			if stdout != test.stdout || code != test.code || !strings.Contains(stderr, test.stderr) {
				t.Errorf("exit %d, printed\n%s\nsaid\n%s\nwant exit %d,\n%s\nand\n%s", code, stdout, stderr, test.code, test.stdout, test.stderr)
			}
			if test.requests != nil && !slices.Equal(requests, test.requests) {
				t.Errorf("sent %q, want %q", requests, test.requests)
			}
		})
	}
}

const yamlSkeleton = `DbUser: ''  # [REQUIRED] The name of a database user.
DbName: '' # The name of a database that DbUser is authorized to log on to.
ClusterIdentifier: '' # The unique identifier of the cluster that contains the database for which you are requesting credentials.
DurationSeconds: 0 # The number of seconds until the returned temporary password expires.
AutoCreate: true # Create a database user with the name specified for the user named in DbUser if one does not exist.
DbGroups: # A list of the names of existing database groups that the user named in DbUser will join for the current session, in addition to any group memberships for an existing user.
- ''
CustomDomainName: '' # The custom domain name for the cluster credentials.
`

func TestSigning(t *testing.T) {
	for _, test := range []struct {
		name   string
		env    map[string]string
		args   []string
		want   string // in the Authorization header; "" for no header
		config string
	}{
		{"AWS_REGION", map[string]string{"AWS_REGION": "eu-west-3", "AWS_DEFAULT_REGION": "us-east-1"}, nil, "Credential=AKIAEXAMPLE/DATE/eu-west-3/redshift/aws4_request", ""},
		{"--region", map[string]string{"AWS_REGION": "eu-west-3"}, []string{"--region", "ap-south-1"}, "/ap-south-1/redshift/aws4_request", ""},
		{"another profile", map[string]string{"AWS_PROFILE": "p", "AWS_DEFAULT_PROFILE": "q", "AWS_DEFAULT_REGION": ""}, nil, "AKIAEXAMPLE/DATE/eu-west-2/redshift",
			"[profile p]\nregion = eu-west-1\n[profile q]\nregion = eu-west-2\naws_access_key_id = AKIAOTHER\naws_secret_access_key = x\n"},
		{"session token", map[string]string{"AWS_SESSION_TOKEN": "token"}, nil, "x-amz-security-token", ""},
		{"unsigned", nil, []string{"--no-sign-request"}, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newStub(t, "")
			c := awsCase{args: credentials(test.args...), env: test.env, config: test.config}
			args := c.prepare(t, s.server.URL)
			var out, errs bytes.Buffer
			if code := awscli.Run(t.Context(), awscli.Env{Stdout: &out, Stderr: &errs, Getenv: os.Getenv, Program: "daypass"}, args); code != 0 {
				t.Fatal(errs.String())
			}
			header := s.headers[0].Get("Authorization")
			want := strings.Replace(test.want, "DATE", s.headers[0].Get("X-Amz-Date")[:min(8, len(s.headers[0].Get("X-Amz-Date")))], 1)
			if test.want == "" && header != "" || !strings.Contains(header, want) {
				t.Errorf("Authorization: %s, want %s", header, want)
			}
			if got := s.headers[0].Get("Content-Type"); got != "application/x-www-form-urlencoded; charset=utf-8" {
				t.Errorf("Content-Type: %s", got)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, body := scenarios["wide"](nil)
		_, _ = w.Write([]byte(body))
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it would log refused handshakes
	server.StartTLS()
	defer server.Close()
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	garbage := filepath.Join(t.TempDir(), "garbage.pem")
	if err := os.WriteFile(garbage, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		args   []string
		env    map[string]string
		config string
		code   int
		stderr string
	}{
		{name: "unknown CA", code: general, stderr: "SSL validation failed for " + server.URL},
		{name: "--ca-bundle", args: []string{"--ca-bundle", bundle}},
		{name: "AWS_CA_BUNDLE", env: map[string]string{"AWS_CA_BUNDLE": bundle}},
		{name: "ca_bundle", config: "[default]\nca_bundle = " + bundle + "\n"},
		{name: "no certificate", env: map[string]string{"AWS_CA_BUNDLE": garbage}, code: configuration, stderr: garbage + " (AWS_CA_BUNDLE)"},
		{name: "no file", env: map[string]string{"AWS_CA_BUNDLE": "no.pem"}, code: configuration, stderr: "invalid path: no.pem (AWS_CA_BUNDLE)"},
		{name: "no file in the profile", config: "[default]\nca_bundle = no.pem\n", code: configuration, stderr: "invalid path: no.pem (ca_bundle of profile default)"},
		{name: "no certificate for --ca-bundle", args: []string{"--ca-bundle", garbage}, env: map[string]string{"AWS_CA_BUNDLE": bundle}, code: configuration, stderr: garbage + " (--ca-bundle)"},
		{name: "--no-verify-ssl", args: []string{"--no-verify-ssl"}, stderr: "warning: the certificate of the endpoint is not checked"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := awsCase{args: credentials(append(test.args, "--query", "DbUser")...), env: map[string]string{"AWS_MAX_ATTEMPTS": "1"}, config: test.config}
			maps.Copy(c.env, test.env)
			args := c.prepare(t, server.URL)
			var out, errs bytes.Buffer
			code := awscli.Run(t.Context(), awscli.Env{Stdout: &out, Stderr: &errs, Getenv: os.Getenv, Program: "daypass"}, args)
			if code != test.code || !strings.Contains(errs.String(), test.stderr) || (code == 0) != (out.String() == "\"IAM:alice\"\n") {
				t.Errorf("exit %d, %s%s", code, out.String(), errs.String())
			}
		})
	}
}

// TestNoAnswer has a service that accepts the request and never answers.
func TestNoAnswer(t *testing.T) {
	release := make(chan struct{})
	arrived := make(chan struct{}, 10)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	}))
	defer server.Close()
	defer close(release)
	run := func(ctx context.Context, more ...string) (int, string) {
		c := awsCase{args: credentials(more...), env: map[string]string{"AWS_MAX_ATTEMPTS": "1"}}
		var errs bytes.Buffer
		code := awscli.Run(ctx, awscli.Env{Stdout: new(bytes.Buffer), Stderr: &errs, Getenv: os.Getenv, Program: "daypass"}, c.prepare(t, server.URL))
		return code, errs.String()
	}
	t.Run("timeout", func(t *testing.T) {
		if code, stderr := run(t.Context(), "--cli-read-timeout", "1"); code != general || !strings.Contains(stderr, "Read timeout on endpoint URL: \""+server.URL) {
			t.Errorf("exit %d, %s", code, stderr)
		}
		<-arrived
	})
	t.Run("interrupt", func(t *testing.T) {
		t.Chdir("../..") // prepare has changed to testdata/files
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-arrived
			cancel()
		}()
		if code, stderr := run(ctx); code != awsconfig.ExitInterrupted {
			t.Errorf("exit %d, %s", code, stderr)
		}
	})
}

func TestDebugKeepsSecrets(t *testing.T) {
	c := awsCase{args: credentials("--debug", "--query", "DbUser"), env: map[string]string{"AWS_SESSION_TOKEN": "session-token"}}
	_, stderr, code, _ := c.execute(t)
	if code != 0 || !strings.Contains(stderr, "Action=GetClusterCredentials") || !strings.Contains(stderr, "200 OK") {
		t.Errorf("exit %d, --debug said %s", code, stderr)
	}
	for _, secret := range []string{"secret-password", "session-token", "Signature="} {
		if strings.Contains(stderr, secret) {
			t.Errorf("--debug said %s:\n%s", secret, stderr)
		}
	}
}

// TestTerminal: a table on a terminal is coloured and as wide as the terminal.
func TestTerminal(t *testing.T) {
	s := newStub(t, "wide")
	c := awsCase{args: credentials("--output", "table")}
	args := c.prepare(t, s.server.URL)
	for _, width := range []int{0, 80, 400} {
		var out bytes.Buffer
		if code := awscli.Run(t.Context(), awscli.Env{Stdout: &out, Stderr: &out, Getenv: os.Getenv, Program: "daypass", Width: width}, args); code != 0 {
			t.Fatal(out.String())
		}
		if colored := strings.Contains(out.String(), "\x1b[34m"); colored != (width > 0) {
			t.Errorf("width %d: coloured %v", width, colored)
		}
		// A table with one column for each member has them all in one line.
		if one := strings.Count(out.String(), "DbPassword") == 1 && strings.Contains(strings.Split(out.String(), "DbPassword")[1], "DbUser") && strings.Contains(strings.Split(out.String(), "\n")[3], "Expiration"); one != (width == 400) {
			t.Errorf("width %d: one row %v\n%s", width, one, out.String())
		}
	}
}

func TestClient(t *testing.T) {
	s := newStub(t, "not found")
	awsCase{}.prepare(t, s.server.URL)
	client, err := awscli.NewClient(t.Context(), awsconfig.Settings{EndpointURL: s.server.URL, ConnectTimeout: time.Second, ReadTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var params pyvalue.Object
	_, err = awscli.CallByName(client, t.Context(), "DescribeClusters", &params)
	if api, ok := errors.AsType[*awsconfig.APIError](err); !ok || api.Code != "ClusterNotFound" || api.Operation != "DescribeClusters" || awsconfig.ExitCode(err) != awsconfig.ExitService {
		t.Errorf("Call = %v", err)
	}
	if err.Error() != "An error occurred (ClusterNotFound) when calling the DescribeClusters operation: Cluster x not found." {
		t.Errorf("Call = %v", err)
	}
	params.Set("Bogus", true)
	if _, err := awscli.CallByName(client, t.Context(), "DescribeClusters", &params); awsconfig.ExitCode(err) != awsconfig.ExitUsage {
		t.Errorf("Call with a bogus parameter = %v", err)
	}
	if _, err := awscli.CallByName(client, t.Context(), "DropEverything", &params); err == nil {
		t.Error("Call of an unknown operation gave no error")
	}
	if _, err := awscli.NewClient(t.Context(), awsconfig.Settings{EndpointURL: "localhost:8440"}); awsconfig.ExitCode(err) != awsconfig.ExitUsage {
		t.Errorf("NewClient with a bad URL = %v", err)
	}
}

func TestHelpNamesEveryOption(t *testing.T) {
	for _, name := range []string{"get-cluster-credentials", "get-cluster-credentials-with-iam", "describe-clusters"} {
		for _, word := range []string{"help", "--help", "-h"} {
			var out, errs bytes.Buffer
			if code := awscli.Run(t.Context(), awscli.Env{Stdout: &out, Stderr: &errs, Getenv: os.Getenv, Program: "daypass"}, []string{name, word}); code != 0 {
				t.Fatalf("%s %s = %d %s", name, word, code, errs.String())
			}
			for line := range strings.SplitSeq(out.String(), "\n") {
				if len(line) > 80 {
					t.Errorf("%s: a line of %d columns: %s", name, len(line), line)
				}
			}
			words, _ := awscli.Complete([]string{name}, "--")
			for _, option := range words {
				option, meaning, _ := strings.Cut(option, "\t")
				if !strings.Contains(out.String(), option) || meaning == "" {
					t.Errorf("help of %s does not explain %s", name, option)
				}
			}
		}
	}
}

func TestComplete(t *testing.T) {
	for _, test := range []struct {
		before []string
		word   string
		want   string // the words, in order
		files  bool
	}{
		{nil, "", "describe-clusters get-cluster-credentials get-cluster-credentials-with-iam help", false},
		{nil, "get", "get-cluster-credentials get-cluster-credentials-with-iam", false},
		{[]string{"--region", "x"}, "d", "describe-clusters", false},
		{[]string{"--output"}, "", "json text table yaml yaml-stream off", false},
		{[]string{"get-cluster-credentials"}, "--db", "--db-user --db-name --db-groups", false},
		{[]string{"get-cluster-credentials"}, "", "help", false},
		{[]string{"get-cluster-credentials", "--db-user"}, "", "", false},
		{[]string{"get-cluster-credentials", "--auto-create"}, "--no-a", "--no-auto-create", false},
		{[]string{"describe-clusters", "--ca-bundle"}, "", "", true},
		{[]string{"describe-clusters"}, "--db", "", false},
		{[]string{"describe-clusters", "--generate-cli-skeleton"}, "", "input output yaml-input", false},
	} {
		words, files := awscli.Complete(test.before, test.word)
		var names []string
		for _, word := range words {
			name, _, _ := strings.Cut(word, "\t")
			names = append(names, name)
		}
		if got := strings.Join(names, " "); got != test.want || files != test.files {
			t.Errorf("Complete(%q, %q) = %q, %v, want %q, %v", test.before, test.word, got, files, test.want, test.files)
		}
	}
}

// FuzzArguments spells parsed arguments out in full, and checks that they parse to the same
// result. Values, and arguments that were not parsed, are kept as they are.
func FuzzArguments(f *testing.F) {
	f.Add("--db-user\x00alice\x00--db-groups\x00a\x00b\x00--auto-create")
	f.Add("--db-u=x\x00--\x00-1\x00--dur=9\x00help")
	f.Add("--db-user=alice\x00--cluster-id\x00c\x00--db-groups=-x\x00--no-auto\x00--dur\x00900\x00-1\x00--else\x00word")
	f.Add("--db-user\x00a\x00--cluster-identifier\x00c\x00--generate-cli-skeleton\x00--query=\x00--\x00-x\x00y")
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\x00")
		parsed, rest, err := awscli.ParseArguments(slices.Clone(args))
		if err != nil {
			return
		}
		at := 0
		for _, word := range rest {
			skipped := slices.Index(args[at:], word)
			if skipped < 0 {
				t.Fatalf("%q: %q is left, which is not in order in the command line", args, rest)
			}
			at += skipped + 1
		}
		for name, value := range parsed {
			values, _ := value.([]string)
			if text, ok := value.(string); ok {
				values = []string{text}
			}
			for _, value := range values {
				stands := func(word string) bool {
					_, behind, equals := strings.Cut(word, "=")
					return word == value || equals && behind == value
				}
				if !slices.ContainsFunc(args, stands) && !(name == "generate-cli-skeleton" && value == "input") {
					t.Errorf("%q: %s is %q, which is not in the command line", args, name, value)
				}
			}
		}
		spelled := awscli.SpellArguments(parsed)
		again, rest, err := awscli.ParseArguments(spelled)
		if err != nil || len(rest) > 0 || !reflect.DeepEqual(again, parsed) {
			t.Errorf("%q is %v, but %q is %v, %q, %v", args, parsed, spelled, again, rest, err)
		}
	})
}

// FuzzDecode: each text in a decoded value comes from an element of the answer with the same
// name, and a value that is written as an answer decodes to the same value.
func FuzzDecode(f *testing.F) {
	for name := range scenarios {
		_, body := scenarios[name](nil)
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		said := textsOf(body)
		var code *smithy.GenericAPIError
		switch err := awscli.DecodeError(400, body); {
		case err == nil:
			t.Error("a refusal is read as no error")
		case errors.As(err, &code):
			for _, part := range []struct{ name, text, otherwise string }{{"Code", code.Code, "Unknown"}, {"Message", code.Message, "Unknown"}} {
				if part.text != part.otherwise && part.text != "None" && !slices.Contains(said[part.name], part.text) {
					t.Errorf("%s %q, which stands in no element of that name", part.name, part.text)
				}
			}
		}
		value, err := awscli.Decode(body, "wire")
		if err != nil {
			return
		}
		stands(t, said, "", value)
		var answer bytes.Buffer
		answer.WriteString("<R>")
		writeElement(&answer, "DescribeClustersResult", value)
		answer.WriteString("</R>")
		again, err := awscli.Decode(answer.Bytes(), "wire")
		if err != nil || pyvalue.Repr(again) != pyvalue.Repr(value) {
			t.Errorf("%s is written as %s, which is read as %s, %v", pyvalue.Repr(value), answer.String(), pyvalue.Repr(again), err)
		}
		if rendered, err := awscli.Decode(body, "iso8601"); err == nil {
			answer.Reset()
			answer.WriteString("<R>")
			writeElement(&answer, "DescribeClustersResult", rendered)
			answer.WriteString("</R>")
			if again, err := awscli.Decode(answer.Bytes(), "iso8601"); err != nil || pyvalue.Repr(again) != pyvalue.Repr(rendered) {
				t.Errorf("%s with its timestamps rendered twice is %s, %v", pyvalue.Repr(rendered), pyvalue.Repr(again), err)
			}
		}
	})
}

// textsOf returns the texts before the first child of each element, by element name; those of
// all elements are under the name "".
func textsOf(body []byte) map[string][]string {
	texts := map[string][]string{}
	type element struct {
		name, text string
		parent     bool
	}
	var open []element
	for decoder := xml.NewDecoder(bytes.NewReader(body)); ; {
		token, err := decoder.Token()
		if err != nil {
			return texts
		}
		switch token := token.(type) {
		case xml.StartElement:
			if len(open) > 0 {
				open[len(open)-1].parent = true
			}
			open = append(open, element{name: token.Name.Local})
		case xml.CharData:
			if len(open) > 0 && !open[len(open)-1].parent {
				open[len(open)-1].text += string(token)
			}
		case xml.EndElement:
			e := open[len(open)-1]
			open = open[:len(open)-1]
			texts[e.name] = append(texts[e.name], e.text)
			texts[""] = append(texts[""], e.text)
		}
	}
}

// stands checks that every text of a value occurs in an element with the value's name.
func stands(t *testing.T, said map[string][]string, name string, value any) {
	t.Helper()
	switch value := value.(type) {
	case *pyvalue.Object:
		for name, member := range value.All() {
			stands(t, said, name, member)
		}
	case []any:
		for _, member := range value {
			stands(t, said, "", member)
		}
	case string:
		if !slices.Contains(said[name], value) {
			t.Errorf("%s is %q, which stands in no element of that name", name, value)
		}
	case bool:
		if value && !slices.Contains(said[name], "true") {
			t.Errorf("%s is true, which stands in no element of that name", name)
		}
	default:
		read := func(text string) bool {
			n, whole := pyvalue.ParseInt(text)
			f, real := pyvalue.ParseFloat(text)
			return whole && pyvalue.Repr(n) == pyvalue.Repr(value) || real && pyvalue.Repr(f) == pyvalue.Repr(value)
		}
		if !slices.ContainsFunc(said[name], read) {
			t.Errorf("%s is %s, which stands in no element of that name", name, pyvalue.Repr(value))
		}
	}
}

// writeElement writes a value as an answer has it.
func writeElement(b *bytes.Buffer, name string, value any) {
	fmt.Fprintf(b, "<%s>", name)
	switch value := value.(type) {
	case *pyvalue.Object:
		for name, member := range value.All() {
			writeElement(b, name, member)
		}
	case []any:
		for _, member := range value {
			writeElement(b, "member", member)
		}
	case string:
		_ = xml.EscapeText(b, []byte(value))
	default:
		b.WriteString(pyvalue.CompactJSON(value))
	}
	fmt.Fprintf(b, "</%s>", name)
}

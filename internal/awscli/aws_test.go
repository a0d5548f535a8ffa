package awscli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/awscli"
	"github.com/daypass/daypass/test/envtest"
)

func TestMain(m *testing.M) {
	envtest.Clear()
	m.Run()
}

var update = flag.Bool("update", false, "record the cases that are not recorded with the aws program, version 1 of the AWS CLI")

// recorded is what the AWS CLI did with a case.
type recorded struct {
	Case     string   `json:"case"`
	Stdout   string   `json:"stdout"`
	Stderr   string   `json:"stderr"` // the message alone
	Code     int      `json:"code"`
	Requests []string `json:"requests"`
}

const golden = "testdata/aws.golden"

// key names a case in the recording.
func (c awsCase) key() string {
	var env []string
	for name, value := range c.env {
		env = append(env, name+"="+value)
	}
	sort.Strings(env)
	key, err := json.Marshal([]any{c.args, c.scenario, env, c.config})
	if err != nil {
		panic(err)
	}
	return string(key)
}

// prepare sets up the environment of a case and returns its arguments. The endpoint is passed as
// an option, unless the configuration begins with noflag. A variable without a value is not set;
// one with EMPTY is set to the empty string.
func (c awsCase) prepare(t *testing.T, url string) []string {
	home := t.TempDir()
	config, noflag := strings.CutPrefix(c.config, "noflag")
	path := filepath.Join(home, "config")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(config, "STUB", url)), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		"HOME": home, "AWS_CONFIG_FILE": path, "AWS_SHARED_CREDENTIALS_FILE": filepath.Join(home, "credentials"),
		"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
		"AWS_EC2_METADATA_DISABLED": "true", "LC_ALL": "C.UTF-8", "PYTHONWARNINGS": "ignore",
	}
	for _, name := range []string{"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_REGION", "AWS_DEFAULT_OUTPUT", "AWS_CA_BUNDLE", "AWS_ENDPOINT_URL",
		"AWS_ENDPOINT_URL_REDSHIFT", "AWS_ENDPOINT_URL_STS", "AWS_SESSION_TOKEN", "AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"} {
		env[name] = ""
	}
	for name, value := range c.env {
		env[name] = strings.ReplaceAll(value, "STUB", url)
	}
	for name, value := range env {
		t.Setenv(name, value)
		switch value {
		case "":
			os.Unsetenv(name)
		case "EMPTY":
			t.Setenv(name, "")
		}
	}
	t.Chdir("testdata/files")
	args := append([]string{}, c.args...)
	for _, arg := range args {
		noflag = noflag || arg == "--endpoint-url"
	}
	if !noflag {
		args = append([]string{"--endpoint-url", url}, args...)
	}
	return args
}

func (c awsCase) record(t *testing.T) recorded {
	s := newStub(t, c.scenario)
	args := c.prepare(t, s.server.URL)
	cmd := exec.Command("aws", append([]string{"redshift"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	clean := strings.NewReplacer(s.server.URL, "STUB")
	return recorded{Case: c.key(), Stdout: clean.Replace(stdout.String()), Stderr: message(clean.Replace(stderr.String())), Code: cmd.ProcessState.ExitCode(), Requests: s.received()}
}

func recordings(t *testing.T) map[string]recorded {
	t.Helper()
	all := map[string]recorded{}
	data, err := os.ReadFile(golden)
	if err != nil && !*update {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		var r recorded
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		all[r.Case] = r
	}
	if !*update {
		return all
	}
	var out bytes.Buffer
	for _, c := range awsCases() {
		r, ok := all[c.key()]
		if !ok {
			t.Run("record", func(t *testing.T) { r = c.record(t) })
			all[c.key()] = r
		}
		line, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(append(line, '\n'))
	}
	if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return all
}

// execute runs a case through our client.
func (c awsCase) execute(t *testing.T) (stdout, stderr string, code int, requests []string) {
	t.Helper()
	s := newStub(t, c.scenario)
	args := c.prepare(t, s.server.URL)
	var out, errs bytes.Buffer
	code = awscli.Run(context.Background(), awscli.Env{
		Stdout: &out, Stderr: &errs, Getenv: os.Getenv, Program: "daypass", Version: "daypass test",
	}, args)
	clean := strings.NewReplacer(s.server.URL, "STUB")
	return clean.Replace(out.String()), clean.Replace(errs.String()), code, s.received()
}

// TestAgainstAWS compares standard output, the requests and the message on standard error with
// those of the AWS CLI.
func TestAgainstAWS(t *testing.T) {
	cases := awsCases()
	all := recordings(t)
	if len(cases) < 400 {
		t.Errorf("%d cases, want more than 400", len(cases))
	}
	for i, c := range cases {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			want, ok := all[c.key()]
			if !ok {
				t.Fatalf("%s is not recorded: run with -update where the aws program is", c.key())
			}
			stdout, stderr, code, requests := c.execute(t)
			if stdout != want.Stdout {
				t.Errorf("%s\nprinted\n%s\nwant\n%s", c.key(), stdout, want.Stdout)
			}
			if code != c.code {
				t.Errorf("%s = exit %d, want %d; it said %s", c.key(), code, c.code, stderr)
			}
			if (want.Code == 0) != (c.code == 0) {
				t.Errorf("%s: the AWS CLI ended with %d, we want %d", c.key(), want.Code, c.code)
			}
			got, said := message(stderr), want.Stderr
			if c.ours != "" {
				if !strings.Contains(got, c.ours) {
					t.Errorf("%s said\n%s\nwant it to say\n%s", c.key(), got, c.ours)
				}
			} else if got != said {
				t.Errorf("%s said\n%s\nwant\n%s", c.key(), got, said)
			}
			if fmt.Sprint(requests) != fmt.Sprint(want.Requests) {
				t.Errorf("%s sent\n%q\nwant\n%q", c.key(), requests, want.Requests)
			}
		})
	}
}

var errorPrefix = regexp.MustCompile(`(?m)^(aws|daypass): error: `)

// message returns the message on standard error, without the usage text, which differs, and
// without the name of the program.
func message(stderr string) string {
	if _, after, ok := strings.Cut(stderr, "<subcommand> help\n"); ok {
		stderr = after
	}
	var lines []string
	for line := range strings.SplitSeq(stderr, "\n") {
		switch {
		case strings.HasPrefix(line, "warning: the certificate of the endpoint"):
		case strings.HasPrefix(line, "DEBUG"):
		default:
			lines = append(lines, strings.TrimRight(line, " "))
		}
	}
	return strings.TrimSpace(errorPrefix.ReplaceAllString(strings.Join(lines, "\n"), "daypass: error: "))
}

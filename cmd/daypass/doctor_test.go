package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/daypass/daypass/internal/devidp"
	"github.com/daypass/daypass/internal/doctor"
	"github.com/daypass/daypass/internal/server"
	"github.com/daypass/daypass/test/etcdtest"
	"github.com/daypass/daypass/test/sitetest"
)

// plantedSecrets are in the configuration, its files and the environment of TestDoctor. None of
// them looks like a secret.
var plantedSecrets = []string{"correct horse battery", "planted-upstream-pw", "planted inline, key", "JBSWY3DPEHPK3PXP", "planted-session-token", "planted-person-secret"}

// plantedNames must be masked unless the caller asks for names.
var plantedNames = []string{"210987654321", "warehouse-primary", "db.customer.example", "198.51.100.7", "acme-billing"}

// doctorSite writes a configuration that contains everything that must not be printed.
func doctorSite(t *testing.T, upstream, advertise, more string) (path string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "customer-name")
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	address := func() string {
		free, err := sitetest.FreeAddress()
		if err != nil {
			t.Fatal(err)
		}
		return free
	}
	write("ana.secret", "correct horse battery\n")
	write("upstream.password", "planted-upstream-pw\n")
	t.Setenv("PLANTED_SEED", "JBSWY3DPEHPK3PXP")
	write("daypass.yaml", fmt.Sprintf(`account: "210987654321"
region: us-east-1
data: data
api: {listen: %q}
gateway: {listen: %q, advertise: {host: %s}}
clusters:
  - identifier: acme-billing
    upstream: %s
    upstream_password_file: upstream.password
iam:
  users:
    - name: ana
      access_keys: [{id: AKIAIOSFODNN7EXAMPLE, secret_file: ana.secret}, {id: AKIAI44QH8DHBEXAMPLE, secret: "planted inline, key"}]
      mfa_devices: [{seed_env: PLANTED_SEED}]
%s`, address(), address(), advertise, upstream, more))
	return filepath.Join(dir, "daypass.yaml")
}

// clean fails the test if the output contains a secret or one of the names.
func clean(t *testing.T, out string, names ...string) {
	t.Helper()
	for _, planted := range append(names, plantedSecrets...) {
		if strings.Contains(out, planted) {
			t.Errorf("the output has %q:\n%s", planted, out)
		}
	}
}

// TestDoctorOfAServer checks a configuration before any server has used it, then with a running
// server, and then with each fault that the report knows.
func TestDoctorOfAServer(t *testing.T) {
	path := doctorSite(t, "postgres://daypass@warehouse-primary,198.51.100.7:1/postgres?sslmode=require&connect_timeout=1", "db.customer.example", "")
	data := filepath.Join(filepath.Dir(path), "data")

	stdout, stderr, code := runDaypass(t, "doctor", "--config", path, "--skip-clusters")
	if code != 0 || stderr != "" || !strings.Contains(stdout, "the data directory does not exist yet") {
		t.Errorf("before the first start: doctor = %d\n%s%s", code, stdout, stderr)
	}
	clean(t, stdout, plantedNames...)

	life, _ := startForDoctor(t, path)
	stdout, _, code = runDaypass(t, "doctor", "--config", path, "--skip-clusters")
	for _, want := range []string{"a server runs on the data directory", "keys: the key that signs credentials is 0 days old", "certificates: server.crt of the gateway is valid",
		"ok       gateway: 127.0.0.1:", "where clients are told to log on, cannot be resolved"} {
		if code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("while it runs: doctor = %d, want 0 and %q\n%s", code, want, stdout)
		}
	}
	clean(t, stdout, plantedNames...)

	// A cluster that cannot be reached, and its names.
	stdout, _, code = runDaypass(t, "doctor", "--config", path)
	if code != 1 || !strings.Contains(stdout, "[cluster 1]: logons do not work") || !strings.Contains(stdout, "daypass cluster check [cluster 1]") {
		t.Errorf("a cluster that is away: doctor = %d\n%s", code, stdout)
	}
	clean(t, stdout, plantedNames...)
	shown, _, _ := runDaypass(t, "doctor", "--config", path, "--skip-clusters", "--show-names")
	clean(t, shown)
	if err := life.Stop(); err != nil {
		t.Fatal(err)
	}

	// Faults of the files.
	for _, test := range []struct {
		name string
		do   func() error
		want string
	}{
		{"open keyring", func() error { return os.Chmod(filepath.Join(data, "keyring.json"), 0o644) }, "keyring.json can be read by"},
		{"damaged keyring", func() error { return os.WriteFile(filepath.Join(data, "keyring.json"), []byte("{}"), 0o600) }, "error    keys: "},
		{"damaged registry", func() error { return os.WriteFile(filepath.Join(data, "registry.db"), []byte("no bolt"), 0o600) }, "it is not known what is revoked"},
		{"damaged authority", func() error { return os.WriteFile(filepath.Join(data, "tls", "ca.crt"), []byte("none"), 0o644) }, "ca.crt of the gateway cannot be read"},
		{"faulty configuration", func() error {
			text, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path, append(text, "nonsense: planted inline, key\n"...), 0o600)
			}
			return err
		}, "nonsense"},
	} {
		if err := test.do(); err != nil {
			t.Fatal(err)
		}
		stdout, _, code := runDaypass(t, "doctor", "--config", path, "--skip-clusters", "--output", "json")
		var said struct {
			Version  string
			Findings []doctor.Finding
		}
		if err := json.Unmarshal([]byte(stdout), &said); err != nil {
			t.Fatalf("%v\n%s", err, stdout)
		}
		if text, _, _ := runDaypass(t, "doctor", "--config", path, "--skip-clusters"); code != 1 || !strings.Contains(text, test.want) {
			t.Errorf("%s: doctor = %d, want 1 and %q\n%s", test.name, code, test.want, text)
		}
		for _, finding := range said.Findings {
			if finding.Severity != doctor.OK && finding.Do == "" {
				t.Errorf("%s: %q says nothing of what to do", test.name, finding.Message)
			}
		}
		clean(t, stdout, plantedNames...)
	}
}

// TestDoctorOfAnotherServer: where another Daypass answers at the addresses of the configuration, the
// report says that it is not the server that runs on the data directory.
func TestDoctorOfAnotherServer(t *testing.T) {
	configure := func() (path, api, admin string) {
		t.Helper()
		admin, err := sitetest.FreeAddress()
		if err != nil {
			t.Fatal(err)
		}
		path = doctorSite(t, "postgres://daypass@127.0.0.1:1/postgres", "localhost", fmt.Sprintf("admin: {listen: %q}\n", admin))
		life, where := startForDoctor(t, path)
		t.Cleanup(func() {
			if err := life.Stop(); err != nil {
				t.Error(err)
			}
		})
		return path, strings.TrimPrefix(where.API, "http://"), admin
	}
	path, api, admin := configure()
	_, otherAPI, otherAdmin := configure()
	stdout, stderr, code := runDaypass(t, "doctor", "--config", path, "--skip-clusters")
	if code != 0 || !strings.Contains(stdout, "ok       endpoint: the API at "+api+" answers and is ready") {
		t.Errorf("doctor = %d\n%s%s", code, stdout, stderr)
	}
	text, err := os.ReadFile(path)
	if err == nil {
		text = []byte(strings.NewReplacer(api, otherAPI, admin, otherAdmin).Replace(string(text)))
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code = runDaypass(t, "doctor", "--config", path, "--skip-clusters")
	for _, want := range []string{"answers at " + otherAPI + ", the address of the API", "answers at " + otherAdmin + ", the address of admin"} {
		if code != 1 || !strings.Contains(stdout, "error    endpoint: another server than the one that runs on the data directory "+want) {
			t.Errorf("doctor = %d, want 1 and %q\n%s%s", code, want, stdout, stderr)
		}
	}
	if strings.Contains(stdout, "is ready") {
		t.Errorf("the other server is called ready:\n%s", stdout)
	}
}

func startForDoctor(t *testing.T, path string) (life *sitetest.Life, where server.Running) {
	t.Helper()
	life, err := sitetest.Start(inProcess(path, io.Discard, server.Options{Ready: func(r server.Running) { where = r }}))
	if err != nil {
		t.Fatal(err)
	}
	return life, where
}

// TestDoctorOfSignIn checks an identity provider that works, one that lacks a scope and one that is
// gone, and a URL that leads elsewhere.
func TestDoctorOfSignIn(t *testing.T) {
	var provider http.Handler
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { provider.ServeHTTP(w, r) }))
	defer idp.Close()
	provider, err := devidp.New(devidp.Config{Issuer: idp.URL, ClientID: "daypass", RedirectURI: "http://127.0.0.1/sign-in/callback", People: func() []devidp.Person { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	signIn := fmt.Sprintf("  oidc_providers: [{issuer: %q, audiences: [daypass]}]\nsign_in: {url: SIGN_IN_URL, issuer: %q, client_id: daypass, scopes: [openid, sleep]}\n", idp.URL, idp.URL)
	path := doctorSite(t, "postgres://daypass@127.0.0.1:1/postgres", "localhost", signIn)
	configure := func(url string) {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text = regexp.MustCompile(`url: [^,]+,`).ReplaceAll(text, []byte("url: "+url+","))
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure(idp.URL)
	life, where := startForDoctor(t, path)
	defer func() {
		if err := life.Stop(); err != nil {
			t.Error(err)
		}
	}()
	for _, test := range []struct {
		url  string
		idp  bool
		code int
		want []string
	}{
		{where.API, true, 0, []string{"ok       sign-in: the provider " + idp.URL + " answers", "warning  sign-in: the provider does not list the scope sleep",
			"ok       sign-in: people reach the server at " + where.API, "clock: agrees with that of the provider"}},
		{idp.URL + "0", true, 0, []string{"cannot be reached from this machine"}},
		{where.API, false, 1, []string{"error    sign-in: people cannot sign in"}},
	} {
		configure(test.url)
		if !test.idp {
			idp.Close()
		}
		stdout, stderr, code := runDaypass(t, "doctor", "--config", path, "--skip-clusters")
		for _, want := range test.want {
			if code != test.code || !strings.Contains(stdout, want) {
				t.Errorf("with %s: doctor = %d, want %d and %q\n%s%s", test.url, code, test.code, want, stdout, stderr)
			}
		}
	}
}

// TestDoctorOfSeveralServers checks keys in etcd, before any server, with one, and without etcd.
func TestDoctorOfSeveralServers(t *testing.T) {
	etcd := etcdtest.Start(t)
	path := doctorSite(t, "postgres://daypass@127.0.0.1:1/postgres", "localhost", fmt.Sprintf("registry: {etcd: {endpoints: [%q]}}\nroot_key: {file: root.key}\n", etcd.URL))
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "root.key"), []byte("5mrUHyeJx4KGsXXGbqZqCLpEVkGePlmkkkIAXfHlYmQ=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(code int, wants ...string) {
		t.Helper()
		stdout, stderr, got := runDaypass(t, "doctor", "--config", path, "--skip-clusters")
		for _, want := range wants {
			if got != code || !strings.Contains(stdout, want) {
				t.Errorf("doctor = %d, want %d and %q\n%s%s", got, code, want, stdout, stderr)
			}
		}
		clean(t, stdout, "5mrUHyeJx4KGsXXGbqZqCLpEVkGePlmkkkIAXfHlYmQ=")
	}
	check(0, "warning  keys: etcd has no keys yet")
	life, _ := startForDoctor(t, path)
	check(0, "ok       servers: 1 are running", "keys: the key that signs credentials is 0 days old")
	if err := life.Stop(); err != nil {
		t.Fatal(err)
	}
	check(0, "warning  servers: none is running")
	etcd.Stop()
	check(1, "error    keys: ")
}

// TestDoctorOfAPerson checks the setup of a person, from none at all to a gateway whose
// certificate is trusted.
func TestDoctorOfAPerson(t *testing.T) {
	path := doctorSite(t, "postgres://daypass@127.0.0.1:1/postgres", "localhost",
		`      policies: [{Version: "2012-10-17", Statement: [{Effect: Allow, Action: "redshift:DescribeClusters", Resource: "*"}]}]`+"\n")
	life, where := startForDoctor(t, path)
	defer func() {
		if err := life.Stop(); err != nil {
			t.Error(err)
		}
	}()
	// Doctor signs no one in, with or without a terminal.
	awsSettings(t, "[profile work]\nlogin_session = arn:aws:sts::123456789012:assumed-role/analyst/ana\nregion = us-east-1\nendpoint_url = "+where.API+"\n", nil)
	if stdout, stderr, code := runDaypass(t, "doctor", "--profile", "work"); code != 1 || !strings.Contains(stdout, "no one is signed in: run `daypass login --profile work`") {
		t.Errorf("without a sign-in: doctor = %d\n%s%s", code, stdout, stderr)
	}
	awsSettings(t, "", map[string]string{"AWS_ENDPOINT_URL": where.API, "AWS_REGION": "us-east-1",
		"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "correct horse battery"})
	for _, test := range []struct {
		set  map[string]string
		args []string
		code int
		want string
	}{
		{nil, []string{"--sslrootcert", where.CACert}, 0, "answers, and its certificate is checked with the CA file"},
		{nil, []string{"--sslrootcert", path}, 1, "the CA file of the gateway cannot be used"},
		{map[string]string{"AWS_SECRET_ACCESS_KEY": "planted-person-secret"}, nil, 1, "(SignatureDoesNotMatch)"},
		{map[string]string{"AWS_SESSION_TOKEN": "planted-session-token"}, nil, 1, "the API refuses it"},
		{nil, []string{"--endpoint-url", "http://127.0.0.1:1"}, 1, "cannot be reached"},
		{nil, []string{"--profile", "gone"}, 1, "is neither in"},
		{map[string]string{"AWS_ENDPOINT_URL": ""}, nil, 1, "no Daypass server is named. Name one in the profile \"default\" of …/config:\n\n             endpoint_url = https://"},
		{nil, []string{"--endpoint-url", "http://db.customer.example:1"}, 1, "has no TLS"},
	} {
		t.Run(test.want, func(t *testing.T) {
			for name, value := range test.set {
				t.Setenv(name, value)
			}
			args := append([]string{"doctor"}, test.args...)
			if len(test.args) == 0 {
				args = append(args, "--region", "us-east-1")
			}
			stdout, stderr, code := runDaypass(t, args...)
			if code != test.code || !strings.Contains(stdout, test.want) {
				t.Errorf("%v = %d, want %d and %q\n%s%s", args, code, test.code, test.want, stdout, stderr)
			}
			clean(t, stdout+stderr, plantedNames...)
		})
	}
}

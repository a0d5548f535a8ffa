//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v4"

	"github.com/daypass/daypass/internal/postgres"
	"github.com/daypass/daypass/test/pgtest"
	"github.com/daypass/daypass/test/sitetest"
)

// documentSite is the setup that the documents describe: a PostgreSQL with alice and the
// analysts, and a server with the policies, profiles, roles and providers from the documents
// themselves.
type documentSite struct {
	*sitetest.Site // commands are run in its directory
	t              *testing.T
	issuer         *issuer
	replace        []string // texts of the documents, each followed by its replacement
	environ        []string
}

// documentRun describes how to run a block of commands in addition to the site. The zero value
// runs it as ana and expects success.
type documentRun struct {
	not     string // why it is not run
	as      string // the profile; "": daypass, which is ana's
	before  string // shell commands to run first
	code    int
	replace []string
	input   string // standard input
	want    string // expected in the output
}

// documentRuns are the blocks that need special treatment, by id. Each of them must exist.
var documentRuns = map[string]documentRun{
	"README.md: go run ./cmd/daypass dev --once":   {not: "TestDevOnce runs it"},
	"README.md: go test ./...":                     {not: "runs this test"},
	"README.md: cp docs/daypass.yaml daypass.yaml": {not: "TestReadmeInFrontOfPostgreSQL runs it"},
	"README.md: export AWS_ENDPOINT_URL=http://127.0.0.1:8440 AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1":                                 {not: "TestReadmeInFrontOfPostgreSQL runs it"},
	"README.md: export PGPASSWORD=$(daypass redshift get-cluster-credentials --cluster-identifier examplecluster --db-name dev --db-user ana \\": {not: "TestReadmeInFrontOfPostgreSQL runs it"},
	"README.md: $ daypass explain --config docs/daypass.yaml --principal ana --db-user ana --db-name dev --groups finance":                       {code: 1},
	"docs/operations.md: daypass init                                  # writes daypass.yaml and makes an access key":                            {not: "TestInit and TestReadmeInFrontOfPostgreSQL run them"},
	"docs/operations.md: psql \"host=db.example.com port=5439 dbname=dev user=IAM:alice sslmode=verify-full sslrootcert=ca.crt\"": {
		before:  "export PGPASSWORD=$(daypass redshift get-cluster-credentials --cluster-identifier examplecluster --db-user alice --db-name dev --query DbPassword --output text)",
		replace: []string{"db.example.com", "localhost"},
	},
	"docs/operations.md: jq -r 'select(.eventName==\"Logon\") | [.eventTime, .userIdentity.arn, .errorCode] | @tsv' data/audit/*.jsonl": {want: "user/ana"},
	"docs/operations.md: jq -r 'select(.additionalEventData.processId==4711) | [.eventTime, .eventName, .userIdentity.arn,": {
		replace: []string{"==4711", ">0"}, want: "user/ana"},
	"docs/operations.md: daypass revoke --principal arn:aws:iam::123456789012:user/ana      # or an IAM role, or one role session": {as: "operator", want: "credentials for alice of examplecluster"},
	"docs/operations.md: daypass sessions                       # who is logged on to what, as whom, since when, from where, bytes each way": {
		as: "operator", want: "is being ended",
		// A revocation covers everything that was issued in its second, so wait for a credential
		// that works.
		before: `until daypass connect examplecluster dev --user alice --profile daypass -- -qc '' >/dev/null 2>&1; do :; done; ` +
			`daypass connect examplecluster dev --user alice --profile daypass -- -qc 'SELECT pg_sleep(60)' >/dev/null 2>&1 & ` +
			`id=; while [ -z "$id" ]; do id=$(daypass sessions --output json | jq -r '[.Sessions[] | select(.State == "active")][0].SessionId // empty'); done`,
		replace: []string{"PQ5TSPKVMQHSLZYPGQ3OWEZDLK", `"$id"`},
	},
	"docs/operations.md: daypass user drop alice --cluster examplecluster --reassign-to archive           # the plan": {
		// The server may still be ending the session of a block before.
		before: `until daypass user drop alice --cluster examplecluster --reassign-to archive >/dev/null; do sleep 0.1; done`,
	},
	"docs/upgrade-postgresql.md: daypass cluster clean examplecluster --unused 0s --config copy.yaml":                                                                                        {before: "cp daypass.yaml copy.yaml"},
	"docs/several-servers.md: (umask 077; openssl rand -base64 32 > root.key)":                                                                                                               {},
	"docs/several-servers.md: daypass keys list --config /etc/daypass/daypass.yaml":                                                                                                          {not: "TestSharedKeysCommands runs it"},
	"docs/several-servers.md: daypass servers --config /etc/daypass/daypass.yaml":                                                                                                            {not: "TestSharedKeysCommands runs it"},
	"docs/several-servers.md: kubectl create secret generic daypass-root --from-file=root.key":                                                                                               {not: "it needs a Kubernetes"},
	"docs/install.md: ssh-keygen -Y verify -f allowed_signers -I release@daypass -n file -s SHA256SUMS.sig < SHA256SUMS":                                                                     {not: "TestVerify of the release module runs it"},
	"docs/install.md: dpkg --install daypass_1.2.3-1_amd64.deb        # or: rpm --install daypass-1.2.3-1.x86_64.rpm":                                                                        {not: "installs on this machine; TestPackages of the release module looks at the packages"},
	"docs/releasing.md: ssh-keygen -t ed25519-sk -C release@daypass -f ~/.ssh/daypass-release        # or -t ed25519, without a security key":                                                {not: "needs a security key; TestVerify of the release module makes a key without one"},
	"docs/releasing.md: make release RELEASE=\"-commit v1.2.3 -builder https://github.com/daypass/daypass/.github/workflows/release.yml@refs/tags/v1.2.3 -sign $HOME/.ssh/daypass-release\"": {not: "publishes; TestReproducible of the release module builds twice"},
	"docs/releasing.md: cd release && go run . push ../dist/daypass_1.2.3_oci.tar ghcr.io/daypass/daypass:1.2.3":                                                                             {not: "publishes; TestPush of the release module pushes to a registry of its own"},
	"docs/several-servers.md: etcdctl role add daypass":                                                                                                                                      {not: "etcd is no part of Daypass; TestUsers of internal/registry/etcdstore asks for the same"},
	"docs/upgrade-postgresql.md: sed -n '/^GRANT .* GRANTED BY /s/ GRANTED BY [^;]*;/;/p' dump.sql | psql -X -h 127.0.0.1 -U postgres postgres": {
		not: "it mends the restore of a dump by an old pg_dumpall; TestSessionRolesOfAnotherLogin of internal/dbuser does the same"},
	"docs/identities.md: export AWS_ENDPOINT_URL=https://daypass.example.com:8440 AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1    # version 1 of the AWS CLI reads the last": {
		before: "unset AWS_PROFILE", want: "IAMA:ci",
	},
	"docs/people.md: daypass login --profile work              # opens the browser; choose an IAM role, press Sign in":                              {not: "takes a browser; TestDaypassLogin of internal/server does the same"},
	"docs/people.md: daypass login --device --profile work     # prints an address and a code: open the address anywhere, and enter the code there": {not: "takes a browser; TestDevPaste does the same"},
	"docs/people.md: daypass revoke --principal arn:aws:sts::123456789012:assumed-role/analyst/ana@example.com":                                     {as: "operator", want: "analyst/ana@example.com"},
	"docs/people.md: daypass proxy --map 15432=warehouse/dev,user=ana,auto-create --map 15433=examplecluster/dev,user=reporting,groups=analysts":    {not: "it stays; the next block starts it"},
	"docs/people.md: psql 'postgresql://ana@127.0.0.1:15432/dev?sslmode=disable' -c 'SELECT current_user'": {
		before: "DAYPASS_SSLROOTCERT=data/tls/ca.crt daypass proxy --map 15432=warehouse/dev,user=ana,auto-create --map 15433=examplecluster/dev,user=reporting,groups=analysts > proxy.out 2>&1 & " +
			"trap 'kill '$! EXIT; until grep -q Ready proxy.out; do sleep 0.1; done",
		want: "ana",
	},
	"docs/policy.md: daypass policy lint policy.json            # refuses what AWS refuses, warns of what cannot have been meant or never matches": {
		replace: []string{"--db-user alice", "--db-user alice --cluster examplecluster"}, // the site has two
	},
}

// TestDocumentedCommands runs the commands of every block of the documents.
func TestDocumentedCommands(t *testing.T) {
	s := newDocumentSite(t)
	left := map[string]bool{}
	for id := range documentRuns {
		left[id] = true
	}
	for _, b := range blocks(t) {
		if b.lang != "sh" && b.lang != "console" {
			continue
		}
		delete(left, b.id())
		spec := documentRuns[b.id()]
		t.Run(fmt.Sprintf("%s:%d", b.file, b.line), func(t *testing.T) {
			if spec.not != "" {
				t.Logf("not run here: %s", spec.not)
				return
			}
			s.t = t
			if b.lang == "console" {
				s.console(b, spec)
				return
			}
			s.shell(b, spec, b.text)
		})
	}
	for id := range left {
		t.Errorf("there is no block %q any more", id)
	}
}

// shell runs commands as they are in the document.
func (s *documentSite) shell(b block, spec documentRun, commands string) string {
	s.t.Helper()
	for _, tool := range []string{"aws", "jq", "psql", "pg_dump"} {
		if regexp.MustCompile(`(?m)(^|\$\(|\| )` + tool + ` `).MatchString(commands + spec.before) {
			if _, err := exec.LookPath(tool); err != nil {
				missing(s.t, tool, "apt-get install awscli jq postgresql-client")
			}
		}
	}
	script := strings.NewReplacer(append(spec.replace, s.replace...)...).Replace(commands)
	spec.before = strings.NewReplacer(s.replace...).Replace(spec.before)
	as := "daypass"
	if spec.as != "" {
		as = spec.as
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-eu", "-c", "export AWS_PROFILE="+as+"\n"+spec.before+"\n"+script)
	cmd.Dir, cmd.Env, cmd.Stdin = s.Dir, s.environ, strings.NewReader(spec.input)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != spec.code || !strings.Contains(string(out), spec.want) {
		s.t.Errorf("%s:%d: %v, want code %d and %q\n%s\n%s", b.file, b.line, err, spec.code, spec.want, script, out)
	}
	return string(out)
}

// console runs the lines after "$ ", with the lines after "dev=> " as their input, and compares
// the output with the other lines, except for "..." and for values that differ each time.
func (s *documentSite) console(b block, spec documentRun) {
	s.t.Helper()
	var command string
	var want []string
	for line := range strings.SplitSeq(strings.TrimRight(b.text, "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, "$ "):
			command = line[2:]
		case strings.HasPrefix(line, "dev=> "):
			spec.input += line[6:] + "\n"
		default:
			want = append(want, line)
		}
	}
	got := s.shell(b, spec, command)
	changing := regexp.MustCompile(`"(DbPassword|Expiration)": "[^"]*"|, (line) [0-9]+`)
	got = changing.ReplaceAllString(got, `"$1$2"`)
	for _, line := range want {
		if line == "..." {
			continue
		}
		line = changing.ReplaceAllString(line, `"$1$2"`)
		_, rest, found := strings.Cut(got, line)
		if !found {
			s.t.Errorf("%s:%d: the output lacks, in its place, %q\n%s", b.file, b.line, line, got)
			return
		}
		got = rest
	}
}

func newDocumentSite(t *testing.T) *documentSite {
	t.Helper()
	s := &documentSite{t: t, issuer: newIssuer(t), Site: newSite(t, installation(t),
		sitetest.Step{Database: "postgres", SQL: "CREATE DATABASE dev"},
		sitetest.Step{Database: "postgres", SQL: "CREATE ROLE daypass LOGIN CREATEROLE PASSWORD '" + sitetest.AdminPassword + "';" +
			"SET ROLE daypass; CREATE ROLE alice LOGIN; CREATE ROLE analysts; CREATE ROLE archive"},
		sitetest.Step{Database: "dev", SQL: "CREATE TABLE sales (region text, amount numeric); GRANT SELECT ON sales TO analysts;" +
			"CREATE TABLE notes (owner text); ALTER TABLE notes OWNER TO alice"})}
	s.issuer.use("second", jose.RS256, s.issuer.key)
	host, proxyPort := strings.TrimPrefix(s.issuer.URL, "http://"), freePort(t)
	s.replace = []string{
		"https://daypass.example.com:8440", "http://" + s.API, "http://127.0.0.1:8440", "http://" + s.API,
		"https://token.example.com", s.issuer.URL, "oidc-provider/token.example.com", "oidc-provider/" + host, "token.example.com:", host + ":",
		"port=5439", "port=" + s.Gateway[strings.LastIndexByte(s.Gateway, ':')+1:], "/var/run/token", filepath.Join(s.Dir, "token"),
		":15432", ":" + proxyPort, "15432=", proxyPort + "=", "15433=", freePort(t) + "=",
	}
	s.write("token", s.issuer.token(t, "repo:example/warehouse:ref:refs/heads/main"))
	s.write("daypass.yaml", s.configuration())
	s.write("policy.json", `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "redshift:JoinGroup", "Resource": "*"}]}`)
	s.write("request.json", `{"PolicyInputList": ["{\"Version\": \"2012-10-17\", \"Statement\": {\"Effect\": \"Allow\", \"Action\": \"redshift:JoinGroup\", \"Resource\": \"*\"}}"], "ActionNames": ["redshift:JoinGroup"]}`)
	sample, err := os.ReadFile("../../docs/daypass.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s.write("docs/daypass.yaml", string(sample))
	s.profiles()
	startSite(t, s.Site)
	ca, err := os.ReadFile(s.CACert())
	if err != nil {
		t.Fatal(err)
	}
	s.write("ca.crt", string(ca))
	return s
}

func (s *documentSite) write(name, text string) {
	s.t.Helper()
	if err := s.Write(name, text); err != nil {
		s.t.Fatal(err)
	}
}

// configuration has the policies of policy.md and operations.md and the roles and
// providers of identities.md.
func (s *documentSite) configuration() string {
	s.t.Helper()
	var root struct {
		Account  string         `yaml:"account"`
		Region   string         `yaml:"region"`
		Data     string         `yaml:"data"`
		API      any            `yaml:"api"`
		Gateway  any            `yaml:"gateway"`
		Clusters []any          `yaml:"clusters"`
		IAM      map[string]any `yaml:"iam"`
	}
	decode := func(text string, into any) {
		if err := yaml.Unmarshal([]byte(strings.NewReplacer(s.replace...).Replace(text)), into); err != nil {
			s.t.Fatal(err)
		}
	}
	var people, operator, role, federated map[string]any
	decode(blockOf(s.t, "docs/policy.md", "groups:").text, &people)
	decode(blockOf(s.t, "docs/operations.md", `Version: "2012-10-17"`).text, &operator)
	decode(blockOf(s.t, "docs/identities.md", "iam:\n  users:").text, &role)
	decode(blockOf(s.t, "docs/identities.md", "iam:\n  oidc_providers:").text, &federated)
	iamOf := func(m map[string]any, name string) []any { return m["iam"].(map[string]any)[name].([]any) }
	const arn = "arn:aws:redshift:us-east-1:123456789012:"
	alice := map[string]any{"Version": "2012-10-17", "Statement": []any{
		map[string]any{"Effect": "Allow", "Action": "redshift:GetClusterCredentials", "Resource": []string{arn + "dbuser:examplecluster/alice", arn + "dbname:examplecluster/dev"},
			"Condition": map[string]any{"StringEquals": map[string]string{"redshift:DbName": "dev"}}},
		map[string]any{"Effect": "Allow", "Action": "redshift:JoinGroup", "Resource": arn + "dbgroup:examplecluster/analysts"},
		map[string]any{"Effect": "Allow", "Action": "redshift:DescribeClusters", "Resource": arn + "cluster:examplecluster"},
	}}
	root.Account, root.Region, root.Data = "123456789012", "us-east-1", "./data"
	root.API, root.Gateway = map[string]string{"listen": s.API}, map[string]string{"listen": s.Gateway}
	for _, name := range []string{"examplecluster", "warehouse"} {
		root.Clusters = append(root.Clusters, map[string]string{"identifier": name, "database": "dev", "upstream_password_file": "upstream.password",
			"upstream": s.Upstream()})
	}
	root.IAM = map[string]any{
		"groups":         people["groups"],
		"oidc_providers": iamOf(federated, "oidc_providers"),
		"roles":          append(iamOf(role, "roles"), iamOf(federated, "roles")...),
		"users": []any{
			map[string]any{"name": "ana", "groups": []string{"people"}, "policies": []any{alice},
				"access_keys": []any{map[string]string{"id": "AKIAIOSFODNN7EXAMPLE", "secret": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}}},
			map[string]any{"name": "operator", "policies": []any{operator},
				"access_keys": []any{map[string]string{"id": "AKIAI44QH8DHBEXAMPLE", "secret": "je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY"}}},
		},
	}
	text, err := yaml.Marshal(root)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// profiles are those of clients.md and identities.md, and the operator's.
func (s *documentSite) profiles() {
	s.t.Helper()
	profile := blockOf(s.t, "docs/clients.md", "# ~/.aws/config").text
	profile = regexp.MustCompile(`(?m)^ca_bundle.*\n`).ReplaceAllString(profile, "") // the test's API has no TLS
	etl := blockOf(s.t, "docs/identities.md", "# ~/.aws/config").text
	comment := regexp.MustCompile(`(?m) +#.*$`) // the AWS CLI allows comments only on separate lines
	all := strings.NewReplacer(s.replace...).Replace(profile + "\n" + comment.ReplaceAllString(etl, "") + "\n")
	s.write("home/.aws/config", all+strings.Replace(strings.NewReplacer(s.replace...).Replace(profile), "profile daypass", "profile operator", 1))
	s.write("home/.aws/credentials", "[daypass]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n"+
		"[operator]\naws_access_key_id = AKIAI44QH8DHBEXAMPLE\naws_secret_access_key = je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY\n")
	s.environ = []string{"HOME=" + filepath.Join(s.Dir, "home"), "PATH=" + os.Getenv("PATH"), "PYENV_VERSION=" + os.Getenv("PYENV_VERSION"), "AWS_EC2_METADATA_DISABLED=true", "LC_ALL=C.UTF-8",
		"TESTSCRIPT_COMMAND=" + os.Getenv("TESTSCRIPT_COMMAND")}
}

// TestReadmeInFrontOfPostgreSQL follows the README on a machine that has only PostgreSQL, in the
// oldest and the newest version. It runs the README's three blocks in order, with other ports.
func TestReadmeInFrontOfPostgreSQL(t *testing.T) {
	if _, err := exec.LookPath("psql"); err != nil {
		missing(t, "psql", "apt-get install postgresql-client")
	}
	versions := pgtest.Versions() // the README treats all versions alike, so the first and the last are enough
	for _, installation := range slices.Compact([]postgres.Installation{versions[0], versions[len(versions)-1]}) {
		t.Run(installation.Version, func(t *testing.T) { followReadme(t, installation) })
	}
}

func followReadme(t *testing.T, installation postgres.Installation) {
	s := &documentSite{t: t, Site: newSite(t, installation)}
	superuser, err := pgx.ParseConfig(s.Database.ConnString(postgres.Superuser, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	gatewayPort := s.Gateway[strings.LastIndexByte(s.Gateway, ':')+1:]
	replace := strings.NewReplacer("127.0.0.1:8440", s.API, "127.0.0.1:5439", s.Gateway, "127.0.0.1:5432", fmt.Sprintf("127.0.0.1:%d", s.Database.Port()),
		"port=5439", "port="+gatewayPort, "psql -h 127.0.0.1 -U postgres", fmt.Sprintf("psql -v ON_ERROR_STOP=1 -h 127.0.0.1 -p %d -U %s postgres", s.Database.Port(), superuser.User))
	sample, err := os.ReadFile("../../docs/daypass.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s.write("docs/daypass.yaml", replace.Replace(string(sample)))
	environ := []string{"HOME=" + s.Dir, "PATH=" + os.Getenv("PATH"), "AWS_EC2_METADATA_DISABLED=true", "PGPASSWORD=" + superuser.Password}
	set, call, byHand := blockOf(t, "README.md", "cp docs/daypass.yaml").text, blockOf(t, "README.md", "export AWS_ENDPOINT_URL").text, blockOf(t, "README.md", "export PGPASSWORD").text
	if !strings.HasSuffix(strings.TrimSpace(set), "\ndaypass serve") {
		t.Fatalf("the server is not the last command of %s", set)
	}
	command := strings.Replace(replace.Replace(set), "\ndaypass serve", "\nexec daypass serve", 1)
	log := &pgtest.Log{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the first terminal:\n%s", log)
		}
	})
	// The first terminal is in the site's directory and has no other environment variables.
	if err := s.Start(sitetest.Program(log, []string{s.Gateway}, "env", append(append([]string{"-i", "-C", s.Dir}, environ...), "sh", "-eu", "-c", command)...)); err != nil {
		t.Fatal(err)
	}
	environ = environ[:len(environ)-1]
	for name, script := range map[string]string{"connect": call, "by hand": call[:strings.Index(call, "daypass connect")] + byHand} {
		cmd := exec.Command("sh", "-eu", "-c", replace.Replace(script))
		cmd.Dir, cmd.Env, cmd.Stdin = s.Dir, environ, strings.NewReader("SELECT current_user || ' of ' || session_user;\n")
		out, err := cmd.CombinedOutput()
		want := "IAM:ana:analysts of IAM:ana:analysts"
		if name == "by hand" {
			want = "ana of IAM:ana"
		}
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, want %s\n%s\n%s", name, err, want, script, out)
		}
	}
}

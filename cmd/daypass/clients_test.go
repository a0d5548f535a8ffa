package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/redshift"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/ca"
	"github.com/daypass/daypass/test/sitetest"
)

// TestClients runs the programs that people use. PostgreSQL's drivers log on with a credential
// over verified TLS; AWS clients request one, with long-lived keys and with temporary ones.
// psql, pgx and the AWS SDK for Go always run. A client that is not installed is skipped by
// name; .ci/run installs all of them.
func TestClients(t *testing.T) {
	s := newClientSite(t)
	t.Run("PostgreSQL", s.testPostgreSQLClients)
	t.Run("AWS", s.testAWSClients)
	t.Run("AssumedRole", s.testAssumedRole)
	t.Run("WebIdentity", s.testWebIdentity)
	t.Run("RedshiftConnector", s.testRedshiftConnector)
	t.Run("Drivers", s.testDriverExchanges)
}

// clientSite is a PostgreSQL server, a Daypass server in front of it, and an
// identity provider that it trusts.
type clientSite struct {
	dir, api, host, port string
	psql                 string
	home                 string
	issuer               *issuer
}

func newClientSite(t *testing.T) *clientSite {
	t.Helper()
	inst := installation(t)
	site := newSite(t, inst, sitetest.Step{Database: "postgres", SQL: "CREATE DATABASE dev"}, sitetest.Roles())
	s := &clientSite{dir: site.Dir, api: "http://" + site.API, host: "localhost", home: t.TempDir(), issuer: newIssuer(t), psql: filepath.Join(inst.BinDir, "psql")}
	if found, err := exec.LookPath("psql"); err == nil {
		s.psql = found
	}
	_, s.port, _ = net.SplitHostPort(site.Gateway)
	configuration, err := os.ReadFile("testdata/clients/daypass.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := site.Configure(string(configuration), "ISSUER_URL", s.issuer.URL, "ISSUER_NAME", strings.TrimPrefix(s.issuer.URL, "http://")); err != nil {
		t.Fatal(err)
	}
	startSite(t, site)
	return s
}

// keysOfAna are the long-lived access keys of testdata/clients/daypass.yaml.
var keysOfAna = []string{"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}

// awsEnv points an AWS client at the API by AWS_ENDPOINT_URL alone.
func (s *clientSite) awsEnv(more ...string) []string {
	return append([]string{"AWS_ENDPOINT_URL=" + s.api, "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_CONFIG_FILE=" + filepath.Join(s.home, "config"), "AWS_SHARED_CREDENTIALS_FILE=" + filepath.Join(s.home, "credentials")}, more...)
}

// run runs a program with env and the few other variables that programs need, but without the
// rest of this process's environment. It returns the output.
func (s *clientSite) run(t *testing.T, env []string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // a busy machine starts some of them slowly
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append([]string{"HOME=" + s.home, "TZ=UTC"}, env...)
	for _, kept := range []string{"PATH", "LANG", "TMPDIR", "JAVA_HOME", "LD_LIBRARY_PATH", "PYTHONPATH", "PYENV_ROOT", "PYENV_VERSION"} {
		if value, ok := os.LookupEnv(kept); ok {
			cmd.Env = append(cmd.Env, kept+"="+value)
		}
	}
	cmd.Env = append(cmd.Env, "NODE_PATH="+nodeModules())
	var stderr strings.Builder
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", name, err, stderr.String())
	}
	return strings.TrimSpace(string(output)), err
}

// nodeModules is where .ci/run installs packages for Node.js.
func nodeModules() string {
	if dir := os.Getenv("NODE_PATH"); dir != "" {
		return dir
	}
	dir, err := filepath.Abs("../../.cache/clients/node_modules")
	if err != nil {
		return ""
	}
	return dir
}

// missing skips the test of a third-party client that is not installed.
func missing(t *testing.T, client, howToGet string) {
	t.Helper()
	t.Skipf("NOT TESTED with %s, which is not installed: %s", client, howToGet)
}

// python returns a Python that has the module, and the module's version.
func (s *clientSite) python(t *testing.T, module, howToGet string) string {
	t.Helper()
	for _, program := range []string{"python3", "/usr/bin/python3"} {
		if version, err := s.run(t, nil, program, "-c", "import "+module+" as m; print(m.__version__)"); err == nil {
			t.Logf("%s %s", module, version)
			return program
		}
	}
	missing(t, module, howToGet)
	return ""
}

// node checks that Node.js has a package.
func (s *clientSite) node(t *testing.T, pkg string) {
	t.Helper()
	version, err := s.run(t, nil, "node", "-p", fmt.Sprintf("const v = require(%q).version; `${v}, Node.js ${process.version}`", pkg+"/package.json"))
	if err != nil {
		missing(t, pkg, "npm install --prefix .cache/clients "+pkg)
	}
	t.Logf("%s %s", pkg, version)
}

// java returns the class path of a JDBC driver.
func (s *clientSite) java(t *testing.T, class, howToGet string, jars ...string) string {
	t.Helper()
	for _, jar := range jars {
		if jar == "" {
			continue
		}
		if _, err := os.Stat(filepath.SplitList(jar)[0]); err != nil {
			continue
		}
		if _, err := exec.LookPath("java"); err != nil {
			break
		}
		return jar
	}
	missing(t, class, howToGet)
	return ""
}

// postgresClients are programs that log on with the PG* variables and print current_user,
// session_user and 42.
func (s *clientSite) postgresClients() map[string]func(t *testing.T, env []string) (string, error) {
	const dir = "testdata/clients/"
	python := func(module, howToGet string) func(*testing.T, []string) (string, error) {
		return func(t *testing.T, env []string) (string, error) {
			return s.run(t, env, s.python(t, module, howToGet), dir+"query_"+module+".py")
		}
	}
	return map[string]func(t *testing.T, env []string) (string, error){
		"psql": func(t *testing.T, env []string) (string, error) {
			if _, err := os.Stat(s.psql); err != nil {
				missing(t, "psql", "apt-get install postgresql-client")
			}
			return s.run(t, env, s.psql, "-XqAtF ", "-c", "PREPARE q (int) AS SELECT current_user, session_user, $1 + 1", "-c", "EXECUTE q (41)")
		},
		"pgx":      queryPGX,
		"psycopg2": python("psycopg2", "apt-get install python3-psycopg2, or pip install psycopg2"),
		"psycopg":  python("psycopg", "apt-get install python3-psycopg, or pip install psycopg"),
		"node-postgres": func(t *testing.T, env []string) (string, error) {
			s.node(t, "pg")
			return s.run(t, env, "node", dir+"query_pg.cjs")
		},
		"pgjdbc": func(t *testing.T, env []string) (string, error) {
			jar := s.java(t, "pgjdbc", "apt-get install default-jdk-headless libpostgresql-jdbc-java", "/usr/share/java/postgresql.jar")
			return s.run(t, env, "java", "-cp", jar, dir+"Query.java", "postgresql")
		},
		"Redshift JDBC": func(t *testing.T, env []string) (string, error) {
			jar := s.java(t, "the Redshift JDBC driver", "list its jar in DAYPASS_TEST_REDSHIFT_JDBC", os.Getenv("DAYPASS_TEST_REDSHIFT_JDBC"))
			return s.run(t, env, "java", "-cp", jar, dir+"Query.java", "redshift")
		},
	}
}

// queryPGX is the pgx client.
func queryPGX(t *testing.T, env []string) (string, error) {
	settings := map[string]string{}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		settings[name] = value
	}
	config, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%s dbname=%s sslmode=%s sslrootcert=%s", settings["PGHOST"], settings["PGPORT"],
		settings["PGDATABASE"], settings["PGSSLMODE"], settings["PGSSLROOTCERT"]))
	if err != nil {
		return "", err
	}
	config.User, config.Password = settings["PGUSER"], settings["PGPASSWORD"]
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		return "", err
	}
	defer conn.Close(context.Background())
	var current, session string
	var answer int
	err = conn.QueryRow(t.Context(), "SELECT current_user::text, session_user::text, $1::int + 1", 41).Scan(&current, &session, &answer)
	return fmt.Sprint(current, " ", session, " ", answer), err
}

func (s *clientSite) caFile() string { return filepath.Join(s.dir, "data", "tls", "ca.crt") }

func (s *clientSite) pgEnv(a awsAnswer, caFile string) []string {
	return []string{"PGHOST=" + s.host, "PGPORT=" + s.port, "PGDATABASE=dev", "PGSSLMODE=verify-full", "PGSSLROOTCERT=" + caFile,
		"PGUSER=" + a.DbUser, "PGPASSWORD=" + a.DbPassword}
}

func (s *clientSite) testPostgreSQLClients(t *testing.T) {
	plain, grouped := s.credential(t), s.credential(t, "analysts")
	foreign, err := ca.Open(t.TempDir(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, client := range s.postgresClients() {
		t.Run(name, func(t *testing.T) {
			got, err := client(t, s.pgEnv(plain, s.caFile()))
			if err != nil || got != "alice IAM:alice 42" {
				t.Errorf("without groups: got %q, %v, want alice IAM:alice 42", got, err)
			}
			if name == "psql" {
				got, err = client(t, s.pgEnv(grouped, s.caFile()))
				if err != nil || got != "IAM:alice:analysts IAM:alice:analysts 42" {
					t.Errorf("with a group: got %q, %v, want IAM:alice:analysts twice and 42", got, err)
				}
			}
			if got, err = client(t, s.pgEnv(plain, foreign.CertificateFile())); err == nil {
				t.Errorf("with another authority's certificate it logs on: %s", got)
			}
		})
	}
}

// credential requests a credential as ana with the AWS SDK for Go.
func (s *clientSite) credential(t *testing.T, groups ...string) awsAnswer {
	t.Helper()
	config := aws.Config{Region: "us-east-1", BaseEndpoint: &s.api, Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: strings.SplitN(keysOfAna[0], "=", 2)[1], SecretAccessKey: strings.SplitN(keysOfAna[1], "=", 2)[1]}, nil
	})}
	got, err := redshift.NewFromConfig(config).GetClusterCredentials(t.Context(), &redshift.GetClusterCredentialsInput{
		ClusterIdentifier: aws.String("examplecluster"), DbName: aws.String("dev"), DbUser: aws.String("alice"), DbGroups: groups})
	if err != nil {
		t.Fatal(err)
	}
	return awsAnswer{DbUser: *got.DbUser, DbPassword: *got.DbPassword}
}

// awsAnswer is the result of one AWS client.
type awsAnswer struct {
	DbUser, DbPassword string
	Expires            time.Time
	Cluster, Endpoint  string
	Arn                string
	Refused            string // the error code for a database user that is not allowed
	Presigned          string // URL; empty for a client that cannot presign
}

// awsClients use the default credential chain. Each requests a credential for the group
// analysts, the list of clusters, and the caller's identity.
func (s *clientSite) awsClients() map[string]func(t *testing.T, env []string) (awsAnswer, error) {
	program := func(run func(t *testing.T, env []string) (string, error)) func(t *testing.T, env []string) (awsAnswer, error) {
		return func(t *testing.T, env []string) (a awsAnswer, err error) {
			text, err := run(t, env)
			if err == nil {
				err = json.Unmarshal([]byte(text), &a)
			}
			return a, err
		}
	}
	return map[string]func(t *testing.T, env []string) (awsAnswer, error){
		"AWS SDK for Go": s.callGo,
		"AWS CLI":        s.callCLI,
		"boto3": program(func(t *testing.T, env []string) (string, error) {
			return s.run(t, env, s.python(t, "boto3", "pip install boto3, or apt-get install python3-boto3"), "testdata/clients/aws_boto3.py")
		}),
		"AWS SDK for JavaScript": program(func(t *testing.T, env []string) (string, error) {
			s.node(t, "@aws-sdk/client-redshift")
			return s.run(t, env, "node", "testdata/clients/aws_sdk.cjs")
		}),
	}
}

// callGo is the AWS SDK for Go with its default chain, in this process. Unlike the other
// clients, it ignores AWS_ENDPOINT_URL for the chain's own calls of STS, because it resolves
// credentials before the endpoint (aws-sdk-go-v2/config, the order of
// defaultAWSConfigResolvers). It uses AWS_ENDPOINT_URL_STS.
func (s *clientSite) callGo(t *testing.T, env []string) (a awsAnswer, err error) {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "") // so that the test restores it
			os.Unsetenv(name)
		}
	}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	t.Setenv("AWS_ENDPOINT_URL_STS", s.api)
	ctx := t.Context()
	config, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return a, err
	}
	client, identity := redshift.NewFromConfig(config), sts.NewFromConfig(config)
	input := redshift.GetClusterCredentialsInput{ClusterIdentifier: aws.String("examplecluster"), DbName: aws.String("dev"),
		DbUser: aws.String("alice"), DbGroups: []string{"analysts"}}
	credential, err := client.GetClusterCredentials(ctx, &input)
	if err != nil {
		return a, err
	}
	clusters, err := client.DescribeClusters(ctx, &redshift.DescribeClustersInput{})
	if err != nil {
		return a, err
	}
	me, err := identity.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return a, err
	}
	presigned, err := sts.NewPresignClient(identity).PresignGetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return a, err
	}
	input.DbUser = aws.String("bob")
	var refused smithy.APIError
	if _, err := client.GetClusterCredentials(ctx, &input); errors.As(err, &refused) {
		a.Refused = refused.ErrorCode()
	}
	cluster := clusters.Clusters[0]
	return awsAnswer{DbUser: *credential.DbUser, DbPassword: *credential.DbPassword, Expires: *credential.Expiration, Cluster: *cluster.ClusterIdentifier,
		Endpoint: fmt.Sprintf("%s:%d", *cluster.Endpoint.Address, *cluster.Endpoint.Port), Arn: *me.Arn, Refused: a.Refused, Presigned: presigned.URL}, nil
}

// callCLI is the AWS CLI.
func (s *clientSite) callCLI(t *testing.T, env []string) (a awsAnswer, err error) {
	version, err := s.run(t, nil, "aws", "--version")
	if err != nil {
		missing(t, "the AWS CLI", "pip install awscli, or apt-get install awscli")
	}
	t.Log(version)
	call := func(into any, args ...string) {
		var text string
		if err != nil {
			return
		}
		if text, err = s.run(t, env, "aws", append(args, "--output", "json")...); err == nil {
			err = json.Unmarshal([]byte(text), into)
		}
	}
	ask := func(user string) []string {
		return []string{"redshift", "get-cluster-credentials", "--cluster-identifier", "examplecluster", "--db-name", "dev", "--db-user", user, "--db-groups", "analysts"}
	}
	var credential struct {
		DbUser, DbPassword string
		Expiration         time.Time
	}
	var clusters struct {
		Clusters []struct {
			ClusterIdentifier string
			Endpoint          struct {
				Address string
				Port    int
			}
		}
	}
	call(&credential, ask("alice")...)
	call(&clusters, "redshift", "describe-clusters")
	call(&a, "sts", "get-caller-identity")
	if err != nil {
		return a, err
	}
	a.DbUser, a.DbPassword, a.Expires = credential.DbUser, credential.DbPassword, credential.Expiration
	if len(clusters.Clusters) > 0 {
		c := clusters.Clusters[0]
		a.Cluster, a.Endpoint = c.ClusterIdentifier, fmt.Sprintf("%s:%d", c.Endpoint.Address, c.Endpoint.Port)
	}
	if _, refused := s.run(t, env, "aws", ask("bob")...); refused != nil && strings.Contains(refused.Error(), "An error occurred (AccessDenied)") {
		a.Refused = "AccessDenied"
	}
	return a, nil
}

// check runs a client, compares its answer with the expected values for a caller, and logs on with
// the credential.
func (s *clientSite) check(t *testing.T, client func(*testing.T, []string) (awsAnswer, error), env []string, arn string) {
	t.Helper()
	asked := time.Now()
	a, err := client(t, env)
	if err != nil {
		t.Fatal(err)
	}
	if a.DbUser != "IAM:alice" || a.Cluster != "examplecluster" || a.Endpoint != "localhost:"+s.port || a.Refused != "AccessDenied" {
		a.DbPassword = ""
		t.Errorf("got %+v, want IAM:alice, examplecluster at localhost:%s, and AccessDenied for bob", a, s.port)
	}
	if !strings.HasPrefix(a.Arn, arn) {
		t.Errorf("GetCallerIdentity says %q, want %s...", a.Arn, arn)
	}
	if earliest := asked.Truncate(time.Second).Add(15 * time.Minute); a.Expires.Before(earliest) || time.Until(a.Expires) > 15*time.Minute {
		t.Errorf("Expiration is %v, want 15 minutes after a call that was made after %v", a.Expires, asked)
	}
	got, err := queryPGX(t, s.pgEnv(a, s.caFile()))
	if err != nil || got != "IAM:alice:analysts IAM:alice:analysts 42" {
		t.Errorf("logging on with it: got %q, %v", got, err)
	}
	if a.Presigned == "" {
		return
	}
	response, err := http.Get(a.Presigned)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(body), "Result>") {
		t.Errorf("presigned URL: got %d, %v", response.StatusCode, err)
	}
}

func (s *clientSite) testAWSClients(t *testing.T) {
	for name, client := range s.awsClients() {
		t.Run(name, func(t *testing.T) {
			s.check(t, client, s.awsEnv(keysOfAna...), "arn:aws:iam::123456789012:user/ana")
		})
	}
}

// testRedshiftConnector runs Redshift's Python driver, which requests the credential itself,
// with the gateway's address as a custom domain.
func (s *clientSite) testRedshiftConnector(t *testing.T) {
	python := s.python(t, "redshift_connector", "pip install redshift_connector")
	// The driver has no setting for a private CA.
	got, err := s.run(t, append(s.awsEnv(keysOfAna...), "SSL_CERT_FILE="+s.caFile(), "PGHOST="+s.host, "PGPORT="+s.port), python, "testdata/clients/redshift_connector_iam.py")
	if err != nil || got != "alice IAM:alice 42" {
		t.Errorf("got %q, %v, want alice IAM:alice 42", got, err)
	}
}

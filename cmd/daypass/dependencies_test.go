package main

import (
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/daypass/daypass/"

// leaf lists what a package must not import when it does no I/O and no logging.
var leaf = []string{"os", "net", "net/http", "log", "log/slog", "database/sql"}

// packages has one row for each package of the module. A package may import those of our
// packages that its row lists under ours, and must not import the packages under never. Only
// tests, and other packages with forTests, import a package with forTests.
var packages = []struct {
	pkg      string
	ours     []string
	never    []string
	forTests bool
	because  string
}{
	// Leaves.
	{pkg: "internal/awsquery", never: []string{"os", "log", "log/slog"}, because: "parsing a request needs its bytes and nothing else"},
	{pkg: "internal/sigv4", never: []string{"os", "log", "log/slog"}, because: "verifying a signature needs the request, a key and the time"},
	{pkg: "internal/iam", never: leaf, because: "a decision is a pure function of policies and request"},
	{pkg: "internal/filemode", never: []string{"net", "net/http", "log", "log/slog"}, because: "it holds one rule about file modes"},
	{pkg: "internal/durable", never: []string{"net", "net/http", "log", "log/slog"}, because: "it holds one difference between systems"},
	{pkg: "internal/pgwire", never: leaf, because: "the protocol's rules are tested and fuzzed without a socket"},
	{pkg: "internal/proxyproto", never: leaf, because: "the header is parsed and fuzzed without a socket"},
	{pkg: "internal/pgsql", never: leaf, because: "parts of SQL statements are text in, text out"},
	{pkg: "internal/quote", never: leaf, because: "quoting is text in, text out"},
	{pkg: "internal/admission", never: []string{"os", "log", "log/slog", "net/http"}, because: "one eviction rule serves both listeners, so it knows neither"},
	{pkg: "internal/throttle", never: []string{"os", "log", "log/slog"}, because: "it counts events and does not know which"},
	{pkg: "internal/ca", never: []string{"net/http"}, because: "it makes certificates and serves none"},
	{pkg: "internal/postgres", because: "starting a local PostgreSQL has nothing to do with Daypass"},
	{pkg: "internal/keyring", ours: []string{"internal/durable", "internal/filemode"}, never: []string{"net/http", "log"}, because: "keys do not know what they sign"},

	// Storage.
	{pkg: "internal/registry", ours: []string{"internal/keyring"}, never: []string{"net/http", "log", "log/slog"}, because: "the records do not depend on the store that keeps them"},
	{pkg: "internal/registry/boltstore", ours: []string{"internal/registry"}, never: []string{"net/http"}, because: "a store knows keys and values only"},
	{pkg: "internal/fleet", ours: []string{"internal/keyring", "internal/registry"}, never: []string{"net/http", "log", "log/slog"}, because: "who is alive and which keys are good is in records, whatever store keeps them"},
	{pkg: "internal/peer", ours: []string{"internal/admission", "internal/keyring"}, never: []string{"log/slog"}, because: "the channel between servers does not know what a session is; net/http wants a log.Logger, which discards"},
	{pkg: "internal/registry/etcdstore", ours: []string{"internal/keyring", "internal/registry"}, never: []string{"net/http"}, because: "a store knows keys and values only"},

	// The service's rules.
	{pkg: "internal/credential", ours: []string{"internal/keyring"}, never: leaf, because: "checking a credential needs no lookup"},
	{pkg: "internal/directory", ours: []string{"internal/iam", "internal/keyring"}, never: leaf, because: "a snapshot of the configuration does no I/O"},
	{pkg: "internal/audit", ours: []string{"internal/durable", "internal/keyring"}, never: []string{"net/http"}, because: "the audit log does not depend on what it records"},
	{pkg: "internal/adminconn", ours: []string{"internal/keyring", "internal/pgwire"}, never: []string{"net/http"}, because: "the connections of the administrative login do not know what is sent over them"},
	{pkg: "internal/dbuser", ours: []string{"internal/adminconn", "internal/keyring", "internal/pgsql"}, never: []string{"net/http"}, because: "role DDL does not know who asked for it, nor what is cleaned up afterwards"},
	{pkg: "internal/handover", ours: []string{"internal/adminconn", "internal/dbuser", "internal/pgsql"}, never: []string{"net/http"}, because: "the clean-up uses the rules of a logon, and a logon knows of no clean-up"},
	{pkg: "internal/compat", ours: []string{"internal/adminconn", "internal/dbuser", "internal/pgsql"}, never: []string{"net/http"}, because: "what is installed for sessions is no part of making them"},
	{pkg: "internal/clustercheck", ours: []string{"internal/adminconn", "internal/compat", "internal/dbuser", "internal/pgsql"}, never: []string{"net/http"}, because: "the operator's check looks at everything and changes nothing"},
	{pkg: "internal/sts", ours: []string{"internal/directory", "internal/filemode", "internal/iam", "internal/keyring"}, because: "temporary access keys know nothing of databases"},

	// The running server.
	{pkg: "internal/session", ours: []string{"internal/pgwire"}, never: []string{"net/http", "log", "log/slog"}, because: "a session's life does not depend on who is logged on, or on who is told of its end"},
	{pkg: "internal/gateway", ours: []string{"internal/adminconn", "internal/admission", "internal/audit", "internal/credential", "internal/dbuser", "internal/pgwire", "internal/proxyproto", "internal/session", "internal/throttle"},
		never: []string{"net/http"}, because: "nothing on the data path decides who may have a credential: no API, no IAM"},
	{pkg: "internal/api", ours: []string{"internal/admission", "internal/audit", "internal/awsquery", "internal/credential", "internal/directory", "internal/iam", "internal/keyring", "internal/proxyproto", "internal/registry", "internal/sigv4", "internal/sts", "internal/throttle"},
		never: []string{"github.com/jackc/pgx/v5"}, because: "issuing a credential touches no database"},
	{pkg: "internal/signin", ours: []string{"internal/admission", "internal/directory", "internal/keyring", "internal/quote", "internal/sts", "internal/throttle"},
		never: []string{"os"}, because: "the pages and the protocol of signing in decide nothing: that is the API's"},
	{pkg: "internal/console", ours: []string{"internal/admission", "internal/api", "internal/audit", "internal/awsquery", "internal/directory", "internal/iam", "internal/quote", "internal/registry", "internal/signin", "internal/throttle"},
		never: []string{"os"}, because: "the console's pages decide nothing: every act is a call of the API, by someone whose sign-in was verified"},
	{pkg: "internal/devidp", because: "an identity provider shares no code with the server that trusts it"},
	{pkg: "internal/seats", ours: []string{"internal/registry"}, never: []string{"net/http", "log", "log/slog"}, because: "counting sessions over all servers knows places and records, and no session"},
	{pkg: "internal/reaper", ours: []string{"internal/handover", "internal/registry"}, never: []string{"net/http"}, because: "the database is the only source for what to clean up"},
	{pkg: "internal/metrics", ours: []string{"internal/adminconn", "internal/admission", "internal/api", "internal/audit", "internal/dbuser", "internal/gateway", "internal/handover", "internal/keyring", "internal/throttle"},
		because: "the packages that are measured do not import the metrics"},
	{pkg: "internal/tracing", ours: []string{"internal/api", "internal/gateway"}, because: "the packages that are traced do not import the tracing"},
	{pkg: "internal/config", ours: []string{"internal/adminconn", "internal/dbuser", "internal/directory", "internal/filemode", "internal/iam", "internal/keyring", "internal/session", "internal/sts"},
		never: []string{"log", "log/slog"}, because: "the file is parsed into values, and faults are returned"},
	{pkg: "internal/server", ours: []string{"internal/adminconn", "internal/api", "internal/audit", "internal/awsquery", "internal/ca", "internal/config", "internal/console", "internal/credential", "internal/dbuser", "internal/directory", "internal/filemode", "internal/fleet", "internal/gateway", "internal/handover", "internal/keyring", "internal/metrics", "internal/peer", "internal/reaper", "internal/registry", "internal/registry/boltstore", "internal/registry/etcdstore", "internal/seats", "internal/signin", "internal/sts", "internal/throttle", "internal/tracing"},
		never: []string{"github.com/spf13/cobra"}, because: "the server is started by a command and by tests, and knows no command line"},

	// Clients and commands.
	{pkg: "internal/client", ours: []string{"internal/quote"}, because: "a client shares no code with the server it calls"},
	{pkg: "internal/login", because: "a client shares no code with the server it calls"},
	{pkg: "internal/proxy", ours: []string{"internal/pgwire", "internal/session", "internal/throttle"}, never: []string{"net/http"}, because: "it relays connections, and is given how to get a credential"},
	{pkg: "internal/awsconfig", ours: []string{"internal/quote"}, because: "all clients find the API and fail in the same way"},
	{pkg: "internal/awscli", ours: []string{"internal/awscli/jmespath", "internal/awscli/pyvalue", "internal/awsconfig", "internal/quote"}, because: "a client shares no code with the server it calls"},
	{pkg: "internal/awscli/pyvalue", never: leaf, because: "values and their text need no files"},
	{pkg: "internal/awscli/jmespath", ours: []string{"internal/awscli/pyvalue"}, never: leaf, because: "evaluating a query is a pure function"},
	{pkg: "internal/doctor", ours: []string{"internal/clustercheck", "internal/config", "internal/fleet", "internal/keyring", "internal/server", "internal/signin", "internal/sts"},
		never: []string{"github.com/spf13/cobra"}, because: "it looks at what the server has and says what it sees; how the API is called is the commands'"},
	{pkg: "internal/devserver", ours: []string{"internal/config", "internal/devidp", "internal/directory", "internal/keyring", "internal/postgres", "internal/quote", "internal/server"},
		never: []string{"github.com/spf13/cobra"}, because: "the demo uses the server as its users do: a configuration in, calls and logons on its ports"},
	{pkg: "cmd/daypass", ours: []string{"internal/api", "internal/awscli", "internal/awsconfig", "internal/client", "internal/clustercheck", "internal/compat", "internal/config", "internal/credential", "internal/devserver", "internal/directory", "internal/doctor", "internal/fleet", "internal/handover", "internal/iam", "internal/keyring", "internal/login", "internal/pgwire", "internal/proxy", "internal/quote", "internal/reaper", "internal/server"},
		never: []string{"github.com/jackc/pgx/v5", "net/http"}, because: "commands hold flags and output; what opens connections is in a package"},

	// Programs and helpers for tests, not part of the product.
	{pkg: "test/bench", forTests: true, ours: []string{"internal/ca", "internal/dbuser", "internal/handover", "internal/iam", "internal/postgres", "test/sitetest"}, because: "it measures the binary from outside"},
	{pkg: "test/soak", forTests: true, ours: []string{"internal/client", "internal/credential", "internal/dbuser", "internal/handover", "internal/postgres", "test/sitetest"}, because: "it drives the binary from outside"},
	{pkg: "test/clustertest", forTests: true, ours: []string{"internal/clustercheck", "internal/dbuser", "internal/handover", "test/pgtest"}, because: "the packages that administer a cluster share one setup in their tests"},
	{pkg: "test/envtest", forTests: true, because: "any package's tests may use it, so it imports none that they test"},
	{pkg: "test/pgtest", forTests: true, ours: []string{"internal/postgres", "test/envtest"}, because: "any package's tests may use it, so it imports none that they test"},
	{pkg: "test/sitetest", forTests: true, ours: []string{"internal/postgres", "test/pgtest"}, because: "it is given how to run a Daypass, so the server's own tests may use it"},
	{pkg: "test/etcdtest", forTests: true, ours: []string{"test/sitetest"}, because: "any package's tests may use it, so it imports none that they test"},
	{pkg: "internal/registry/registrytest", forTests: true, ours: []string{"internal/registry"}, because: "it tests any store through the interface"},
}

// modules has one row for each module outside the standard library, with our packages that may
// import the module or a package in it.
var modules = []struct {
	path    string
	homes   []string
	because string
}{
	{"github.com/aws/aws-sdk-go-v2", []string{"cmd/daypass", "internal/awscli", "internal/awsconfig", "internal/client", "internal/devserver", "internal/doctor", "test/soak"}, "clients only: the server verifies signatures with its own code"},
	{"github.com/aws/smithy-go", []string{"internal/awscli", "internal/awsconfig", "internal/devserver", "test/soak"}, "it comes with the SDK"},
	{"github.com/coreos/go-oidc/v3", []string{"internal/signin", "internal/sts"}, "web identity tokens become access keys in one place, and come from one other"},
	{"github.com/go-jose/go-jose/v4", []string{"internal/devidp", "internal/login", "internal/sts"}, "web identity tokens become access keys in one place, and are made for trying out in another; a client proves its key"},
	{"github.com/zitadel/oidc/v3", []string{"internal/devidp"}, "the server trusts identity providers; only the demo is one"},
	{"golang.org/x/oauth2", []string{"internal/signin"}, "people sign in in one place"},
	{"github.com/coreos/go-systemd/v22", []string{"cmd/daypass"}, "only commands know what has started the process"},
	{"github.com/fergusstrange/embedded-postgres", []string{"internal/postgres"}, "it downloads programs: no server does"},
	{"github.com/fxamacker/cbor/v2", []string{"internal/credential", "internal/signin", "internal/sts"}, "only what is signed or sealed is CBOR"},
	{"github.com/jackc/pgerrcode", []string{"internal/adminconn", "internal/clustercheck", "internal/compat", "internal/dbuser", "internal/devserver", "internal/handover"}, "the errors of servers are read by the name that PostgreSQL gives them; those that the gateway sends are in internal/pgwire"},
	{"github.com/jackc/pgx/v5", []string{"internal/adminconn", "internal/clustercheck", "internal/compat", "internal/config", "internal/dbuser", "internal/devserver", "internal/gateway", "internal/handover", "internal/postgres", "test/bench", "test/clustertest", "test/pgtest", "test/sitetest", "test/soak"}, "the packages that speak to PostgreSQL are listed"},
	{"github.com/prometheus/client_golang", []string{"internal/metrics"}, "metrics are collected from callbacks"},
	{"github.com/spf13/cobra", []string{"cmd/daypass"}, "flags are the commands'"},
	{"github.com/spf13/pflag", []string{"cmd/daypass"}, "flags are the commands'"},
	{"go.etcd.io/bbolt", []string{"internal/registry/boltstore"}, "a store's client reaches the binary through its package only"},
	{"go.etcd.io/etcd/api/v3", []string{"internal/registry/etcdstore", "test/etcdtest", "test/soak"}, "a store's client reaches the binary through its package only"},
	{"go.etcd.io/etcd/client/v3", []string{"internal/registry/etcdstore", "test/etcdtest", "test/soak"}, "a store's client reaches the binary through its package only"},
	{"go.etcd.io/etcd/etcdutl/v3", []string{"test/soak"}, "restoring a snapshot of etcd is for tests"},
	{"go.etcd.io/etcd/server/v3", []string{"test/etcdtest", "test/soak"}, "the server of etcd is for tests"},
	{"go.opentelemetry.io/otel", []string{"internal/tracing"}, "traces are made from callbacks"},
	{"go.uber.org/zap", []string{"internal/registry/etcdstore", "test/etcdtest", "test/soak"}, "etcd's client wants its logger; ours is log/slog"},
	{"go.yaml.in/yaml/v4", []string{"internal/awscli", "internal/config"}, "one package reads the configuration, one the AWS CLI's input files"},
	{"golang.org/x/net", []string{"internal/peer"}, "it bounds the connections of a listener that strangers may reach"},
	{"golang.org/x/sync", []string{"internal/devserver", "internal/server"}, "only wiring starts groups of goroutines"},
	{"golang.org/x/sys", []string{"internal/doctor", "internal/gateway", "internal/login", "internal/proxy", "internal/server", "internal/session", "test/bench"}, "the packages with system calls are listed"},
	{"golang.org/x/term", []string{"cmd/daypass"}, "only commands know the terminal"},
	{"golang.org/x/text", []string{"internal/awscli"}, "only the AWS CLI's tables measure characters"},
	{"golang.org/x/time", []string{"internal/throttle"}, "token buckets are made in one place"},
	{"google.golang.org/grpc", []string{"internal/registry/etcdstore"}, "a store's client reaches the binary through its package only"},
}

// TestDependencyDirection checks the imports against the tables above, which follow the arrows
// of ARCHITECTURE.md. It also finds rows and rules that are not needed.
func TestDependencyDirection(t *testing.T) {
	imports := ourImports(t)
	ruled, forTests := map[string]bool{}, map[string]bool{}
	for _, rule := range packages {
		if ruled[rule.pkg] {
			t.Errorf("%s has two rows", rule.pkg)
		}
		ruled[rule.pkg], forTests[rule.pkg] = true, rule.forTests
		if imports[rule.pkg] == nil {
			t.Errorf("%s has a row and does not exist", rule.pkg)
		}
		if rule.because == "" {
			t.Errorf("the row of %s gives no reason", rule.pkg)
		}
	}
	for pkg, list := range imports {
		if !ruled[pkg] {
			t.Errorf("%s has no row; it imports %v", pkg, list)
		}
	}
	for _, rule := range packages {
		for _, name := range rule.ours {
			if !slices.Contains(imports[rule.pkg], module+name) {
				t.Errorf("%s may import %s and does not: take it out of the row", rule.pkg, name)
			}
		}
		for _, imported := range imports[rule.pkg] {
			name, ours := strings.CutPrefix(imported, module)
			if ours && !slices.Contains(rule.ours, name) {
				t.Errorf("%s imports %s: %s", rule.pkg, name, rule.because)
			}
			if ours && forTests[name] && !rule.forTests {
				t.Errorf("%s imports %s, which is for tests", rule.pkg, name)
			}
			for _, never := range rule.never {
				if imported == never || !standard(never) && within(imported, never) {
					t.Errorf("%s imports %s: %s", rule.pkg, imported, rule.because)
				}
			}
		}
	}
	required := requiredModules(t)
	for _, rule := range packages {
		for _, never := range rule.never {
			if standard(never) {
				if _, err := os.Stat(filepath.Join(build.Default.GOROOT, "src", never)); err != nil {
					t.Errorf("%s must not import %s, which does not exist: %v", rule.pkg, never, err)
				}
			} else if !required[never] {
				t.Errorf("%s must not import %s, which is not in go.mod", rule.pkg, never)
			}
		}
	}
}

// TestModulesHaveHomes: only the packages listed for a module import it.
func TestModulesHaveHomes(t *testing.T) {
	imports := ourImports(t)
	used := map[[2]string]bool{}
	for pkg, list := range imports {
		for _, imported := range list {
			if standard(imported) || strings.HasPrefix(imported, module) {
				continue
			}
			at := -1
			for i, rule := range modules {
				if within(imported, rule.path) && (at < 0 || len(rule.path) > len(modules[at].path)) {
					at = i
				}
			}
			switch {
			case at < 0:
				t.Errorf("%s imports %s, which has no row", pkg, imported)
			case !slices.Contains(modules[at].homes, pkg):
				t.Errorf("%s imports %s, which is for %v: %s", pkg, imported, modules[at].homes, modules[at].because)
			default:
				used[[2]string{modules[at].path, pkg}] = true
			}
		}
	}
	for _, rule := range modules {
		for _, home := range rule.homes {
			if !used[[2]string{rule.path, home}] {
				t.Errorf("%s may import %s and does not: take it out of the row", home, rule.path)
			}
		}
		if len(rule.homes) == 0 || rule.because == "" {
			t.Errorf("the row of %s has no homes or gives no reason", rule.path)
		}
	}
}

// TestModulesOfTestsHaveTheirBlock: modules that no package of the binary imports have their own
// block in go.mod, and no other module is in that block.
func TestModulesOfTestsHaveTheirBlock(t *testing.T) {
	text, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	forTests := map[string]bool{}
	for _, rule := range packages {
		forTests[rule.pkg] = rule.forTests
	}
	direct := map[string]bool{} // whether it is in the block
	block := ""
	for line := range strings.Lines(string(text)) {
		switch words := strings.Fields(line); {
		case strings.HasPrefix(line, "//"):
			block = line
		case len(words) == 0:
			block = ""
		case len(words) == 2 && strings.HasPrefix(words[1], "v"):
			direct[words[0]] = strings.HasPrefix(block, "// For tests only")
		}
	}
	if len(direct) == 0 {
		t.Fatal("go.mod requires nothing")
	}
	inBinary := map[string]bool{}
	for pkg, list := range ourImports(t) {
		if forTests[pkg] {
			continue
		}
		for _, imported := range list {
			home := ""
			for path := range direct {
				if within(imported, path) && len(path) > len(home) {
					home = path
				}
			}
			inBinary[home] = true
		}
	}
	for path, own := range direct {
		if own && inBinary[path] {
			t.Errorf("go.mod: %s is imported by the binary, and stands in the block for tests", path)
		}
		if !own && !inBinary[path] {
			t.Errorf("go.mod: %s is imported by tests only: put it into their block", path)
		}
	}
}

// TestArchitectureNamesEveryPackage reads the table of ARCHITECTURE.md. A nested package may be
// named in the row of its parent.
func TestArchitectureNamesEveryPackage(t *testing.T) {
	text, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range ourImports(t) {
		named := false
		for line := range strings.Lines(string(text)) {
			parent := strings.HasPrefix(line, "| ") && strings.Contains(line, "`"+path.Dir(pkg)+"`") && strings.Contains(line, "`"+path.Base(pkg)+"`")
			named = named || parent || strings.HasPrefix(line, "| ") && strings.Contains(line, "`"+pkg+"`")
		}
		if !named {
			t.Errorf("no row of ARCHITECTURE.md names %s", pkg)
		}
	}
}

// standard reports whether an import path belongs to the standard library: its first element has
// no dot.
func standard(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".")
}

// within reports whether an import path is that of a module or of a package in it.
func within(imported, module string) bool {
	return imported == module || strings.HasPrefix(imported, module+"/")
}

// requiredModules lists the modules that go.mod requires.
func requiredModules(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	required := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(strings.TrimPrefix(line, "require ")); len(words) > 1 {
			required[words[0]] = true
		}
	}
	return required
}

// ourImports lists what the non-test files of each package import.
func ourImports(t *testing.T) map[string][]string {
	t.Helper()
	root := os.DirFS("../..")
	imports := map[string][]string{}
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (strings.HasPrefix(entry.Name(), ".") && name != "." || entry.Name() == "testdata") {
			return fs.SkipDir
		}
		if _, err := fs.Stat(root, path.Join(name, "go.mod")); entry.IsDir() && name != "." && err == nil {
			return fs.SkipDir // a separate module
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("../..", name), nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		pkg := path.Dir(name)
		if imports[pkg] == nil {
			imports[pkg] = []string{}
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if !slices.Contains(imports[pkg], imported) {
				imports[pkg] = append(imports[pkg], imported)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return imports
}

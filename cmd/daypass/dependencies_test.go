package main

import (
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

// testOnly are the packages that no binary of ours has in it but those that
// measure and shake it.
var testOnly = map[string]bool{
	"internal/bench":                 true,
	"internal/etcdtest":              true,
	"internal/pgtest":                true,
	"internal/registry/registrytest": true,
	"internal/soak":                  true,
}

// TestDependencyDirection keeps the arrows of ARCHITECTURE.md: a package may
// import only what its row names, of ours and of the listed others.
func TestDependencyDirection(t *testing.T) {
	leaf := []string{"os", "net", "net/http", "log", "log/slog", "database/sql"}
	rules := []struct {
		pkg     string
		ours    []string // packages of ours it may import
		never   []string // others it may not
		because string
	}{
		{"internal/awsquery", nil, []string{"os", "log", "log/slog"}, "a leaf: bytes in, values out"},
		{"internal/sigv4", nil, []string{"os", "log", "log/slog"}, "a leaf: a request in, who signed it out"},
		{"internal/iam", nil, leaf, "a decision is a pure function"},
		{"internal/filemode", nil, []string{"net", "net/http", "log", "log/slog"}, "a rule about modes, and no more"},
		{"internal/keyring", []string{"internal/filemode"}, []string{"net/http", "log"}, "keys know nothing of what they are for"},
		{"internal/credential", []string{"internal/keyring"}, leaf, "a credential is checked without asking anybody"},
		{"internal/registry", []string{"internal/keyring"}, []string{"net/http", "log", "log/slog"}, "what is remembered, whoever remembers it"},
		{"internal/registry/boltstore", []string{"internal/registry"}, []string{"net/http"}, "a store"},
		{"internal/registry/etcdstore", []string{"internal/keyring", "internal/registry"}, []string{"net/http"}, "a store"},
		{"internal/directory", []string{"internal/iam", "internal/keyring"}, leaf, "a snapshot does no I/O"},
		{"internal/audit", []string{"internal/keyring"}, []string{"net/http"}, "the record of what happened depends on nothing that happens"},
		{"internal/dbuser", []string{"internal/keyring", "internal/pgwire"}, []string{"net/http"}, "role DDL does not know who asked for it"},
		{"internal/proxyproto", nil, leaf, "a leaf: bytes in, an address out"},
		{"internal/admission", nil, []string{"os", "log", "log/slog", "net/http"}, "chooses, and knows nothing of what it chooses from"},
		{"internal/throttle", nil, []string{"os", "log", "log/slog"}, "counts, and knows nothing of what it counts"},
		{"internal/metrics", []string{"internal/admission", "internal/api", "internal/audit", "internal/dbuser", "internal/gateway", "internal/keyring", "internal/throttle"}, nil, "whatever is measured does not know that it is"},
		{"internal/tracing", []string{"internal/api", "internal/gateway"}, nil, "whatever is traced does not know that it is"},
		{"internal/ca", nil, []string{"net/http"}, "certificates"},
		{"internal/sts", []string{"internal/directory", "internal/iam", "internal/keyring"}, nil, "temporary access keys know nothing of databases"},
		{"internal/client", []string{"internal/quote"}, nil, "signs calls to the API"},
		{"internal/awscli", []string{"internal/awscli/jmespath", "internal/quote"}, nil, "the client is a client: nothing of the server"},
		{"internal/awscli/jmespath", nil, leaf, "a query language"},
		{"internal/quote", nil, leaf, "text in, text out"},
		{"internal/pgwire", nil, leaf, "rules of the protocol: bytes in, verdicts out"},
		{"internal/postgres", nil, nil, "a local PostgreSQL, for dev and for tests"},
		{"internal/gateway", []string{"internal/admission", "internal/audit", "internal/credential", "internal/dbuser", "internal/keyring", "internal/pgwire", "internal/proxyproto", "internal/registry", "internal/throttle"}, []string{"net/http"}, "the data path cannot mint: no API, no IAM"},
		{"internal/reaper", []string{"internal/dbuser"}, []string{"net/http"}, "clean-up asks the database, nobody else"},
		{"internal/registry/registrytest", []string{"internal/registry"}, nil, "tests only"},
		{"internal/config", []string{"internal/dbuser", "internal/directory", "internal/filemode", "internal/gateway", "internal/iam", "internal/keyring", "internal/sts"}, []string{"log", "log/slog"}, "a file in, values out"},
		{"internal/server", []string{"internal/api", "internal/audit", "internal/ca", "internal/config", "internal/credential", "internal/dbuser", "internal/directory", "internal/filemode", "internal/gateway", "internal/keyring", "internal/metrics", "internal/reaper", "internal/registry", "internal/registry/boltstore", "internal/registry/etcdstore", "internal/throttle", "internal/tracing"}, []string{"github.com/spf13/cobra"}, "the wiring of a server knows no command line"},
		{"internal/devserver", []string{"internal/config", "internal/directory", "internal/keyring", "internal/postgres", "internal/quote", "internal/server"}, []string{"github.com/spf13/cobra"}, "the demo uses the server as its users do: a configuration in, calls and logons on its ports"},
		{"internal/api", []string{"internal/admission", "internal/audit", "internal/awsquery", "internal/credential", "internal/directory", "internal/iam", "internal/keyring", "internal/proxyproto", "internal/registry", "internal/sigv4", "internal/sts", "internal/throttle"}, []string{"github.com/jackc/pgx/v5"}, "issuing touches no database"},
	}
	imports := ourImports(t)
	for _, rule := range rules {
		if _, there := imports[rule.pkg]; !there {
			t.Errorf("%s has two rules here, or is no package", rule.pkg)
		}
		for _, imported := range imports[rule.pkg] {
			if name, ours := strings.CutPrefix(imported, module); ours && !slices.Contains(rule.ours, name) {
				t.Errorf("%s imports %s: %s", rule.pkg, name, rule.because)
			}
			if slices.Contains(rule.never, imported) {
				t.Errorf("%s imports %s: %s", rule.pkg, imported, rule.because)
			}
		}
		delete(imports, rule.pkg)
	}
	for pkg, list := range imports {
		if strings.HasPrefix(pkg, "cmd/") || testOnly[pkg] {
			continue
		}
		t.Errorf("%s has no rule here; it imports %v", pkg, list)
	}
	only := map[string][]string{
		"github.com/fxamacker/cbor/v2":                   {"internal/credential", "internal/sts"},
		"github.com/fergusstrange/embedded-postgres":     {"internal/postgres"},
		"github.com/coreos/go-oidc/v3/oidc":              {"internal/sts"},
		"github.com/prometheus/client_golang/prometheus": {"internal/metrics"},
		"go.opentelemetry.io/otel/sdk/trace":             {"internal/tracing"},
		"go.yaml.in/yaml/v3":                             {"internal/awscli", "internal/config"},
		"go.etcd.io/bbolt":                               {"internal/registry/boltstore"},
		"go.etcd.io/etcd/client/v3":                      {"internal/registry/etcdstore", "internal/etcdtest"},
		"go.etcd.io/etcd/server/v3/embed":                {"internal/etcdtest"},
		"google.golang.org/grpc":                         {"internal/registry/etcdstore"},
	}
	for pkg, list := range ourImports(t) {
		for _, imported := range list {
			if homes, bound := only[imported]; bound && !slices.Contains(homes, pkg) {
				t.Errorf("%s imports %s, which belongs to %v", pkg, imported, homes)
			}
			if name, ours := strings.CutPrefix(imported, module); ours && testOnly[name] {
				t.Errorf("%s imports %s outside its tests", pkg, name)
			}
		}
	}
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
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("../..", name), nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		pkg := path.Dir(name)
		imports[pkg] = append(imports[pkg], []string{}...)
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

package config

import (
	"crypto/tls"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/ca"
)

// TestUpstreamServers: if the server is on another machine, the file must say how its identity
// is verified.
func TestUpstreamServers(t *testing.T) {
	const none = ""
	for _, row := range []struct{ upstream, fault, warning string }{
		{"postgres://daypass@127.0.0.1/postgres", none, none},
		{"postgres://daypass@localhost/postgres", none, none},
		{"postgres://daypass@[::1]:5433/postgres", none, none},
		{"postgres://daypass@127.0.0.1:5432/postgres?sslmode=disable", none, none},
		{"host=/var/run/postgresql user=daypass", none, none},
		{"postgres://daypass@db.example.com/postgres", "names db.example.com, which is not this machine, and no sslmode", none},
		{"postgres://daypass@192.0.2.1/postgres", "names 192.0.2.1, which", none},
		{"host=db.example.com user=daypass", "names db.example.com, which", none},
		{"postgres://daypass@127.0.0.1,db2.example.com/postgres", "names db2.example.com, which", none},
		{"postgres://daypass@db1.example.com,127.0.0.1,db2.example.com/postgres", "names db1.example.com, db2.example.com, which", none},
		{"postgres://daypass@localhost.example.com/postgres", "names localhost.example.com, which", none},
		{"postgres://daypass@db.example.com/postgres?sslmode=verify-full", none, none},
		{"postgres://daypass@db.example.com/postgres?sslrootcert=system", none, none},
		{"postgres://daypass@db.example.com/postgres?sslmode=disable", none, "not encrypted"},
		{"postgres://daypass@db.example.com/postgres?sslmode=prefer", none, "turn the encryption off"},
		{"postgres://daypass@db.example.com/postgres?sslmode=allow", none, "turn the encryption off"},
		{"postgres://daypass@db.example.com/postgres?sslmode=require", none, "any machine could answer"},
		{"postgres://daypass@db.example.com/postgres?ssl=true", none, "any machine could answer"},
		{"postgres://daypass@db.example.com/postgres?sslmode=", "and no sslmode", none},
		{"postgres://daypass@db.example.com/postgres?sslmode=sometimes", "sslmode is invalid", none},
		{"postgres:///postgres", "names no host", none},
		{"postgres://daypass@127.0.0.1,/postgres", "names no host", none},
		{"host=127.0.0.1", "names no user", none},
		{"service=main user=daypass", "does not follow service", none},
		{"host=127.0.0.1 user=daypass hostaddr=192.0.2.1", `has the parameter "hostaddr", which it does not take`, none},
		{"host=127.0.0.1 user=daypass search_path=mine", `has the parameter "search_path"`, none},
		{"host=127.0.0.1 user=daypass target_session_attrs=fast", "target_session_attrs", none},
	} {
		c, err := Parse("f.yaml", []byte(clusterConfigWith("upstream: '"+row.upstream+"'")), testEnvironment)
		switch {
		case row.fault != none && (err == nil || !strings.Contains(err.Error(), row.fault) || !strings.Contains(err.Error(), "f.yaml:8: clusters[0].upstream: ")):
			t.Errorf("%s: %v, want line 8 and %q", row.upstream, err, row.fault)
		case row.fault == none && err != nil:
			t.Errorf("%s: %v", row.upstream, err)
		case row.fault != none:
		case row.warning == none && len(c.Warnings) > 0, row.warning != none && (len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], row.warning)):
			t.Errorf("%s: warnings %q, want %q", row.upstream, c.Warnings, row.warning)
		}
	}
}

// TestUpstreamIgnoresItsSurroundings: neither the environment nor files in the home directory
// change the settings in the file.
func TestUpstreamIgnoresItsSurroundings(t *testing.T) {
	read := func() *pgconn.Config {
		t.Helper()
		c, err := Parse("f.yaml", []byte(clusterConfigWith("upstream: 'host=127.0.0.1 user=daypass sslmode=verify-full'")), testEnvironment)
		if err != nil {
			t.Fatal(err)
		}
		return &c.Clusters[0].Upstream.Config
	}
	before := read()
	home := t.TempDir()
	authority, err := ca.Open(filepath.Join(home, "ca"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(home, ".postgresql"), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(home, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.ReadFile(authority.CertificateFile())
	if err != nil {
		t.Fatal(err)
	}
	write(".postgresql/root.crt", root)
	write(".postgresql/postgresql.crt", []byte("no certificate"))
	write(".postgresql/postgresql.key", []byte("no key"))
	write(".pgpass", []byte("*:*:*:*:stray\n"))
	for name, value := range map[string]string{
		"HOME": home, "PGHOST": "192.0.2.7", "PGPORT": "7", "PGDATABASE": "other", "PGUSER": "other", "PGPASSWORD": "stray",
		"PGPASSFILE": filepath.Join(home, ".pgpass"), "PGAPPNAME": "other", "PGCONNECT_TIMEOUT": "7", "PGSSLMODE": "disable",
		"PGSSLKEY": "nowhere", "PGSSLCERT": "nowhere", "PGSSLCERTMODE": "disable", "PGSSLSNI": "0", "PGSSLROOTCERT": "nowhere", "PGSSLPASSWORD": "x",
		"PGSSLNEGOTIATION": "direct", "PGTARGETSESSIONATTRS": "standby", "PGSERVICEFILE": "nowhere", "PGTZ": "UTC", "PGOPTIONS": "-c x=y",
		"PGMINPROTOCOLVERSION": "3.2", "PGMAXPROTOCOLVERSION": "latest", "PGCHANNELBINDING": "disable", "PGREQUIREAUTH": "none",
	} {
		t.Setenv(name, value)
	}
	after := read()
	shape := func(c *pgconn.Config) map[string]any {
		return map[string]any{
			"host": c.Host, "port": c.Port, "database": c.Database, "user": c.User, "password": c.Password, "timeout": c.ConnectTimeout,
			"fallbacks": len(c.Fallbacks), "attrs": c.ValidateConnect != nil, "negotiation": c.SSLNegotiation, "certmode": c.SSLCertMode,
			"min": c.MinProtocolVersion, "max": c.MaxProtocolVersion, "binding": c.ChannelBinding, "auth": c.RequireAuth,
			"application": c.RuntimeParams["application_name"], "settings": len(c.RuntimeParams), "verify": c.TLSConfig != nil && !c.TLSConfig.InsecureSkipVerify,
			"roots": c.TLSConfig != nil && c.TLSConfig.RootCAs != nil, "certificates": certificates(c.TLSConfig),
		}
	}
	if got, want := shape(after), shape(before); !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	t.Setenv("PGSERVICE", "main")
	if _, err := Parse("f.yaml", []byte(clusterConfigWith("upstream: 'host=127.0.0.1 user=daypass'")), testEnvironment); err == nil || !strings.Contains(err.Error(), "PGSERVICE") {
		t.Errorf("with PGSERVICE: %v, want an error that names it", err)
	}
}

func certificates(c *tls.Config) int {
	if c == nil {
		return 0
	}
	return len(c.Certificates)
}

// TestUpstreamFiles: relative paths start at the configuration's directory, as for other
// keys.
func TestUpstreamFiles(t *testing.T) {
	dir := t.TempDir()
	authority, err := ca.Open(filepath.Join(dir, "tls"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(dir, authority.CertificateFile())
	if err != nil {
		t.Fatal(err)
	}
	text := clusterConfigWith("upstream: 'postgres://daypass@db.example.com/postgres?sslmode=verify-full&sslrootcert=" + relative + "'")
	c, err := Parse(filepath.Join(dir, "f.yaml"), []byte(text), testEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	if c.Clusters[0].Upstream.TLSConfig.RootCAs == nil {
		t.Error("no authority was read")
	}
	if !slices.ContainsFunc(c.Files, func(f File) bool { return f.Path == authority.CertificateFile() }) {
		t.Errorf("files = %v, want %s among them", c.Files, authority.CertificateFile())
	}
}

// TestUpstreamPassword: the default password variable works only if there is one cluster.
func TestUpstreamPassword(t *testing.T) {
	environment := func(name string) (string, bool) {
		value, ok := map[string]string{"DAYPASS_UPSTREAM_PASSWORD": "first", "OTHER": "second"}[name]
		return value, ok
	}
	second := "  - {identifier: west, upstream: 'postgres://daypass@127.0.0.1:5433/postgres'%s}\n"
	for _, row := range []struct {
		name, east, west string
		want             []string
		warnings         int
	}{
		{"one", "database: dev", "", []string{"first"}, 0},
		{"one with its own", "upstream_password_env: OTHER", "", []string{"second"}, 0},
		{"one in the string", "upstream: 'postgres://daypass:third@127.0.0.1/postgres'", "", []string{"third"}, 0},
		{"two that forgot", "database: dev", strings.Replace(second, "%s", "", 1), []string{"", ""}, 2},
		{"one of two forgot", "upstream_password_env: DAYPASS_UPSTREAM_PASSWORD", strings.Replace(second, "%s", "", 1), []string{"first", ""}, 1},
		{"both name it", "upstream_password_env: DAYPASS_UPSTREAM_PASSWORD", strings.Replace(second, "%s", ", upstream_password_env: DAYPASS_UPSTREAM_PASSWORD", 1), []string{"first", "first"}, 0},
	} {
		c, err := Parse("f.yaml", []byte(clusterConfigWith(row.east)+row.west), environment)
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		var got []string
		for _, cluster := range c.Clusters {
			got = append(got, cluster.Upstream.Password)
			if strings.Contains(cluster.Upstream.ConnString(), "third") {
				t.Errorf("%s: the password is in the connection string", row.name)
			}
		}
		if !slices.Equal(got, row.want) || len(c.Warnings) != row.warnings {
			t.Errorf("%s: passwords %q, warnings %q, want %q and %d", row.name, got, c.Warnings, row.want, row.warnings)
		}
	}
}

// TestSharedUpstream: there is a warning about two clusters on one server, which would
// overwrite each other's passwords.
func TestSharedUpstream(t *testing.T) {
	for _, row := range []struct {
		east, west string
		shared     bool
	}{
		{"127.0.0.1", "localhost:5432", true},
		{"127.0.0.1", "[::1]", true},
		{"127.0.0.1", "127.0.0.1:5433", false},
		{"db1,db2", "DB2", true},
		{"db1,db2:5433", "db2", false},
		{"db1", "db1.", true},
		{"db1", "db2", false},
		{"%2Frun%2Fa", "%2Frun%2Fb", false},
		{"%2Frun%2Fa", "%2Frun%2Fa", true},
	} {
		text := clusterConfigWith("upstream: 'postgres://daypass@"+row.east+"/postgres?sslmode=verify-full'") +
			"  - {identifier: west, upstream: 'postgres://daypass@" + row.west + "/postgres?sslmode=verify-full'}\n"
		c, err := Parse("f.yaml", []byte(text), func(string) (string, bool) { return "", false })
		if err != nil {
			t.Errorf("%s, %s: %v", row.east, row.west, err)
			continue
		}
		warned := len(c.Warnings) == 1 && strings.Contains(c.Warnings[0], `f.yaml:9: clusters[1].upstream: leads to `)
		if warned != row.shared {
			t.Errorf("%s, %s: warnings %q, want one: %v", row.east, row.west, c.Warnings, row.shared)
		}
	}
}

// FuzzConnInfo: the driver reads our form of a connection string as it reads the original.
func FuzzConnInfo(f *testing.F) {
	for _, text := range []string{
		"postgres://daypass@127.0.0.1:5432/postgres?sslmode=disable", "postgresql://u:p%40ss@[::1],h2:5433/d?ssl=true&target_session_attrs=any",
		`host=/run/x user='a b' password='it\'s' dbname=d`, `host=h\ i user=u port=1,2`, "postgres://h1,h2:1/", "host = 'x' user=y", "postgres://u@%2Frun/d",
		"user= host=x", "postgres://?host=a,b&port=1,2&user=c&dbname=d", "postgres://u@h/d?sslmode=verify-full&ssl=true",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		info, err := parseConnInfo(text)
		theirs, theirErr := pgconn.ParseConfig(text)
		if err != nil {
			if theirErr == nil {
				t.Fatalf("%q: %v, and the driver takes it", text, err)
			}
			return
		}
		for name := range info {
			if _, known := upstreamDefaults[name]; !known {
				return // refused
			}
		}
		if info["user"] == "" || slices.ContainsFunc(info.servers(), func(s server) bool { return s.host == "" }) {
			return // refused
		}
		ours, ourErr := pgconn.ParseConfig(info.String())
		if (ourErr == nil) != (theirErr == nil) {
			t.Fatalf("%q as %q: %v, the driver: %v", text, info, ourErr, theirErr)
		}
		if ourErr != nil {
			return
		}
		if ours.Host != theirs.Host || ours.Port != theirs.Port || ours.Database != theirs.Database || ours.User != theirs.User ||
			ours.Password != theirs.Password || len(ours.Fallbacks) != len(theirs.Fallbacks) || !maps.Equal(ours.RuntimeParams, theirs.RuntimeParams) {
			t.Fatalf("%q as %q: %+v, the driver: %+v", text, info, ours, theirs)
		}
	})
}

// TestReadPassword: ReadPassword reads the file's present content.
func TestReadPassword(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "password")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first\n")
	c, err := Parse(filepath.Join(dir, "f.yaml"), []byte(clusterConfigWith("upstream_password_file: password")), testEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	write("second\r\n")
	if got, err := c.Clusters[0].ReadPassword(); err != nil || got != "second" || c.Clusters[0].Upstream.Password != "first" {
		t.Errorf("ReadPassword = %q, %v, after %q", got.Reveal(), err, c.Clusters[0].Upstream.Password)
	}
	c, err = Parse("f.yaml", []byte(clusterConfigWith("upstream_password_env: DAYPASS_UPSTREAM_PASSWORD")), testEnvironment)
	if err != nil || c.Clusters[0].ReadPassword != nil {
		t.Errorf("a password of the environment is read again: %v", err)
	}
}

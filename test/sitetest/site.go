// Package sitetest starts a site: a PostgreSQL, a configuration, and a Daypass in front of it. The
// tests of the commands and of the server, make bench and make soak all use it.
//
// A Site does not know how its Daypass is run. Start takes a Serve, a function that serves until its
// context ends. Tests of the server pass a Serve that calls server.Run in their own process; Program
// runs the binary. So sitetest imports no package that is tested with it.
package sitetest

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/postgres"
	"github.com/daypass/daypass/test/pgtest"
)

// AdminPassword is the password of the administrative login daypass. New writes it to
// upstream.password.
const AdminPassword = "administrative secret"

// Configuration is the example configuration: the cluster examplecluster with the database dev, and
// the IAM users of Keys. Configure replaces its placeholders.
//
//go:embed example/daypass.yaml
var Configuration string

//go:embed example/example.sql
var exampleSQL string

//go:embed example/example-dev.sql
var exampleDevSQL string

// Keys are the access keys in Configuration, by IAM user.
var Keys = map[string][2]string{
	"ana":   {"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"},
	"bob":   {"AKIAI44QH8DHBEXAMPLE", "je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY"},
	"admin": {"AKIAJADMINADMINADMIN", "adminadminadminadminadminadminadmin+/adm"},
}

// Step is SQL that the superuser runs in a database.
type Step struct{ Database, SQL string }

// Roles makes the administrative login, and the users and groups of the example.
func Roles() Step { return Step{"postgres", exampleSQL} }

// Example sets up the whole example: its roles, and its databases dev and other.
func Example() []Step {
	return []Step{{"postgres", "CREATE DATABASE dev"}, {"postgres", "CREATE DATABASE other"}, Roles(), {"dev", exampleDevSQL}}
}

// Site is a directory with a configuration, a PostgreSQL and a Daypass. It must be used from one
// goroutine only.
type Site struct {
	Dir          string
	API, Gateway string           // addresses that were free when the site was made
	Database     *postgres.Server // nil: StartDatabase was not called

	life *Life
}

// New makes a site in an existing directory, and writes the password of the administrative login to
// upstream.password.
func New(dir string) (*Site, error) {
	s := &Site{Dir: dir}
	for _, address := range []*string{&s.API, &s.Gateway} {
		var err error
		if *address, err = FreeAddress(); err != nil {
			return nil, err
		}
	}
	return s, s.Write("upstream.password", AdminPassword+"\n")
}

// StartDatabase starts PostgreSQL and runs the steps.
func (s *Site) StartDatabase(ctx context.Context, inst postgres.Installation, opts postgres.Options, steps ...Step) error {
	if !opts.Durable {
		opts.Root, opts.Templates = pgtest.Root(), pgtest.Templates()
	}
	database, err := postgres.Start(context.WithoutCancel(ctx), inst, opts)
	if err != nil {
		return err
	}
	s.Database = database
	for _, step := range steps {
		if err := s.Execute(ctx, step.Database, step.SQL); err != nil {
			return err
		}
	}
	return nil
}

// Execute runs SQL as the superuser.
func (s *Site) Execute(ctx context.Context, database, sql string) error {
	conn, err := pgx.Connect(ctx, s.Database.ConnString(postgres.Superuser, database))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("%.60s: %w", sql, err)
	}
	return nil
}

// Upstream returns the connection string of the administrative login.
func (s *Site) Upstream() string {
	return fmt.Sprintf("postgres://daypass@127.0.0.1:%d/postgres?sslmode=disable", s.Database.Port())
}

// Path returns the path of a file below the site's directory.
func (s *Site) Path(name string) string { return filepath.Join(s.Dir, filepath.FromSlash(name)) }

// ConfigFile returns the path of the configuration.
func (s *Site) ConfigFile() string { return s.Path("daypass.yaml") }

// Write writes a file below the site's directory, which only its owner may read.
func (s *Site) Write(name, text string) error {
	path := s.Path(name)
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600))
}

// Configure writes the configuration. replace holds pairs of a placeholder and its text. Other
// placeholders get the site's addresses and its database.
func (s *Site) Configure(configuration string, replace ...string) error {
	_, port, err := net.SplitHostPort(s.Gateway)
	if err != nil {
		return err
	}
	replace = append(replace, "API_LISTEN", s.API, "GATEWAY_LISTEN", s.Gateway, "GATEWAY_PORT", port)
	if s.Database != nil {
		replace = append(replace, "UPSTREAM", s.Upstream())
	}
	return s.Write("daypass.yaml", strings.NewReplacer(replace...).Replace(configuration))
}

// CACert returns the path of the certificate that clients verify the gateway with.
func (s *Site) CACert() string { return s.Path("data/tls/ca.crt") }

// Logon returns the configuration of a logon through the gateway.
func (s *Site) Logon(user, password, database string) (*pgx.ConnConfig, error) {
	host, port, err := net.SplitHostPort(s.Gateway)
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%s sslmode=verify-full sslrootcert=%s", host, port, s.CACert()))
	if err != nil {
		return nil, err
	}
	config.User, config.Password, config.Database = user, password, database
	return config, nil
}

// Start runs a Daypass. It returns when the Daypass is ready, or with the error if it fails.
func (s *Site) Start(serve Serve) (err error) {
	if s.life != nil {
		return errors.New("a Daypass runs already")
	}
	s.life, err = Start(serve)
	return err
}

// Stop ends the Daypass, if one is running, and returns the result of its Serve.
func (s *Site) Stop() error {
	if s.life == nil {
		return nil
	}
	life := s.life
	s.life = nil
	return life.Stop()
}

// Close ends everything that the site has started. It does not remove the files.
func (s *Site) Close() error {
	err := s.Stop()
	if s.Database != nil {
		err = errors.Join(err, s.Database.Stop())
	}
	return err
}

package devserver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/daypass/daypass/internal/config"
	"github.com/daypass/daypass/internal/postgres"
)

// Names of the example, which the configuration, the database, the walk and the commands to
// paste share.
const (
	exampleAccount  = "123456789012"
	exampleRegion   = "us-east-1"
	exampleCluster  = "examplecluster"
	exampleDatabase = "dev"
	exampleIAMUser  = "ana"
	exampleOperator = "operator"
	exampleClient   = "daypass" // at the identity provider
)

// exampleConfiguration is the configuration of `daypass dev`. It is read by the same code as
// the file of `daypass serve`, and stays in the data directory so that the user can look at
// it.
const exampleConfiguration = `# Made by daypass dev, anew at each start.
account: "` + exampleAccount + `"
region: ` + exampleRegion + `
data: <data>
api: {listen: <api>}
gateway: {listen: <gateway>, advertise: {host: localhost, port: <port>}}
sign_in: {url: <api url>, issuer: <provider>, client_id: ` + exampleClient + `}
console: true
clusters:
  - identifier: ` + exampleCluster + `
    database: ` + exampleDatabase + `
    upstream: <upstream>
    upstream_password_env: UPSTREAM_PASSWORD
iam:
  oidc_providers: [{issuer: <provider>, audiences: [` + exampleClient + `]}]
  roles:
    - name: analyst
      trust_policy:
        Version: "2012-10-17"
        Statement:
          - Sid: PeopleInTheGroupAnalysts
            Effect: Allow
            Principal: {Federated: "arn:aws:iam::` + exampleAccount + `:oidc-provider/<provider name>"}
            Action: sts:AssumeRoleWithWebIdentity
            Condition: {"ForAnyValue:StringEquals": {"<provider name>:groups": analysts}}
      policies:
        - Version: "2012-10-17"
          Statement:
            - Sid: LogOnAsAlice
              Effect: Allow
              Action: redshift:GetClusterCredentials
              Condition: {StringEquals: {"redshift:DbName": ` + exampleDatabase + `}}
              Resource:
                - arn:aws:redshift:` + exampleRegion + `:` + exampleAccount + `:dbuser:` + exampleCluster + `/alice
                - arn:aws:redshift:` + exampleRegion + `:` + exampleAccount + `:dbname:` + exampleCluster + `/` + exampleDatabase + `
            - {Sid: JoinAnalysts, Effect: Allow, Action: redshift:JoinGroup, Resource: "arn:aws:redshift:` + exampleRegion + `:` + exampleAccount + `:dbgroup:` + exampleCluster + `/analysts"}
            - {Sid: SeeTheClusters, Effect: Allow, Action: redshift:DescribeClusters, Resource: "*"}
            - Sid: SeeAndEndOwnSessions
              Effect: Allow
              Action: [daypass:ListSessions, daypass:TerminateSession]
              Resource: "*"
              Condition: {StringEquals: {"daypass:session-owner-iam-userid": "${aws:userid}"}}
    - name: engineer
      trust_policy:
        Version: "2012-10-17"
        Statement:
          - Sid: PeopleInTheGroupEngineers
            Effect: Allow
            Principal: {Federated: "arn:aws:iam::` + exampleAccount + `:oidc-provider/<provider name>"}
            Action: sts:AssumeRoleWithWebIdentity
            Condition: {"ForAnyValue:StringEquals": {"<provider name>:groups": engineers}}
      policies:
        - Version: "2012-10-17"
          Statement:
            - Sid: LogOnAsBob
              Effect: Allow
              Action: redshift:GetClusterCredentials
              Condition: {StringEquals: {"redshift:DbName": ` + exampleDatabase + `}}
              Resource:
                - arn:aws:redshift:` + exampleRegion + `:` + exampleAccount + `:dbuser:` + exampleCluster + `/bob
                - arn:aws:redshift:` + exampleRegion + `:` + exampleAccount + `:dbname:` + exampleCluster + `/` + exampleDatabase + `
            - {Sid: SeeTheClusters, Effect: Allow, Action: redshift:DescribeClusters, Resource: "*"}
            - Sid: SeeAndEndSessionsAndTryPolicies
              Effect: Allow
              Action: [daypass:ListSessions, daypass:TerminateSession, daypass:RevokeCredentials, iam:SimulateCustomPolicy, iam:SimulatePrincipalPolicy, sts:DecodeAuthorizationMessage]
              Resource: "*"
  users:
    - name: ` + exampleIAMUser + `
      access_keys: [{id: <key>, secret_env: SECRET_ACCESS_KEY}]
      policies:
        - Version: "2012-10-17"
          Statement:
            - Sid: LogOnAsAliceOrAsHerself
              Effect: Allow
              Action: redshift:GetClusterCredentials
              Condition: {StringEquals: {"redshift:DbName": ` + exampleDatabase + `}}
              Resource:
                - arn:aws:redshift:` + exampleRegion + `:` + exampleAccount + `:dbuser:` + exampleCluster + `/alice
                - arn:aws:redshift:` + exampleRegion + `:` + exampleAccount + `:dbuser:` + exampleCluster + `/${aws:username}
                - arn:aws:redshift:` + exampleRegion + `:` + exampleAccount + `:dbname:` + exampleCluster + `/` + exampleDatabase + `
            - Sid: MakeHerOwnDatabaseUser
              Effect: Allow
              Action: redshift:CreateClusterUser
              Resource: arn:aws:redshift:` + exampleRegion + `:` + exampleAccount + `:dbuser:` + exampleCluster + `/${aws:username}
            - Sid: JoinAnalysts
              Effect: Allow
              Action: redshift:JoinGroup
              Resource: arn:aws:redshift:` + exampleRegion + `:` + exampleAccount + `:dbgroup:` + exampleCluster + `/analysts
            - Sid: FinanceIsForOthers
              Effect: Deny
              Action: redshift:JoinGroup
              Resource: arn:aws:redshift:` + exampleRegion + `:` + exampleAccount + `:dbgroup:` + exampleCluster + `/finance
            - Sid: SeeTheClusters
              Effect: Allow
              Action: [redshift:DescribeClusters, redshift:DescribeCustomDomainAssociations]
              Resource: "*"
    - name: ` + exampleOperator + `
      access_keys: [{id: <operator key>, secret_env: OPERATOR_SECRET_ACCESS_KEY}]
      policies:
        - Version: "2012-10-17"
          Statement:
            - Sid: SeeAndEndSessionsAndTakeBackCredentials
              Effect: Allow
              Action: [daypass:ListSessions, daypass:TerminateSession, daypass:RevokeCredentials, daypass:ListRevocations]
              Resource: "*"
            - {Sid: SeeTheClusters, Effect: Allow, Action: redshift:DescribeClusters, Resource: "*"}
`

// exampleRoles are the example's users and groups. The administrative login creates them, as
// it would on a real cluster: from PostgreSQL 16 on, it can lend them only because it created
// them.
var exampleRoles = []string{
	"CREATE ROLE alice LOGIN",
	"CREATE ROLE bob LOGIN",
	"CREATE ROLE analysts NOLOGIN",
	"CREATE ROLE finance NOLOGIN",
}

// exampleTables are the example's tables. The rows that a session sees in sales depend on its
// groups, and those in events on its user.
const exampleTables = `
CREATE TABLE sales (
	id      integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	sold_on date    NOT NULL,
	region  text    NOT NULL,
	product text    NOT NULL,
	amount  numeric(10,2) NOT NULL
);
INSERT INTO sales (sold_on, region, product, amount) VALUES
	('2026-01-12', 'north', 'kettle',  39.90),
	('2026-01-12', 'south', 'teapot',  24.50),
	('2026-01-13', 'north', 'teapot',  24.50),
	('2026-01-14', 'west',  'samovar', 310.00);
GRANT SELECT ON sales TO analysts;
GRANT SELECT, INSERT, UPDATE, DELETE ON sales TO finance;

CREATE TABLE events (
	id          integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	owner       text    NOT NULL DEFAULT current_user,
	happened_at timestamptz NOT NULL DEFAULT now(),
	what        text    NOT NULL
);
INSERT INTO events (owner, what) VALUES
	('alice', 'counted the kettles'),
	('bob',   'broke a teapot'),
	('alice', 'sold the samovar');
ALTER TABLE events ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_events ON events USING (owner = current_user) WITH CHECK (owner = current_user);
GRANT SELECT, INSERT ON events TO PUBLIC;

GRANT CREATE ON SCHEMA public TO alice, analysts;
`

// exampleAdmin is the administrative login of the example's cluster.
const exampleAdmin = "daypass"

// config writes the configuration of this run and reads it. It contains no secrets.
func (d *dev) config() (*config.Config, error) {
	path := filepath.Join(d.dirs.root, "daypass.yaml")
	text := strings.NewReplacer(
		"<data>", config.Quote(d.dirs.server),
		"<api>", config.Quote(d.api.Addr().String()),
		"<gateway>", config.Quote(d.gateway.Addr().String()),
		"<port>", strconv.Itoa(d.gatewayPort()),
		"<upstream>", config.Quote(d.server.ConnString(exampleAdmin, "postgres")),
		"<api url>", config.Quote(d.endpointURL()),
		"<provider>", config.Quote(d.providerURL()),
		"<provider name>", d.provider.Addr().String(),
		"<key>", d.key.ID,
		"<operator key>", d.operatorKey.ID,
	).Replace(exampleConfiguration)
	secrets := map[string]string{
		"UPSTREAM_PASSWORD": d.adminPassword.Reveal(),
		"SECRET_ACCESS_KEY": d.key.Secret.Reveal(),

		"OPERATOR_SECRET_ACCESS_KEY": d.operatorKey.Secret.Reveal(),
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("writing the configuration: %w", err)
	}
	return config.LoadEnv(path, func(name string) (string, bool) {
		value, ok := secrets[name]
		return value, ok
	})
}

// makeAdmin makes the administrative login, or gives the existing one this run's
// password.
func (d *dev) makeAdmin(ctx context.Context) error {
	return withConn(ctx, d.superuser("postgres"), func(conn *pgx.Conn) error {
		have, err := exists(ctx, conn, "SELECT FROM pg_roles WHERE rolname = $1", exampleAdmin)
		if err != nil {
			return err
		}
		verb := "CREATE"
		if have {
			verb = "ALTER"
		}
		// rand.Text returns only letters and digits, so nothing needs quoting.
		_, err = conn.Exec(ctx, verb+" ROLE "+exampleAdmin+" LOGIN CREATEROLE PASSWORD '"+d.adminPassword.Reveal()+"'")
		return err
	})
}

// makeExample makes the missing parts of the example.
func (d *dev) makeExample(ctx context.Context) error {
	group, both := errgroup.WithContext(ctx)
	group.Go(func() error { return d.makeDatabase(both) })
	group.Go(func() error { return d.makeRoles(both) })
	if err := group.Wait(); err != nil {
		return err
	}
	return withConn(ctx, d.superuser(exampleDatabase), func(conn *pgx.Conn) error {
		have, err := exists(ctx, conn, "SELECT FROM pg_class WHERE oid = to_regclass($1)", "public.sales")
		if err != nil || have {
			return err
		}
		// Several statements in one message are one transaction.
		_, err = conn.PgConn().Exec(ctx, exampleTables).ReadAll()
		return err
	})
}

func (d *dev) makeDatabase(ctx context.Context) error {
	return withConn(ctx, d.superuser("postgres"), func(conn *pgx.Conn) error {
		have, err := exists(ctx, conn, "SELECT FROM pg_database WHERE datname = $1", exampleDatabase)
		if err != nil || have {
			return err
		}
		_, err = conn.Exec(ctx, "CREATE DATABASE "+exampleDatabase)
		return err
	})
}

func (d *dev) makeRoles(ctx context.Context) error {
	config, err := pgx.ParseConfig(d.server.ConnString(exampleAdmin, "postgres"))
	if err != nil {
		return err
	}
	config.Password = d.adminPassword.Reveal()
	return withConn(ctx, config, func(conn *pgx.Conn) error {
		for _, statement := range exampleRoles {
			have, err := exists(ctx, conn, "SELECT FROM pg_roles WHERE rolname = $1", strings.Fields(statement)[2])
			if err == nil && !have {
				_, err = conn.Exec(ctx, statement)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (d *dev) superuser(database string) *pgx.ConnConfig {
	config, err := pgx.ParseConfig(d.server.ConnString(postgres.Superuser, database))
	if err != nil {
		panic("internal error: " + err.Error()) // postgres.Start connected with the same string
	}
	return config
}

func exists(ctx context.Context, conn *pgx.Conn, query string, args ...any) (have bool, err error) {
	err = conn.QueryRow(ctx, "SELECT EXISTS ("+query+")", args...).Scan(&have)
	return have, err
}

func withConn(ctx context.Context, config *pgx.ConnConfig, f func(*pgx.Conn) error) error {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return f(conn)
}

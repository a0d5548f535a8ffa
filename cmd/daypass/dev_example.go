package main

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/postgres"
)

// The example's names, as the configuration, the database, the walk and what is
// to be pasted use them.
const (
	devAccount  = "123456789012"
	devRegion   = "us-east-1"
	devCluster  = "examplecluster"
	devDatabase = "dev"
	devIAMUser  = "ana"
)

// devConfiguration is the configuration of `daypass dev`, a file in all but
// name: the same code reads it.
const devConfiguration = `
account: "` + devAccount + `"
region: ` + devRegion + `
data: <data>
api: {listen: <api>}
gateway: {listen: <gateway>, advertise: {host: localhost, port: <port>}}
clusters:
  - identifier: ` + devCluster + `
    database: ` + devDatabase + `
    upstream: <upstream>
    upstream_password_env: UPSTREAM_PASSWORD
iam:
  users:
    - name: ` + devIAMUser + `
      access_keys: [{id: <key>, secret_env: SECRET_ACCESS_KEY}]
      policies:
        - Version: "2012-10-17"
          Statement:
            - Sid: LogOnAsAliceOrAsHerself
              Effect: Allow
              Action: redshift:GetClusterCredentials
              Resource:
                - arn:aws:redshift:` + devRegion + `:` + devAccount + `:dbuser:` + devCluster + `/alice
                - arn:aws:redshift:` + devRegion + `:` + devAccount + `:dbuser:` + devCluster + `/${aws:username}
                - arn:aws:redshift:` + devRegion + `:` + devAccount + `:dbname:` + devCluster + `/` + devDatabase + `
            - Sid: MakeHerOwnDatabaseUser
              Effect: Allow
              Action: redshift:CreateClusterUser
              Resource: arn:aws:redshift:` + devRegion + `:` + devAccount + `:dbuser:` + devCluster + `/${aws:username}
            - Sid: JoinAnalysts
              Effect: Allow
              Action: redshift:JoinGroup
              Resource: arn:aws:redshift:` + devRegion + `:` + devAccount + `:dbgroup:` + devCluster + `/analysts
            - Sid: FinanceIsForOthers
              Effect: Deny
              Action: redshift:JoinGroup
              Resource: arn:aws:redshift:` + devRegion + `:` + devAccount + `:dbgroup:` + devCluster + `/finance
            - Sid: SeeTheClusters
              Effect: Allow
              Action: redshift:DescribeClusters
              Resource: "*"
`

// devRoles are the example's users and groups. The administrative login makes
// them, as it would on a real cluster: from PostgreSQL 16 on that is what lets
// it lend them.
var devRoles = []string{
	"CREATE ROLE alice LOGIN",
	"CREATE ROLE bob LOGIN",
	"CREATE ROLE analysts NOLOGIN",
	"CREATE ROLE finance NOLOGIN",
}

// devTables are the example's tables. What may be seen in sales depends on the
// groups of the session, what may be seen in events on its user.
const devTables = `
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

// devAdmin is the administrative login of the example's cluster.
const devAdmin = "daypass"

// config is the configuration of this run.
func (d *dev) config() (*config, error) {
	text := strings.NewReplacer(
		"<data>", yamlText(d.dirs.server),
		"<api>", yamlText(d.api.Addr().String()),
		"<gateway>", yamlText(d.gateway.Addr().String()),
		"<port>", strconv.Itoa(d.gatewayPort()),
		"<upstream>", yamlText(d.server.ConnString(devAdmin, "postgres")),
		"<key>", d.key.ID,
	).Replace(devConfiguration)
	secrets := map[string]string{
		"UPSTREAM_PASSWORD": d.adminPassword.Reveal(),
		"SECRET_ACCESS_KEY": d.key.Secret.Reveal(),
	}
	return parseConfig(filepath.Join(d.dirs.root, "daypass.yaml"), []byte(text), func(name string) (string, bool) {
		value, ok := secrets[name]
		return value, ok
	})
}

// yamlText writes a text as a YAML scalar: single quotes, doubled inside.
func yamlText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// makeExample makes what is not there of the example. The administrative login
// gets a new password each time.
func (d *dev) makeExample(ctx context.Context) error {
	err := d.withConn(ctx, d.server.ConnString(postgres.Superuser, "postgres"), func(conn *pgx.Conn) error {
		var haveAdmin, haveDatabase bool
		err := conn.QueryRow(ctx, `SELECT
			EXISTS (SELECT FROM pg_roles WHERE rolname = $1),
			EXISTS (SELECT FROM pg_database WHERE datname = $2)`, devAdmin, devDatabase).Scan(&haveAdmin, &haveDatabase)
		if err != nil {
			return err
		}
		verb := "CREATE"
		if haveAdmin {
			verb = "ALTER"
		}
		// rand.Text has letters and digits only: nothing in it to quote.
		if _, err := conn.Exec(ctx, verb+" ROLE "+devAdmin+" LOGIN CREATEROLE PASSWORD '"+d.adminPassword.Reveal()+"'"); err != nil {
			return err
		}
		if !haveDatabase {
			_, err = conn.Exec(ctx, "CREATE DATABASE "+devDatabase)
		}
		return err
	})
	if err != nil {
		return err
	}
	admin, err := pgx.ParseConfig(d.server.ConnString(devAdmin, "postgres"))
	if err != nil {
		return err
	}
	admin.Password = d.adminPassword.Reveal()
	conn, err := pgx.ConnectConfig(ctx, admin)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, statement := range devRoles {
		name := strings.Fields(statement)[2]
		var have bool
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", name).Scan(&have); err != nil {
			return err
		}
		if have {
			continue
		}
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return d.withConn(ctx, d.server.ConnString(postgres.Superuser, devDatabase), func(conn *pgx.Conn) error {
		var have bool
		if err := conn.QueryRow(ctx, "SELECT to_regclass('sales') IS NOT NULL").Scan(&have); err != nil || have {
			return err
		}
		// Several statements in one message are one transaction.
		_, err := conn.PgConn().Exec(ctx, devTables).ReadAll()
		return err
	})
}

func (d *dev) withConn(ctx context.Context, connString string, f func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, connString)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return f(conn)
}

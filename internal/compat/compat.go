// Package compat installs SQL functions and views in a database, which row security
// and Redshift's drivers need and a plain PostgreSQL does not have. The command is
// `daypass cluster compat`, its documentation docs/clients.md.
//
// The gateway works without them. The owner of their schema could replace them, so
// Install never uses a schema of another role.
package compat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daypass/daypass/internal/adminconn"
	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/pgsql"
)

// Options configure Install.
type Options struct {
	Database string
	Remove   bool // take it away again
	DryRun   bool // change nothing
}

// Report is what Install has done or, with DryRun, would do.
type Report struct {
	Cluster  string
	Database string
	// SQL are the statements, for one transaction, without semicolons. None: there
	// is nothing to do.
	SQL []string
	// ForOwner are statements that the administrative login may not run: the
	// owner of the database or a superuser has to. They put the schema at the
	// end of the search path, where Redshift's drivers look for their views;
	// db_user() works without.
	ForOwner []string
	// ForSuperuser are grants to the owner of the functions with which users see, cancel and
	// terminate their own sessions. Without these grants the functions refuse to work.
	ForSuperuser []string
}

// Install installs, in one database, the schema daypass: db_user(), which row
// security policies can compare with in sessions with groups, and the views that
// the metadata calls of Redshift's drivers ask for. It can be repeated. It needs
// the right to create schemas in the database. It grants everybody rights on its own
// schema and the objects in it. Daypass grants no other rights on objects.
//
// The schema's owner decides what db_user() says. Install therefore refuses one
// that belongs to neither the administrative login nor a superuser, or in which
// another role owns or may create objects, and leaves alone what a superuser has made.
//
// Errors are *adminconn.Error with adminconn.ErrRights, dbuser.ErrDatabaseMissing or ErrUnreachable, or
// what PostgreSQL said.
func Install(ctx context.Context, pool *adminconn.Pool, o Options) (Report, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	report := Report{Cluster: pool.Cluster, Database: o.Database}
	err := pool.InDatabase(ctx, o.Database, func(ctx context.Context, _, c *adminconn.Conn) error {
		report.SQL, report.ForOwner, report.ForSuperuser = nil, nil, nil // it may be the second attempt
		st, err := readState(ctx, c)
		if err != nil {
			return err
		}
		if report.SQL, err = st.plan(o); err != nil {
			return err
		}
		if sql := st.searchPath(o); sql != "" && st.ownsDatabase {
			report.SQL = append(report.SQL, sql)
		} else if sql != "" {
			report.ForOwner = []string{sql}
		}
		report.ForSuperuser = st.rights(o)
		if o.DryRun {
			return nil
		}
		var steps []adminconn.Step
		for _, sql := range report.SQL {
			steps = append(steps, adminconn.Step{SQL: sql})
		}
		if len(steps) == 0 {
			return nil
		}
		return pool.Run(ctx, c, steps)
	})
	return report, installError(err, o)
}

// state is what Install needs to know about a database.
type state struct {
	admin        string
	adminSuper   bool
	owner        string // of the schema; empty if it does not exist
	ownerSuper   bool
	foreign      string // why the schema cannot be trusted; empty if it can
	version      string
	mayCreate    bool
	lacks        []string // the signalRights that the administrative login lacks
	ownsDatabase bool
	database     string
	path         string // the database's own search_path; may be empty
	serverPath   string // the server's search_path
}

func readState(ctx context.Context, c *adminconn.Conn) (*state, error) {
	var st state
	err := c.QueryRow(ctx, `
		select current_user::text, me.rolsuper, coalesce(o.rolname::text, ''), coalesce(o.rolsuper, false),
		  coalesce(obj_description(n.oid, 'pg_namespace'), ''),
		  has_database_privilege(d.oid, 'create'),
		  (select coalesce(array_agg(r.rolname::text order by 1), '{}') from pg_roles r
		    where r.rolname = any ($2::text[]::name[]) and not pg_has_role(me.oid, r.oid, 'usage')),
		  pg_has_role(d.datdba, 'usage'), d.datname::text,
		  coalesce((select substr(e, length('search_path=') + 1) from pg_db_role_setting s, unnest(s.setconfig) e
		    where s.setdatabase = d.oid and s.setrole = 0 and e like 'search\_path=%'), ''),
		  (select case source when 'configuration file' then reset_val else boot_val end from pg_settings where name = 'search_path')
		from pg_database d join pg_roles me on me.rolname = current_user
		left join pg_namespace n on n.nspname = $1 left join pg_roles o on o.oid = n.nspowner
		where d.datname = current_database()`, Schema, signalRights).
		Scan(&st.admin, &st.adminSuper, &st.owner, &st.ownerSuper, &st.version, &st.mayCreate, &st.lacks, &st.ownsDatabase, &st.database, &st.path, &st.serverPath)
	if err == nil && st.owner != "" {
		st.foreign, err = st.foreignIn(ctx, c)
	}
	return &st, err
}

// Installed describes an installation.
type Installed struct {
	Present  bool   // there is a schema of its name
	Foreign  string // why the schema cannot be trusted; empty if it can
	UpToDate bool
}

// Look finds out what is installed in the database of a connection.
func Look(ctx context.Context, c *adminconn.Conn) (Installed, error) {
	st, err := readState(ctx, c)
	if err != nil {
		return Installed{}, err
	}
	return Installed{Present: st.owner != "", Foreign: st.foreign, UpToDate: st.version == version()}, nil
}

// plan returns the statements for the schema.
func (st *state) plan(o Options) ([]string, error) {
	switch {
	case st.owner == "" && o.Remove:
		return nil, nil
	case st.owner == "" && !st.mayCreate && !o.DryRun:
		return nil, &adminconn.Error{Kind: adminconn.ErrRights, Name: st.admin, Message: fmt.Sprintf(
			"the administrative login %q may not create a schema in database %q: grant create on database %s to %s, or have a superuser run what --dry-run prints",
			st.admin, st.database, pgsql.Ident(st.database), pgsql.Ident(st.admin))}
	case st.foreign != "":
		return nil, &adminconn.Error{Kind: adminconn.ErrRights, Name: st.owner, Message: fmt.Sprintf(
			"database %q: %s: drop it or revoke it, so that no other role can change db_user(), and run this again", st.database, st.foreign)}
	case st.owner != "" && st.owner != st.admin && !st.adminSuper:
		if !o.Remove && st.version == version() {
			return nil, nil
		}
		if !o.DryRun {
			return nil, &adminconn.Error{Kind: adminconn.ErrRights, Name: st.owner, Message: fmt.Sprintf(
				"schema %s in database %q belongs to the superuser %q, who has to run what --dry-run prints", Schema, st.database, st.owner)}
		}
	}
	sql := []string{st.guard(o.Remove)}
	if o.Remove {
		return append(sql, removal()...), nil
	}
	return append(append(sql, installation()...), st.verify()), nil
}

// rights returns the grants that the administrative login needs if it owns the
// functions or will own them.
func (st *state) rights(o Options) []string {
	if o.Remove || len(st.lacks) == 0 || st.owner != st.admin && (st.owner != "" || o.DryRun) {
		return nil // what a superuser runs belongs to the superuser
	}
	var sql []string
	for _, role := range st.lacks {
		sql = append(sql, "grant "+role+" to "+pgsql.Ident(st.admin))
	}
	return sql
}

// searchPath returns the statement that adds the schema to the database's search path
// or, with o.Remove, removes it. It returns "" if nothing has to change. The schema is
// added at the end, so that it shadows nothing and does not change where CREATE TABLE
// creates tables.
func (st *state) searchPath(o Options) string {
	path := st.path
	if path == "" {
		path = st.serverPath
	}
	schemas := pgsql.SplitList(path)
	if slices.Contains(schemas, Schema) == !o.Remove {
		return ""
	}
	if o.Remove {
		schemas = slices.DeleteFunc(schemas, func(s string) bool { return s == Schema })
	} else {
		schemas = append(schemas, Schema)
	}
	target := "alter database " + pgsql.Ident(st.database)
	if o.Remove && slices.Equal(schemas, pgsql.SplitList(st.serverPath)) {
		return target + " reset search_path"
	}
	for i, schema := range schemas {
		schemas[i] = pgsql.Ident(schema)
	}
	return target + " set " + pgsql.Assignment("search_path", strings.Join(schemas, ", "))
}

func installError(err error, o Options) error {
	var pg *pgconn.PgError
	var ours *adminconn.Error
	switch {
	case err == nil || errors.As(err, &ours):
		return err
	case adminconn.IsCode(err, refusedInScript, pgerrcode.DuplicateSchema, pgerrcode.UniqueViolation) && errors.As(err, &pg):
		message := pg.Message
		if pg.Hint != "" {
			message += ": " + pg.Hint
		}
		return &adminconn.Error{Kind: adminconn.ErrRights, Name: o.Database, Message: fmt.Sprintf("database %q: %s", o.Database, message)}
	case adminconn.IsCode(err, pgerrcode.InvalidCatalogName):
		return &adminconn.Error{Kind: dbuser.ErrDatabaseMissing, Name: o.Database, Message: fmt.Sprintf("database %q does not exist", o.Database), Cause: err}
	case adminconn.IsCode(err, pgerrcode.DependentObjectsStillExist) && errors.As(err, &pg):
		return fmt.Errorf("not removed because other objects depend on it: %s (%s)", pg.Message, strings.ReplaceAll(pg.Detail, "\n", "; "))
	case adminconn.IsCode(err, pgerrcode.InsufficientPrivilege):
		return &adminconn.Error{Kind: adminconn.ErrRights, Message: fmt.Sprintf("the administrative login may not: %s", adminconn.PlainError(err)), Cause: err}
	}
	return fmt.Errorf("database %q: %w", o.Database, err)
}

package handover_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/daypass/daypass/internal/dbuser"
	"github.com/daypass/daypass/internal/handover"
	"github.com/daypass/daypass/test/clustertest"
	"github.com/daypass/daypass/test/pgtest"
)

// makeEveryKind makes one object of each kind that a user without superuser can own.
func makeEveryKind(t testing.TB, c *pgx.Conn) {
	t.Helper()
	makeThings(t, c, "lab")
	for _, sql := range []string{
		"create table lab.g (id int generated always as identity, y int generated always as (1) stored, check (id > 0))",
		"create unlogged table lab.u (x int)",
		"create index on lab.g (id)",
		"create type lab.pair as (a int, b int)",
		"create type lab.span as range (subtype = int)",
		"create function lab.add(int, int) returns int language sql immutable as 'select 1'",
		"create aggregate lab.total(int) (sfunc = lab.add, stype = int)",
		"create function lab.push(int[], int) returns int[] language sql immutable as 'select $1 || $2'",
		"create aggregate lab.middle(order by int) (sfunc = lab.push, stype = int[])",
		"create operator lab.@@@ (leftarg = int, rightarg = int, function = lab.add)",
		"create collation lab.co from \"C\"",
		"create conversion lab.cv for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8",
		"create statistics lab.st on id, y from lab.g",
		"create text search dictionary lab.td (template = simple)",
		"create text search configuration lab.tc (copy = pg_catalog.simple)",
		"create publication pu",
		"create server sv foreign data wrapper fdw",
		"create foreign table lab.ft (x int) server sv",
		"create user mapping for current_user server sv options (password 'x')",
		"create rule ru as on insert to lab.u do also nothing",
		"create policy po on lab.u using (true)",
		"create schema \"odd \"\"schema;\" create table \"odd \"\"table;\" (x int)",
		"select count(lo_create(0)) from generate_series(1, 200)",
	} {
		clustertest.Exec(t, c, sql)
	}
}

// TestEveryKindIsHandedOver: objects of every kind are handed over with one statement, and one
// by one if someone has locked a table. They include large objects, extensions and odd names.
func TestEveryKindIsHandedOver(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, s *pgtest.Server) {
		t.Parallel()
		for name, f := range map[string]*fixture{"plain": plain(t, s), "superuser": super(t, s)} {
			for _, locked := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/locked=%v", name, locked), func(t *testing.T) {
					f.T = t
					alice, makers := f.LentUser("alice", ""), f.LentGroup("makers")
					db := f.LabDatabase(makers)
					f.Exec(t, db, "create foreign data wrapper fdw; grant usage on foreign data wrapper fdw to "+pgtest.Quote(makers)+
						"; create table lab.kept (x int)")
					role := f.Ensure(dbuser.Need{User: alice, Groups: []string{makers}})
					c := f.Logon(role, db)
					makeEveryKind(t, c)
					inspector := pgtest.Connect(t, f.Superuser(db))
					extension := clustertest.One(t, inspector, `select coalesce(min(name), '') from pg_available_extension_versions where name in ('hstore', 'citext', 'pg_trgm') and trusted`)
					if extension == "" {
						clustertest.Exec(t, inspector, "drop extension plpgsql cascade")
						extension = "plpgsql"
					}
					clustertest.Exec(t, c, "create extension "+extension)
					_ = c.Close(t.Context())
					f.NoSessions(role.Name)
					if locked {
						clustertest.Exec(t, inspector, "begin; lock table lab.u in access share mode")
					}
					report, err := f.Another().Sweep(t.Context(), handover.SweepOptions{})
					if err != nil {
						t.Fatal(err)
					}
					left := clustertest.One(t, inspector, `select coalesce(string_agg(o.type || ' ' || o.identity, ', ' order by 1), '') from pg_shdepend d cross join lateral pg_identify_object(d.classid, d.objid, 0) o
						where d.refclassid = 'pg_authid'::regclass and d.refobjid = $1::text::regrole and d.deptype = 'o' and d.dbid = (select oid from pg_database where datname = current_database())
						  and d.classid not in ('pg_user_mapping'::regclass, 'pg_default_acl'::regclass)`, pgtest.Quote(role.Name))
					for l := range strings.SplitSeq(left, ", ") {
						if l != "" && !(locked && (l == "table lab.u" || l == "extension "+extension)) {
							t.Errorf("left with the session role: %s; kept: %+v", l, report.Kept)
						}
					}
					if locked {
						clustertest.Exec(t, inspector, "rollback")
						f.SweepUntil(role.Name, 0)
					}
					if got := clustertest.One(t, inspector, "select extowner::regrole::text from pg_extension where extname = $1", extension); got != pgtest.Quote(alice) && got != alice {
						t.Errorf("the extension belongs to %s, want %s", got, alice)
					}
					if got := f.lentOut(alice); got != "" {
						t.Errorf("left behind: %s", got)
					}
					if strings.Contains(fmt.Sprint(report), "syntax error") || strings.Contains(f.Log.String(), "syntax error") {
						t.Errorf("a statement that PostgreSQL does not know: %+v %s", report, f.Log)
					}
				})
			}
		}
	})
}
